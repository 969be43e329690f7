"""What is thrown at the installed command and at a worker: names, ids, environments, floods, and too few of everything.

The parsers by themselves are fuzzed in `test_events`, `test_settings`, `test_safe`, `test_tail` and `test_fuzz`.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backprop.worker.executor.standby import KEPT
from tests.faults.sweep import faults
from tests.faults.sweep.scenes import SCENES, Stage
from tests.support import promises as books
from tests.support.harness import COMMAND, QUIET_LIMITS, SCRIPTS, Bench, wait_until

TRAINER = str(SCRIPTS / "trainer.py")
LEDGER = str(SCRIPTS / "ledger.py")
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\u200b"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    why = faults.unusable()
    if why is not None:
        pytest.skip(why)
    made = Stage(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("text", ["", "../x", "-x", ESCAPES, "a\nb", "x" * 65], ids=ascii)
def test_a_name_or_id_that_is_no_plain_word_is_refused_in_one_line(bench: Bench, text: str) -> None:
    for option in ("--run-id", "--name"):
        done = bench.backprop("run", f"{option}={text}", TRAINER)
        assert done.returncode == 6, done.stderr
        assert_plain(done.stderr)
    assert not (bench.home / "runs").exists() or not list((bench.home / "runs").iterdir())


def test_no_odd_name_means_another_run(bench: Bench) -> None:
    run = bench.queue(TRAINER)
    for text in ("", "..", "%", "_", "' OR 1=1 --", ESCAPES, "x" * 5000):
        for command in ("show", "stop"):
            done = bench.backprop(command, "--", text)
            assert done.returncode == 3, (command, done.stderr)
            assert_plain(done.stderr)
    assert bench.state(run) == "queued"


def assert_plain(told: str) -> None:
    assert len(told.splitlines()) == 1, told
    assert told.rstrip("\n").isprintable(), ascii(told)


def test_an_environment_of_anything_arrives_as_it_was(bench: Bench) -> None:
    """Line feeds, escapes, bytes that are no UTF-8, names of our own, a large value: the script gets the first ones."""
    script = bench.script("env.py", "import json, os\nprint(json.dumps(dict(os.environ)), flush=True)\n")
    odd = {
        "ODD_LINES": "a\nb\r\n",
        "ODD_ESCAPES": ESCAPES,
        "ODD_BYTES": os.fsdecode(b"\xff\xfe"),
        "ODD_LARGE": "x" * 100_000,
        "BACKPROP_RUN_ID": "../../outer",
        "BACKPROP_EVENTS": "/dev/null",
        "BACKPROP_SEGMENT": "99",
    }
    done = bench.backprop("run", "-q", *QUIET_LIMITS, str(script), env=odd)
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip()
    bench.worker("--drain").wait(timeout=60)
    assert bench.state(run) == "completed"
    seen = json.loads(bench.log(run))
    assert {name: seen[name] for name in odd if name.startswith("ODD")} == {
        name: value for name, value in odd.items() if name.startswith("ODD")
    }
    assert (seen["BACKPROP_RUN_ID"], seen["BACKPROP_SEGMENT"]) == (run, "1")
    assert seen["BACKPROP_EVENTS"].startswith(str(bench.home))


def test_a_flood_of_events_disturbs_nobody(bench: Bench) -> None:
    """100 MB on one line, deep nesting, numbers that are none, a binary file: counted, and the last word is heard."""
    bench.script(
        "bombs.py",
        r"""
        import os, sys
        out = sys.stdout.buffer
        out.write(b'{"step": "' + b"x" * 100_000_000 + b'"}\n')
        out.write(b'{"event": "checkpoint_saved", "path": ' + b"[" * 100_000 + b"\n")
        for bad in (b'{"step": NaN}', b'{"step": 1e999}', b'{"step": ' + b"9" * 5000 + b"}", b'{"loss": "\\ud800"}',
                    b'{"event": "checkpoint_saved", "path": "\\u0000"}', b'{"step": -1}',
                    b'{"step": 9223372036854775808}'):
            out.write(bad + b"\n")
        out.write(os.urandom(1_000_000) + b"\n")
        out.write(b'{"step": 7, "loss": 0.5}\n')
        out.flush()
        """,
    )
    bombs = bench.queue("bombs.py")
    other = bench.queue(TRAINER, "--", "--steps", "20")
    worker = bench.worker()
    for run in (bombs, other):
        bench.wait_for(run, "completed")
    assert bench.column(bombs, "last_step") == 7
    assert memory_mib(worker.pid) < 120
    assert "trouble" not in bench.output()
    assert bench.show(bombs)["segments"][0]["bad_events"] >= 5


def memory_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def few_descriptors(count: int) -> tuple[str, ...]:
    """Words before a command that leave it `count` descriptors."""
    return ("sh", "-c", f'ulimit -n {count}; exec "$0" "$@"')


def test_a_worker_with_few_descriptors(bench: Bench) -> None:
    """`ulimit -n 64` and eight runs at once: slower at worst, and nothing is lost."""
    words = ("-p", "8", LEDGER, "-m", "0.02", "--", "--steps", "60", "--pace", "0.02")
    runs = [bench.queue(*words) for _ in range(8)]
    bench.worker("--drain", "-p", "8", command=(*few_descriptors(64), str(COMMAND)))
    for run in runs:
        bench.wait_for(run, "completed")
    assert bench.workers[0].wait(timeout=60) == 0
    assert books.faults(bench.home, bench.project) == []


def test_hardly_any_descriptors_at_all(bench: Bench) -> None:
    """So few that hardly anything can be opened: refusals in one line, and the run is still there afterwards."""
    run = bench.queue(TRAINER, "--", "--steps", "5")
    for few in (6, 8, 10, 12, 14):
        words = [*few_descriptors(few), "timeout", "5", str(COMMAND), "worker", "--drain"]
        subprocess.run(
            words, env=bench.environment, cwd=bench.project, capture_output=True, timeout=60, check=False
        )
        assert bench.state(run) in ("queued", "running", "completed"), bench.show(run)["reason"]
    bench.worker()
    bench.wait_for(run, "completed")


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def test_a_workers_descriptors_and_memory_do_not_grow(bench: Bench) -> None:
    """I10: as many, and as much, after two dozen segments as after the first one."""
    script = bench.script(
        "chain.py",
        """
        import json, os, sys
        segment = os.environ["BACKPROP_SEGMENT"]
        path = os.environ["BACKPROP_RUN_ID"] + segment
        open(path, "w").write("some state")
        print(json.dumps({"event": "checkpoint_saved", "path": path, "step": int(segment)}), flush=True)
        sys.exit(0 if segment == "3" else 75)
        """,
    )
    worker = bench.worker("-p", "4")

    def have_chains() -> None:
        """Four of three segments each."""
        for run in [bench.queue("-p", "4", str(script)) for _ in range(4)]:
            bench.wait_for(run, "completed")
        wait_until(lambda: bench.busy() == [worker.pid], saw=bench.left)

    have_chains()
    before, before_mib = open_files(worker.pid), resident_mib(worker.pid)
    have_chains()
    # Of the supervisors it keeps ready each has one, and their number varies; a leak would be one a segment.
    most = before + KEPT - 1
    wait_until(lambda: open_files(worker.pid) <= most, saw=lambda: (before, open_files(worker.pid)))
    # A page table or a cache may come late; a leak of a tenth of a MiB a segment would show.
    assert resident_mib(worker.pid) < before_mib + 1.2, before_mib


def test_a_worker_that_cannot_make_its_own_files_refuses_in_one_line(stage: Stage) -> None:
    """No room for the FIFO through which commands reach it. The queue is as it was, for the next worker."""
    playing = next(one for one in SCENES if one.name == "worker")
    playing.prepare(stage)
    full = [*faults.tracing(stage.trace), "-e", "inject=?mknod,?mknodat:error=ENOSPC:when=1", "--"]
    assert stage.play(playing, full) == 7
    assert faults.struck(stage.trace)
    told, ended = stage.told.read_text().splitlines()
    assert told.startswith("backprop: ")
    assert "No space left on device" in told, (told, ended)
    stage.finish()
    assert stage.faults() == []


@pytest.mark.parametrize("scene", ["worker", "supervisor"])
def test_no_process_to_be_had(stage: Stage, scene: str) -> None:
    """EAGAIN for a supervisor: nothing is claimed. For a leader: its run goes back into the queue. The worker lives."""
    playing = next(one for one in SCENES if one.name == scene)
    playing.prepare(stage)
    refused = [
        *faults.tracing(stage.trace),
        "-e",
        "inject=?vfork,?clone,?clone3,?fork:error=EAGAIN:when=1",
        "--",
    ]
    assert stage.play(playing, refused) == 0
    assert faults.struck(stage.trace)
    assert stage.faults() == []
    refused = [row for row in books.rows(stage.home.root, "segments") if row["outcome"] == "not started"]
    assert len(refused) == (scene == "supervisor")
    assert all("Resource temporarily unavailable" in row["reason"] for row in refused)
