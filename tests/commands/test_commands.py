"""The commands as a person meets them: one clear line and a code for what is refused, stable JSON, quiet pipes."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.harness import COMMAND, QUIET_LIMITS, Bench, wait_until
from tests.support.moved_clock import WallClock
from tests.support.refusals import refused
from tests.support.terminal import Terminal

LIST_KEYS = {
    "id",
    "name",
    "state",
    "reason",
    "command",
    "cwd",
    "segment_count",
    "last_step",
    "last_loss",
    "last_checkpoint",
    "created_at",
    "started_at",
    "ended_at",
    "exit_code",
}
SEGMENT_KEYS = {"number", "started_at", "ended_at", "outcome", "exit_code", "checkpoint_used", "log"}
READY = "print('ready', flush=True)\nimport time\ntime.sleep(60)\n"
SAVES = """
    import json
    open("one.ckpt", "w").write("1")
    print(json.dumps({"event": "checkpoint_saved", "path": "one.ckpt", "step": 3}))
    print(json.dumps({"step": 4, "loss": 0.5}))
"""


@pytest.fixture
def queued(bench: Bench) -> Bench:
    """With one run in the queue."""
    bench.script("train.py", "print(1)")
    bench.queue("train.py", "--run-id", "abc1")
    return bench


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run",), 2, "SCRIPT is missing"),
        (("run", "no.py"), 6, "no.py does not exist in"),
        (("run", "folder.py"), 6, "folder.py is a directory in"),
        (("run", "no/such/program"), 6, "no/such/program is not a program in"),
        (("run", "no-such-program"), 6, "not a program on PATH"),
        (("run", "plain.txt"), 6, "chmod +x ./plain.txt"),
        (("run", "train.py", "surplus"), 2, "backprop run train.py -- surplus"),
        (("run", "train.py", "-m", "abc"), 2, "abc is no time; use minutes"),
        (("run", "train.py", "-m", "0"), 5, "--max-run-minutes"),
        (("run", "train.py", "-m", "-1"), 5, "--max-run-minutes"),
        (("run", "train.py", "-m", "nan"), 5, "--max-run-minutes"),
        (("run", "train.py", "-m", "inf"), 5, "--max-run-minutes"),
        (("run", "train.py", "-g", "lots"), 5, "--gpu-memory-limit"),
        (("run", "train.py", "-p", "0"), 5, "--max-parallel"),
        (("run", "train.py", "--retries", "1.5"), 2, "not a valid integer"),
        (("run", "train.py", "--stop-signal", "KILL"), 5, "--stop-signal"),
        (("run", "train.py", "--resume-arg", "--load"), 5, "{checkpoint}"),
        (("run", "train.py", "-f", "jax"), 2, "pytorch"),
        (("run", "train.py", "-r", "no.ckpt"), 6, "--resume-from no.ckpt does not exist"),
        (("run", "train.py", "--env", "NOVALUE"), 6, "--env NOVALUE is not KEY=VALUE"),
        (("run", "train.py", "--env", "=x"), 6, "is not KEY=VALUE"),
        (("run", "train.py", "--python", "/no/such/python"), 6, "--python /no/such/python"),
        (("run", "train.py", "--run-id", "../x"), 6, "--run-id ../x is refused"),
        (("run", "train.py", "-n", "a/b"), 6, "--name a/b is refused"),
        (("run", "train.py", "-n", ""), 6, "--name"),
        (("run", "train.py", "-n", "x" * 65), 6, "1 to 64"),
        (("run", "train.py", "--config", "no.json"), 5, "no.json: does not exist"),
        (("run", "train.py", "--config", "broken.json"), 5, "broken.json:1:"),
        (("run", "train.py", "--config", "unknown.json"), 5, "did you mean maxRunMinutes?"),
        (("run", "train.py", "--config", "wrong.json"), 5, "maxParallel: expected a whole number"),
        (("run", "train.py", "--config", "commands.json"), 5, "may not be set by a project file"),
        (("run", "train.py", "--nonsense"), 2, "--nonsense"),
        (("frobnicate",), 2, "No such command 'frobnicate'. The commands are: run, worker, list"),
        (("show", "nope"), 3, "nothing has been queued"),
        (("import", "no.json"), 5, "no.json does not exist"),
    ],
)
def test_a_bad_command_line_is_one_line_and_makes_nothing(
    bench: Bench, words: tuple[str, ...], code: int, said: str
) -> None:
    bench.script("train.py", "print(1)")
    bench.script("plain.txt", "text")
    (bench.project / "folder.py").mkdir()
    bench.script("broken.json", "{")
    bench.script("unknown.json", '{"maxRunMinuts": 3}')
    bench.script("wrong.json", '{"maxParallel": "two"}')
    bench.script("commands.json", '{"python": "/bin/sh"}')
    assert said in refused(bench, code, *words)
    assert not bench.home.exists()


def test_a_config_that_cannot_be_read(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    (bench.project / "backprop.config.json").mkdir()
    assert "backprop.config.json: not a regular file" in refused(bench, 5, "run", "train.py")
    (bench.project / "backprop.config.json").rmdir()
    bench.script("backprop.config.json", "{}").chmod(0o666)
    assert "chmod o-w" in refused(bench, 5, "run", "train.py")


@pytest.mark.parametrize("command", ["show", "status", "logs", "stop", "resume"])
def test_an_unknown_run_is_one_line(queued: Bench, command: str) -> None:
    assert "no run has the id or name nope; see: backprop list" in refused(queued, 3, command, "nope")


def test_a_name_that_several_runs_share(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    ids = {bench.queue("train.py", "-n", "base") for _ in range(3)}
    for command in ("show", "stop", "logs", "resume"):
        said = refused(bench, 4, command, "base")
        assert "3 runs are named base" in said
        assert set(re.findall(r"[0-9a-f]{8}", said)) == ids, "it says which it could mean"
    assert bench.show(ids.pop())["name"] == "base"


def test_the_beginning_of_an_id(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    for run_id in ("abc1", "abd2", "zz"):
        bench.queue("train.py", "--run-id", run_id, "-n", f"n-{run_id}")
    assert bench.show("abc")["id"] == "abc1"
    assert bench.show("z")["id"] == "zz"
    said = refused(bench, 4, "show", "ab")
    assert "2 ids begin with ab: " in said
    assert "abc1" in said
    assert "abd2" in said
    bench.queue("train.py", "--run-id", "zzz", "-n", "abc1")
    assert bench.show("abc1")["id"] == "abc1", "an id beats another run's name"
    for pattern in ("%", "_", "a%", "*"):
        refused(bench, 3, "show", pattern)


def test_nothing_is_stopped_when_one_of_the_names_is_wrong(queued: Bench) -> None:
    refused(queued, 3, "stop", "abc1", "nope")
    assert queued.show("abc1")["state"] == "queued"


def test_what_has_ended_cannot_be_stopped_nor_what_waits_be_resumed(queued: Bench) -> None:
    assert "only a run that has ended or is held" in refused(queued, 10, "resume", "abc1")
    assert queued.backprop("stop", "abc1").returncode == 0
    assert "has ended already (stopped)" in refused(queued, 10, "stop", "abc1")


def test_a_database_of_a_newer_backprop(queued: Bench) -> None:
    connection = sqlite3.connect(queued.home / "backprop.db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    for words in (("list",), ("run", "train.py"), ("worker",), ("show", "abc1")):
        assert "schema 999" in refused(queued, 8, *words)


def test_a_home_that_is_a_link(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    real = bench.home.with_name("real")
    real.mkdir(mode=0o700)
    bench.home.symlink_to(real)
    for words in (("run", "train.py"), ("list",), ("worker",)):
        assert f"is a symbolic link; set BACKPROP_HOME to that path itself: {real}" in refused(
            bench, 7, *words
        )
    assert list(real.iterdir()) == []


def test_a_home_that_anybody_may_write(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.home.mkdir()
    bench.home.chmod(0o777)
    for words in (("run", "train.py"), ("list",), ("worker",), ("status",)):
        assert f"chmod 700 {bench.home}" in refused(bench, 7, *words)
    assert "not an absolute path" in refused(bench, 7, "list", env={"BACKPROP_HOME": "here"})


def test_list_and_show_as_json(bench: Bench) -> None:
    bench.script("train.py", SAVES)
    run = bench.queue("train.py", "-n", "one")
    later = bench.queue("train.py")
    bench.backprop("stop", later)
    waiting, stopped = sorted(bench.runs(), key=lambda one: one["name"])
    for shown in (waiting, stopped):
        assert set(shown) >= LIST_KEYS
    assert (waiting["state"], waiting["started_at"], waiting["exit_code"]) == ("queued", None, None)
    assert stopped["state"] == "stopped"
    bench.worker("--drain").wait(timeout=60)
    shown = bench.show(run)
    assert set(shown) >= LIST_KEYS | {"segments", "checkpoints"}
    assert shown["command"] == "python train.py"
    assert shown["cwd"] == str(bench.project)
    assert (shown["state"], shown["exit_code"], shown["segment_count"]) == ("completed", 0, 1)
    assert (shown["last_step"], shown["last_loss"]) == (4, 0.5)
    assert shown["last_checkpoint"] == str(bench.project / "one.ckpt")
    (segment,) = shown["segments"]
    assert set(segment) >= SEGMENT_KEYS
    assert (segment["number"], segment["outcome"], segment["checkpoint_used"]) == (1, "completed", None)
    assert "checkpoint_saved" in Path(segment["log"]).read_text()
    (checkpoint,) = shown["checkpoints"]
    assert (checkpoint["path"], checkpoint["step"]) == (shown["last_checkpoint"], 3)
    for at in (shown["created_at"], shown["started_at"], shown["ended_at"], segment["started_at"]):
        moment = datetime.fromisoformat(at)
        assert moment.tzinfo is not None, at
        assert abs(moment.timestamp() - time.time()) < 120
    assert json.loads(bench.backprop("status", run, "--json").stdout) == shown, "status RUN is show RUN"


def test_times_carry_the_zone_of_the_reader(queued: Bench) -> None:
    one = json.loads(queued.backprop("list", "--json", env={"TZ": "Asia/Kolkata"}).stdout)[0]["created_at"]
    two = json.loads(queued.backprop("list", "--json", env={"TZ": "UTC"}).stdout)[0]["created_at"]
    assert one.endswith("+05:30")
    assert two.endswith("+00:00")
    assert datetime.fromisoformat(one) == datetime.fromisoformat(two)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_an_age_is_never_negative_once_the_clock_has_been_set_back(bench: Bench, tmp_path: Path) -> None:
    """In `list` of the run, in `why` of the rule that keeps it waiting."""
    clock = WallClock(tmp_path)
    bench.environment |= clock.environment
    clock.set(3600)
    bench.script("train.py", "pass")
    ram_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    limits = ("--max-cpu-load", "1000", "--gpu-probe", "none", "--min-free-ram", f"{ram_gib * 0.995:.2f}")
    run = bench.queue("train.py", *limits, quiet_limits=False)
    bench.worker()
    wait_until(lambda: "RULE" in bench.backprop("why", run).stdout, saw=bench.output)
    clock.set(0)
    assert "  0.0s  " in bench.backprop("list").stdout
    why = bench.backprop("why", run).stdout
    assert " 0.0s " in why
    assert not re.search(r" -\d", why)


def test_status_as_json(queued: Bench) -> None:
    worker = queued.worker("-p", "1")
    queued.wait_for("abc1", "completed")
    shown = json.loads(queued.backprop("status", "--json").stdout)
    assert set(shown) >= {"home", "host", "gpus", "workers", "queue"}
    assert shown["home"] == str(queued.home)
    assert shown["host"]["ram_total_mib"] > 0
    assert shown["queue"] == {"completed": 1}
    (one,) = shown["workers"]
    assert (one["pid"], one["max_parallel"]) == (worker.pid, 1)
    queued.end_worker(worker)
    assert json.loads(queued.backprop("status", "--json").stdout)["workers"] == []


def test_an_empty_home_is_no_error(bench: Bench) -> None:
    listed = bench.backprop("list")
    assert (listed.returncode, listed.stdout) == (0, "")
    assert "backprop run SCRIPT" in listed.stderr
    assert bench.runs() == []
    assert bench.backprop("status").returncode == 0
    assert not bench.home.exists(), "looking creates nothing"


def test_a_pipe_gets_whole_lines(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    name = "n" * 64
    bench.queue("train.py", "-n", name)
    done = bench.backprop("list", env={"COLUMNS": "40"})
    head, row = done.stdout.splitlines()
    assert head.startswith("ID ")
    assert name in row
    assert "…" not in row
    assert "\x1b" not in done.stdout
    assert "\x1b" not in bench.backprop("list", env={"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}).stdout


@pytest.mark.parametrize("words", [["list"], ["show", "{run}"], ["list", "--json"]])
def test_an_output_that_takes_nothing_is_refused_in_a_line(bench: Bench, words: list[str]) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    command = [str(COMMAND), *(word.format(run=run) for word in words)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=bench.environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) in ((9, 1), (120, 2)), done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


CHANGES = ["run train.py", "run -q train.py", "run --array 1-2 train.py", "run -q --array 1-2 train.py", "hold {run}",
           "stop {run}", "stop --state queued", "rm {held}", "release {held}", "move {run} --last", "drain", "undrain",
           "edit {run}", "prune --keep-last 0", "prune --keep-last 0 --compress-logs", "import old.json"]  # fmt: skip


@pytest.mark.parametrize("words", CHANGES)
def test_what_was_done_is_not_said_to_have_failed(bench: Bench, words: str) -> None:
    """A script that tries again on 9 would queue the run twice. stdout takes nothing, or is not open for writing."""
    bench.script("train.py", "print(1)")
    bench.script("old.json", "{}")
    run, held = bench.queue("train.py"), bench.queue("--hold", "train.py")
    if words == "undrain":
        assert bench.backprop("drain").returncode == 0
    if words.startswith("prune"):
        assert bench.backprop("stop", run).returncode == 0
    editor = bench.script("editor", '#!/bin/sh\nsed -i \'s/^name = .*/name = "other"/\' "$1"\n')
    editor.chmod(0o755)
    before = [(one["id"], one["name"], one["state"]) for one in bench.runs()]
    command = words.format(run=run, held=held)
    shell = ["sh", "-c", f"exec {COMMAND} {command} > /dev/full"]
    environment = bench.environment | {"EDITOR": str(editor)}
    done = subprocess.run(shell, env=environment, cwd=bench.project, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 26, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "done, do not repeat it" in done.stderr
    if words.startswith("run"):
        new = [one["id"] for one in bench.runs() if one["id"] not in (run, held)]
        assert new
        assert new[0] in done.stderr, "the id is not lost"
        assert "queued" in done.stderr
    elif words.startswith(("hold", "stop", "rm", "release", "edit")) or words == "prune --keep-last 0":
        assert [(one["id"], one["name"], one["state"]) for one in bench.runs()] != before


def test_a_stdout_that_is_not_open_for_writing_loses_no_id(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    shell = ["sh", "-c", f"exec {COMMAND} run train.py 1< /dev/null"]
    done = subprocess.run(shell, env=bench.environment, cwd=bench.project, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (26, 1), done.stderr
    assert bench.runs()[0]["id"] in done.stderr


def test_closed_standard_streams_are_no_trouble(bench: Bench) -> None:
    """What is opened first would get their numbers: the database, say, which a print would then write into."""
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    for words in ("list", "status", f"show {run}", "run train.py"):
        shell = ["sh", "-c", f"exec {COMMAND} {words} <&- >&- 2>&-"]
        assert subprocess.run(shell, env=bench.environment, cwd=bench.project).returncode == 0
    assert len(json.loads(bench.backprop("list", "--json").stdout)) == 2


def test_the_reader_of_a_pipe_may_go_away(bench: Bench) -> None:
    """`| head -1` ends it quietly: no traceback, no complaint of the interpreter at its exit."""
    bench.script("train.py", "print(1)")
    for _ in range(3):
        bench.queue("train.py")
    for words in ("list", "config", "list --json", "run --help"):
        done = subprocess.run(
            ["bash", "-c", f"(sleep 0.5; backprop {words}; echo $? >&2) | true"],
            capture_output=True,
            text=True,
            env=bench.environment,
            cwd=bench.project,
            check=False,
        )
        assert done.stderr == "0\n", words


def test_the_limit_of_list(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    ids = [bench.queue("train.py") for _ in range(3)]
    done = bench.backprop("list", "-n", "2")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ids[:0:-1]
    assert "1 more" in done.stderr
    assert len(bench.backprop("list", "-n", "0").stdout.splitlines()) == 4


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_line_up_in_a_terminal(bench: Bench, columns: int) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py", "-n", "short")
    bench.queue("train.py", "-n", "a-name-as-long-as-people-give-them-to-their-experiments")
    for words in (["list"], ["config"]):
        with Terminal(bench, columns, *words) as terminal:
            shown = terminal.read_all()
        lines = shown.splitlines()
        assert lines
        assert all(len(line) <= columns for line in lines), (words, shown)
    with Terminal(bench, columns, "list") as terminal:
        head, *rows = terminal.read_all().splitlines()
    at = head.index("STATE")
    assert all(row[at:].startswith("queued ") for row in rows), (head, rows)
    assert all(row[at - 1] == " " for row in rows)
    assert len(rows) == 2


def test_no_colour_when_none_is_wanted(queued: Bench) -> None:
    queued.backprop("stop", "abc1")
    with Terminal(queued, 100, "list") as terminal:
        assert "\x1b[" in terminal.read_all(raw=True)
    with Terminal(queued, 100, "list", env={"NO_COLOR": "1"}) as terminal:
        shown = terminal.read_all(raw=True)
    assert not re.search(r"\x1b\[[0-9;]*(?:3[0-7]|9[0-7])[0-9;]*m", shown), "no colour; bold is none"
    with Terminal(queued, 100, "list", env={"TERM": "dumb"}) as terminal:
        assert "\x1b" not in terminal.read_all(raw=True)


def test_escape_sequences_in_paths_and_output_are_inert(bench: Bench) -> None:
    evil = "e\x1b]0;owned\x07\x1b[2Jv[bold]il"
    folder = bench.project / evil
    folder.mkdir()
    (folder / f"{evil}.py").write_text(
        "print('\\x1b]0;owned\\x07\\x1b[2J\\x1b[31mred\\x1b[0m')\nraise SystemExit('\\x1b]52;c;AA\\x07')"
    )
    run = bench.backprop("run", "-q", *QUIET_LIMITS, f"{evil}.py", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", run.stderr + run.stdout)
    run_id = run.stdout.strip()
    bench.worker("--drain").wait(timeout=60)
    assert bench.show(run_id)["state"] == "failed"
    harmful = re.compile(r"\x1b\](?!\d*;?$)|\x1b\[2J|\x07")
    for words in (["list"], ["show", run_id], ["status"], ["logs", run_id], ["show", run_id, "--json"]):
        with Terminal(bench, 200, *words) as terminal:
            shown = terminal.read_all(raw=True)
        assert not harmful.search(shown), (words, shown)
    assert "[bold]il" in bench.backprop("show", run_id).stdout, "markup is text"
    assert not harmful.search(bench.output())
    with Terminal(bench, 200, "logs", run_id) as terminal:
        assert "\x1b[31mred" in terminal.read_all(raw=True), "colours pass"
    assert "\x1b]52" in bench.backprop("logs", run_id).stdout, "a pipe gets every byte"
    with Terminal(bench, 200, "logs", "--raw", run_id) as terminal:
        assert "\x1b]52" in terminal.read_all(raw=True), "and so does a terminal that asks"


def test_logs_of_one_segment_and_of_all(bench: Bench) -> None:
    bench.script(
        "train.py",
        """
        import os, sys
        print("segment", os.environ["BACKPROP_SEGMENT"])
        open("c" + os.environ["BACKPROP_SEGMENT"], "w").write("x")
        print('{"event": "checkpoint_saved", "path": "c%s"}' % os.environ["BACKPROP_SEGMENT"])
        sys.exit(75 if os.environ["BACKPROP_SEGMENT"] == "1" else 0)
        """,
    )
    run = bench.queue("train.py")
    assert bench.backprop("logs", run).stdout == ""
    assert "has not started yet" in bench.backprop("logs", run).stderr
    bench.worker("--drain").wait(timeout=60)
    whole = bench.backprop("logs", run).stdout
    assert whole.index("==> segment 1 <==") < whole.index("segment 1\n") < whole.index("==> segment 2 <==")
    assert bench.backprop("logs", run, "--segment", "2").stdout.splitlines()[0] == "segment 2"
    assert "no segment 3" in refused(bench, 3, "logs", run, "--segment", "3")
    assert "ended" not in whole
    for env, begin, end in (({}, "\x1b[0;2m", "\x1b[0m"), ({"NO_COLOR": "1"}, "", "")):
        with Terminal(bench, 80, "logs", run, env=env) as terminal:
            shown = terminal.read_all(raw=True)
        assert f"{begin}==> segment 1 ended: exited 75 (run me again)" in shown, shown
        assert f"{begin}==> segment 2 <=={end}\n" in shown
        assert f"{begin}==> segment 2 ended: exited 0 <=={end}\n" in shown


def test_logs_follow_a_run_to_its_end(bench: Bench) -> None:
    bench.script(
        "train.py", "import time\nfor n in range(5):\n    print('line', n, flush=True)\n    time.sleep(0.2)\n"
    )
    run = bench.queue("train.py")
    bench.worker()
    done = bench.backprop("logs", "-f", run)
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("line")] == [
        f"line {n}" for n in range(5)
    ]


def test_stop_of_a_running_run_and_of_a_waiting_one(bench: Bench) -> None:
    bench.script("train.py", READY)
    run = bench.queue("train.py", "--grace-seconds", "5")
    waiting = bench.queue("train.py", "-n", "waits")
    bench.worker("-p", "1")
    wait_until(lambda: "ready" in bench.log(run), saw=bench.output)
    done = bench.backprop("stop", run, "waits")
    assert done.returncode == 0
    assert "it has 5 s to save" in done.stdout
    assert f"stopped waits ({waiting})" in done.stdout
    shown = bench.wait_for(run, "stopped")
    assert shown["reason"].startswith("stopped by the user")
    assert bench.show(waiting)["state"] == "stopped"


def test_stop_works_without_a_worker(bench: Bench) -> None:
    """Its worker was killed; the supervisor is asked directly, and the next worker finds the run stopped."""
    bench.script("train.py", READY)
    run = bench.queue("train.py", "--grace-seconds", "5")
    worker = bench.worker()
    wait_until(lambda: "ready" in bench.log(run), saw=bench.output)
    worker.kill()
    worker.wait()
    assert bench.backprop("stop", run).returncode == 0
    wait_until(lambda: (bench.home / "runs" / run / "1" / "exit.json").exists())
    bench.worker("--drain").wait(timeout=60)
    assert bench.show(run)["state"] == "stopped"


def test_the_version_and_the_bare_command(bench: Bench) -> None:
    assert bench.backprop("--version").stdout.startswith("backprop, version ")
    bare = bench.backprop()
    assert (bare.returncode, bare.stderr) == (0, "")
    assert "Examples:" in bare.stdout


def test_ctrl_c_is_quiet(bench: Bench) -> None:
    bench.script("train.py", READY)
    run = bench.queue("train.py")
    reader = subprocess.Popen(
        [str(COMMAND), "logs", "-f", run],
        env=bench.environment,
        cwd=bench.project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: Path(f"/proc/{reader.pid}/wchan").exists() and _sleeps(reader.pid))
    reader.send_signal(signal.SIGINT)
    out, errors = reader.communicate(timeout=30)
    assert (reader.returncode, out, errors.strip()) == (130, "", "")


def _sleeps(pid: int) -> bool:
    """In its polling loop: a while of little use of the CPU tells."""
    before = _ticks(pid)
    time.sleep(0.4)
    return before > 0 and _ticks(pid) - before <= 1


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
