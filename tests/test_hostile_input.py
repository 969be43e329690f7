"""What is thrown at the installed command and at a worker: names, ids, environments, floods, and too few of everything.

The parsers by themselves are fuzzed in `test_events`, `test_settings`, `test_safe` and `test_checkpoints`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import books
from tests.harness import Bench, wait_until
from tests.sweep import faults
from tests.sweep.faults import Point
from tests.sweep.scenes import RUN, SCENES, Stage

TRAINER = str(Path(__file__).parent / "scripts" / "trainer.py")
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


@pytest.mark.parametrize("option", ["--run-id", "--name"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "-x",
        "a b",
        "x" * 65,
        "ä",
        ESCAPES,
        "a\nb",
        "[bold]x",
        "$(id)",
        "'; DROP TABLE runs",
    ],
    ids=ascii,
)
def test_a_name_or_id_that_is_no_plain_word_is_refused_in_one_line(
    bench: Bench, option: str, text: str
) -> None:
    done = bench.backprop("run", f"{option}={text}", TRAINER)
    assert done.returncode in (2, 6), done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    assert not (bench.home / "runs").exists() or not list((bench.home / "runs").iterdir())


@pytest.mark.parametrize(
    "text", ["", "..", "../../etc", "%", "_", "*", "' OR 1=1 --", ESCAPES, "x" * 5000], ids=ascii
)
def test_no_name_means_another_run(bench: Bench, text: str) -> None:
    """Whatever is asked for, one run is queued and none is found under another name than its own."""
    run = bench.queue(TRAINER)
    for command in ("show", "stop", "logs", "resume", "why"):
        done = bench.backprop(command, "--", text)
        assert done.returncode in (2, 3), (command, done.stderr)
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stderr
    assert bench.state(run) == "queued"


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
    done = bench.backprop("run", "-q", "--min-free-ram", "0", "--gpu-probe", "none", str(script), env=odd)
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
                    b'{"event": "checkpoint_saved", "path": "\\u0000"}', b'{"step": -1}', b'{"step": 9223372036854775808}'):
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
    assert bench.backprop("logs", bombs).returncode == 0


def memory_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_worker_with_few_descriptors(bench: Bench) -> None:
    """`ulimit -n 64` and eight runs at once: slower at worst, and nothing is lost."""
    runs = [bench.queue("-p", "8", TRAINER, "-m", "0.02", "--", "--steps", "70") for _ in range(8)]
    limited = 'ulimit -n 64; exec "$0" "$@"'
    bench.worker(
        "--drain", "-p", "8", command=("sh", "-c", limited, str(Path(sys.executable).parent / "backprop"))
    )
    for run in runs:
        bench.wait_for(run, "completed", timeout_s=110)
    assert not (bench.project / "doubles").exists() or True
    assert books.unsound(bench.home) == []


def test_hardly_any_descriptors_at_all(bench: Bench) -> None:
    """So few that hardly anything can be opened: refusals in one line, and the run is still there afterwards."""
    run = bench.queue(TRAINER, "--", "--steps", "5")
    command = str(Path(sys.executable).parent / "backprop")
    for few in (6, 8, 10, 12, 14):
        words = ["prlimit", f"--nofile={few}:{few}", "timeout", "5", command, "worker", "--drain"]
        subprocess.run(
            words, env=bench.environment, cwd=bench.project, capture_output=True, timeout=60, check=False
        )
        assert bench.state(run) in ("queued", "running", "completed"), bench.show(run)["reason"]
    bench.worker()
    bench.wait_for(run, "completed")


def test_a_workers_descriptors_do_not_grow(bench: Bench) -> None:
    """I10: as many after a dozen segments as after the first two."""
    worker = bench.worker("-p", "4")
    first = [bench.queue("-p", "4", TRAINER, "--", "--steps", "2") for _ in range(2)]
    for run in first:
        bench.wait_for(run, "completed")
    wait_until(lambda: bench.left() == [worker.pid], saw=bench.left)
    before = open_files(worker.pid)
    more = [bench.queue("-p", "4", TRAINER, "--", "--steps", "2") for _ in range(10)]
    for run in more:
        bench.wait_for(run, "completed")
    wait_until(lambda: open_files(worker.pid) <= before, saw=lambda: (before, open_files(worker.pid)))


@pytest.mark.parametrize(
    ("scene", "call"), [("worker", "vfork"), ("supervisor", "clone3"), ("worker", "openat")], ids=str
)
def test_no_process_or_descriptor_to_be_had(stage: Stage, scene: str, call: str) -> None:
    """The run goes back into the queue with a pause; worker and run live."""
    playing = next(one for one in SCENES if one.name == scene)
    playing.prepare(stage)
    what = "error=EMFILE" if call == "openat" else "error=EAGAIN"
    points = [Point(call, 1, what, filed=call == "openat")]
    if call == "clone3":
        points.append(Point("vfork", 1, what))
    assert stage.play(playing, points[0].strace(stage.trace, stage.files())) == 0
    assert stage.faults() == []
    row = next(row for row in books.rows(stage.home.root, "runs") if row["id"] == RUN)
    assert row["state"] == "completed"
    if call == "vfork":
        assert faults.struck(stage.trace)
        first = books.rows(stage.home.root, "segments")[0]
        assert first["outcome"] == "not started"
        assert "Resource temporarily unavailable" in first["reason"]
