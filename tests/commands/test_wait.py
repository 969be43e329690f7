"""`backprop wait` sleeps until runs have ended, and says by its exit code how."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backprop.cli.commands import wait
from backprop.cli.commands.wait import Watch
from backprop.scheduler.home import run_folder, wake_pipes
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import State
from backprop.scheduler.spec import QueuePosition
from backprop.scheduler.store import dependencies
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import selection
from backprop.scheduler.store.reads.filters import NO_FILTERS
from backprop.scheduler.store.writes import claims, deletion, user_requests
from backprop.worker.maintenance import completion
from tests.support.harness import COMMAND, QUIET_LIMITS, Bench, wait_until
from tests.support.store_rows import SPEC, add_run, claimed, enqueue_run, get


def watched(database: Database, *words: str, first: bool = False, timeout_s: float = 0.0) -> Watch:
    """Wait for runs for so long, as the command does."""
    runs = selection.choose(database, words, NO_FILTERS)
    pipe = wake_pipes.new_waiter(database.home.locks)
    watch = Watch(database.home, database, runs, first)
    watch.until(pipe, time.monotonic() + timeout_s)
    pipe.close()
    return watch


def fifos(home: Path) -> list[Path]:
    return list(home.glob("locks/wait-*"))


@pytest.mark.parametrize(
    ("states", "decides"),
    [
        ([State.COMPLETED, State.COMPLETED], State.COMPLETED),
        ([State.COMPLETED, State.STOPPED], State.STOPPED),
        ([State.STOPPED, State.TIMEBOXED], State.TIMEBOXED),
        ([State.TIMEBOXED, State.HELD], State.HELD),
        ([State.HELD, State.FAILED, State.COMPLETED], State.FAILED),
        ([State.FAILED, State.QUEUED], None),
        ([State.FAILED, State.RUNNING], None),
    ],
)
def test_the_worst_outcome_decides(database: Database, states: list[State], decides: State | None) -> None:
    for number, state in enumerate(states):
        add_run(database, f"r{number}", state, f"r{number}")
    watch = watched(database, *(f"r{number}" for number in range(len(states))))
    assert (watch.decided.state if watch.decided else None) == decides
    assert watch.ended == (decides is not None)
    assert watch.counts == {state: states.count(state) for state in states}


def test_of_any_the_first_that_ended_decides(database: Database) -> None:
    for run_id, state in (("a", State.QUEUED), ("b", State.HELD), ("c", State.QUEUED), ("d", State.QUEUED)):
        add_run(database, run_id, state, run_id)
    watch = watched(database, "a", "b", "c", "d", first=True)
    assert watch.decided is not None
    assert watch.decided.id == "b"
    user_requests.stop_waiting(database, ["d"], 5.0)
    user_requests.stop_waiting(database, ["c"], 6.0)
    watch = watched(database, "a", "b", "c", "d", first=True)
    assert watch.decided is not None
    assert (watch.decided.id, watch.decided.state) == ("d", State.STOPPED)


def put_back(database: Database) -> None:
    folder = database.home.run_folder("p")
    folder.mkdir()
    run_folder.write_spec(folder, "p", "p", SPEC, {}, 1.0)
    outcome = run_folder.OutcomeFile(state="completed", reason="exited 0", segment=0, ended_at_s=2.0)
    run_folder.write_outcome(folder, outcome)
    assert completion.complete(database.home, database) == ["p"]


SETTLES: dict[str, Callable[[Database], object]] = {
    "stop": lambda database: user_requests.stop_waiting(database, ["a"], 1.0),
    "stop one": lambda database: user_requests.ask_to_stop(database, get(database, "a"), 1.0),
    "hold": lambda database: user_requests.hold(database, ["a"], "why"),
    "hold by a worker": lambda database: user_requests.hold_run(database, get(database, "a"), "why"),
    "done": lambda database: user_requests.declare_done(database, ["held"], 1.0),
    "removal": lambda database: deletion.remove(database, ["a"]),
    "end of a segment": lambda database: add_run(database, "e", State.COMPLETED),
    "unmet": lambda database: dependencies.end_unsatisfiable(database, 9.0),
    "recovery": put_back,
}
LEAVES: dict[str, Callable[[Database], object]] = {
    "release": lambda database: user_requests.release(database, ["held"]),
    "queue": lambda database: enqueue_run(database, "q", "q", SPEC, 1.0),
    "claim": lambda database: claimed(database, get(database, "a")),
    "reason": lambda database: claims.explain(database, get(database, "a"), "waits"),
}


@pytest.mark.parametrize("way", [*SETTLES, *LEAVES])
def test_whoever_settles_a_run_wakes_those_who_wait(database: Database, way: str) -> None:
    add_run(database, "a")
    add_run(database, "held", State.HELD)
    add_run(database, "stopped", State.STOPPED)
    enqueue_run(database, "c", "c", SPEC, 2.0, place=QueuePosition(after=(("stopped", "success"),)))
    pipe = wake_pipes.new_waiter(database.home.locks)
    (SETTLES | LEAVES)[way](database)
    assert pipe.drain() == (way in SETTLES)
    pipe.close()


def test_the_fifo_of_a_killed_command_is_removed_once_it_is_old(database: Database) -> None:
    left, young = (database.home.locks / f"wait-{name}.wake" for name in ("left", "young"))
    for path in (left, young):
        os.mkfifo(path)
    os.utime(left, (1.0, 1.0))
    add_run(database, "a", State.STOPPED)
    assert fifos(database.home.root) == [young]


def test_it_looks_when_a_run_ends_and_hardly_ever_else(bench: Bench) -> None:
    """Three runs of a second, one after another, of three that are waited for and one that is not."""
    bench.script("train.py", "import time; time.sleep(1)")
    runs = [bench.queue("train.py") for _ in range(3)]
    other = bench.queue("train.py", "--priority", "5")
    worker = bench.worker("--drain")
    database = open_database(Home(bench.home))
    watch = watched(database, *runs, timeout_s=60)
    database.close()
    assert watch.counts == {State.COMPLETED: 3}
    # One at the beginning, and one per end.
    assert watch.looks <= 5
    bench.wait_for(other, "completed")
    assert worker.wait(30) == 0


def test_a_group_ends_with_one_line_of_json(bench: Bench) -> None:
    bench.script("train.py", "import sys; sys.exit(int(sys.argv[1]))")
    many = ("--grid", "code=0,7", "--group", "sweep", "train.py", "--", "{code}")
    assert bench.backprop("run", "-q", *QUIET_LIMITS, *many).returncode == 0
    early = bench.backprop("wait", "sweep", "--timeout", "0", "--json")
    assert early.returncode == 124
    assert early.stderr.startswith("no worker is running")
    assert json.loads(early.stdout)["worker_alive"] is False
    bench.worker("--drain")
    done = bench.backprop("wait", "--group", "sweep", "--timeout", "1m", "--json")
    assert done.returncode == 20
    assert done.stdout.count("\n") == 1
    answer = json.loads(done.stdout)
    assert (answer["exit"], answer["runs"], answer["ended"]) == (20, 2, True)
    assert (answer["counts"]["completed"], answer["counts"]["failed"]) == (1, 1)
    assert answer["decided_by"]["reason"] == "exited 7"
    assert bench.backprop("wait", "sweep", "--state", "completed").returncode == 0
    assert fifos(bench.home) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_whoever_is_interrupted_leaves_nothing_behind(bench: Bench, number: int, code: int) -> None:
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    waiting = subprocess.Popen(
        [str(COMMAND), "wait", run],
        env=bench.environment, cwd=bench.project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: any(map(wake_pipes.is_read, fifos(bench.home))))
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("no worker is running")
    waiting.send_signal(number)
    out, errors = waiting.communicate(timeout=10)
    assert (waiting.returncode, out, errors.strip()) == (code, "", "")
    assert fifos(bench.home) == []


def test_a_database_that_is_replaced_or_gone_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an older copy lacks goes on, as its folder says; what no folder has was removed."""
    monkeypatch.setattr(wait, "TROUBLE_PAUSE_S", 0.01)
    copy = database.home.root / "older.db"
    database.copy_to(copy)
    folder = database.home.run_folder("a")
    folder.mkdir()
    run_folder.write_spec(folder, "a", "a", SPEC, {}, 1.0)
    enqueue_run(database, "a", "a", SPEC, 1.0)
    runs = selection.choose(database, ["a"], NO_FILTERS)
    watch = Watch(database.home, database, runs, first=False)
    pipe = wake_pipes.new_waiter(database.home.locks)
    database.home.database.rename(database.home.root / "away.db")
    watch.until(pipe, time.monotonic() + 0.05)
    assert (watch.ended, watch.counts) == (False, {})
    assert watch.looks > 1
    assert capsys.readouterr().err.count("is gone; backprop worker restores it; waiting goes on") == 1
    shutil.copy(copy, database.home.database)
    watch.until(pipe, time.monotonic())
    assert (watch.ended, watch.removed) == (False, 0)
    assert completion.complete(database.home, database) == ["a"]
    user_requests.stop_waiting(database, ["a"], 2.0)
    watch.until(pipe, time.monotonic() + 30)
    assert watch.counts == {State.STOPPED: 1}
    deletion.remove(database, ["a"], lambda _: shutil.rmtree(folder))
    watch.until(pipe, time.monotonic() + 30)
    assert (watch.ended, watch.removed, watch.decided) == (True, 1, None)
    pipe.close()


def test_a_locked_database_is_waited_for_no_longer_than_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wait, "TROUBLE_PAUSE_S", 0.01)
    database.patience_s = 0.05
    add_run(database, "a", State.COMPLETED)
    runs = selection.choose(database, ["a"], NO_FILTERS)
    watch = Watch(database.home, database, runs, first=False)
    pipe = wake_pipes.new_waiter(database.home.locks)
    other = sqlite3.connect(database.home.database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    begun_s = time.monotonic()
    watch.until(pipe, begun_s + 0.3)
    assert 0.3 <= time.monotonic() - begun_s < 2
    assert not watch.ended
    assert capsys.readouterr().err.count("is locked by another process") == 1
    other.execute("ROLLBACK")
    other.close()
    watch.until(pipe, time.monotonic() + 30)
    assert watch.decided is not None
    pipe.close()
