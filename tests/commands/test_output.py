"""What commands print, and where it goes: tables, times, colours, pipes, and outputs that take nothing."""

import json
import os
import re
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.harness import COMMAND, QUIET_LIMITS, Bench, wait_until
from tests.support.moved_clock import WallClock
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
SAVES = """
    import json
    open("one.ckpt", "w").write("1")
    print(json.dumps({"event": "checkpoint_saved", "path": "one.ckpt", "step": 3}))
    print(json.dumps({"step": 4, "loss": 0.5}))
"""


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
