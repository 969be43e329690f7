"""Runs that wait for others: through requeues and retries, in vain, and after a lost database."""

import sqlite3

import msgspec
import pytest

from backprop.scheduler.lifecycle import FINAL, Event, State
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.spec import DependencyKind, NewRun, QueuePosition, RunSpec
from backprop.scheduler.store import dependencies
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.dependencies import is_met
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.reads.start_conditions import dependency_text
from backprop.scheduler.store.writes import claims, deletion, enqueue, user_requests
from tests.support.harness import QUIET_LIMITS, Bench
from tests.support.refusals import refused
from tests.support.store_rows import SPEC, add_run, claimed, get

FAILS = "import sys; sys.exit(3)"


def in_vain(database: Database, now_s: float) -> list[tuple[str, str]]:
    """Those that are stopped, with why."""
    return dependencies.end_unsatisfiable(database, now_s)[0]


def waiting(
    database: Database,
    run_id: str,
    *after: tuple[str, DependencyKind],
    spec: RunSpec = SPEC,
    now_s: float = 5.0,
) -> None:
    new = NewRun(id=run_id, name=run_id, spec=spec, place=QueuePosition(after=after))
    enqueue.enqueue_all(database, [new], now_s)


def claimable(database: Database) -> list[str]:
    return [run.id for run in queries.queue(database, 100.0)]


@pytest.mark.parametrize("state", [None, *State])
def test_what_meets_a_dependency(state: State | None) -> None:
    kinds: tuple[DependencyKind, ...] = ("success", "any", "fail")
    expected: dict[State | None, tuple[bool | None, ...]] = {
        None: (False, True, False),
        State.COMPLETED: (True, True, False),
    }
    open_or_not = (False, True, True) if state in FINAL else (None, None, None)
    assert tuple(is_met(kind, state) for kind in kinds) == expected.get(state, open_or_not)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", ["success", "any", "fail"])
def test_the_queue_agrees_with_the_rule(database: Database, kind: DependencyKind, state: State) -> None:
    add_run(database, "p", state)
    waiting(database, "c", ("p", kind))
    assert ("c" in claimable(database)) is (is_met(kind, state) is True)
    ended = in_vain(database, 9.0)
    assert (ended != []) is (is_met(kind, state) is False)
    assert (get(database, "c").state is State.STOPPED) is (is_met(kind, state) is False)


def test_all_of_several_are_needed(database: Database) -> None:
    add_run(database, "a", State.COMPLETED)
    add_run(database, "b", State.RUNNING)
    waiting(database, "c", ("a", "success"), ("b", "any"))
    assert claimable(database) == []
    assert dependencies.waits_for(database, "c") == [
        ("a", "success", State.COMPLETED, False), ("b", "any", State.RUNNING, False)
    ]  # fmt: skip


def test_vain_waiting_goes_on_down_the_chain(database: Database) -> None:
    """Who waits for a stopped one to fail is on; who waits for it to complete is stopped in turn."""
    add_run(database, "a", State.FAILED)
    waiting(database, "b", ("a", "success"))
    waiting(database, "c", ("b", "success"))
    waiting(database, "d", ("b", "fail"))
    assert dict(in_vain(database, 9.0)) == {
        "b": "waited for a to complete, but it ended as failed",
        "c": "waited for b to complete, but it ended as stopped",
    }
    assert claimable(database) == ["d"]
    assert get(database, "b").ended_at_s == 9.0
    assert in_vain(database, 9.0) == []


@pytest.mark.parametrize("kind", ["success", "fail"])
def test_a_chain_that_has_begun_is_not_given_up_for_its_parent(
    database: Database, kind: DependencyKind
) -> None:
    """Removed, or resumed and ended otherwise: what was met once is met."""
    add_run(database, "p", State.COMPLETED if kind == "success" else State.FAILED)
    waiting(database, "c", ("p", kind))
    child = claimed(database, get(database, "c"))
    claims.apply_result(
        database, child, NextMove(Event.REQUEUED, SegmentOutcome.TIMEBOXED, "on"), SegmentResult(), 3.0
    )
    assert deletion.remove(database, ["p"]).ids == ["p"], "nor does it keep its parent from being removed"
    assert in_vain(database, 9.0) == []
    assert claimable(database) == ["c"]


def test_kept_ones_stay_and_say_so(database: Database) -> None:
    add_run(database, "a", State.FAILED)
    waiting(database, "b", ("a", "success"), spec=msgspec.structs.replace(SPEC, keep_when_unmet=True))
    assert in_vain(database, 9.0) == []
    assert (get(database, "b").state, claimable(database)) == (State.QUEUED, [])
    assert "kept: backprop resume a" in get(database, "b").reason
    assert queries.next_due_s(database) is None, "a draining worker does not wait for it"
    user_requests.resume(database, ["a"], {}, None, 10.0)
    assert get(database, "b").reason == "waits for a, which was resumed"
    assert claimable(database) == ["a"]


def test_kept_ones_name_the_parent_that_rules_them_out_now(database: Database) -> None:
    """Of two that failed one is named. Resuming the other changes nothing; after a hold or release it is said again."""
    for parent in ("a1", "a2"):
        add_run(database, parent, State.FAILED)
    keep = msgspec.structs.replace(SPEC, keep_when_unmet=True)
    waiting(database, "b", ("a1", "success"), ("a2", "success"), spec=keep)
    assert in_vain(database, 9.0) == []
    kept = get(database, "b").reason
    assert kept == "waited for a1 to complete, but it ended as failed; kept: backprop resume a1"
    user_requests.resume(database, ["a2"], {}, None, 10.0)
    assert get(database, "b").reason == kept
    for asked, reason in (
        (lambda: user_requests.hold(database, ["b"], "held by the user"), "held by the user"),
        (lambda: user_requests.release(database, ["b"]), "released by the user"),
    ):
        asked()
        assert get(database, "b").reason == reason
        assert in_vain(database, 11.0) == []
        assert get(database, "b").reason == kept
    user_requests.stop_waiting(database, ["a2"], 12.0)
    user_requests.resume(database, ["a1"], {}, None, 13.0)
    assert in_vain(database, 14.0) == []
    assert get(database, "b").reason.endswith("; kept: backprop resume a2")


def test_ever_so_many_that_have_ended_do_not_matter(database: Database) -> None:
    """More than SQLite takes values in one statement; here that is as few as in an old one."""
    database._db.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    add_run(database, "a", State.FAILED)
    many = [
        NewRun(id=f"m{n}", name="m", spec=SPEC, place=QueuePosition(after=(("a", "success"),)))
        for n in range(1_200)
    ]
    enqueue.enqueue_all(database, many, 5.0)
    assert len(in_vain(database, 9.0)) == 1_200
    waiting(database, "b", ("a", "success"))
    assert [run_id for run_id, _ in in_vain(database, 9.0)] == ["b"]


def test_words() -> None:
    assert dependency_text("a", "success", State.RUNNING) == "waits for a to complete (running)"
    assert dependency_text("a", "any", None) == "waits for a to end: done"
    told = "waits for a to fail, but it ended as completed: this can never be met"
    assert dependency_text("a", "fail", State.COMPLETED) == told
    may_be_done = dependency_text("a", "success", State.TIMEBOXED, may_be_done=True)
    assert may_be_done == (
        "waits for a to complete (timeboxed): it exited 0 when asked to stop; backprop resume a continues it, or if it"
        " had finished, backprop resume --done a"
    )


def ended(database: Database, run_id: str, event: Event, exit_code: int | None, now_s: float = 6.0) -> None:
    move = NextMove(event, SegmentOutcome.TIMEBOXED, "its end")
    run = claimed(database, get(database, run_id), now_s)
    claims.apply_result(database, run, move, SegmentResult(exit_code=exit_code), now_s)


def boxed_with_dependents(database: Database) -> None:
    add_run(database, "p")
    for run_id, kind in DEPENDENTS.items():
        waiting(database, run_id, ("p", kind))
    waiting(database, "grandchild", ("child", "success"))
    ended(database, "p", Event.TIMEBOXED, 0)


DEPENDENTS: dict[str, DependencyKind] = {"child": "success", "any": "any", "fail": "fail"}


def test_who_waits_for_one_that_may_be_done_waits_on(database: Database) -> None:
    boxed_with_dependents(database)
    for now_s in (7.0, 8.0):
        assert in_vain(database, now_s) == []
        assert sorted(claimable(database)) == ["any", "fail"], (
            "they wait for an end of any kind but a good one"
        )
    child = get(database, "child")
    assert child.state is State.QUEUED
    assert child.reason == (
        "waits for p: it exited 0 when asked to stop; backprop resume p continues it, or if it had finished,"
        " backprop resume --done p"
    )


def test_whose_user_says_that_it_is_done_has_completed(database: Database) -> None:
    boxed_with_dependents(database)
    in_vain(database, 7.0)
    assert user_requests.declare_done(database, ["p", "child", "nobody"], 8.0) == ["p"]
    parent = get(database, "p")
    assert (parent.state, parent.reason) == (State.COMPLETED, user_requests.DECLARED_DONE)
    assert (parent.segment, parent.exit_code, parent.ended_at_s) == (1, 0, 8.0)
    assert get(database, "child").reason == "p was declared done"
    assert sorted(claimable(database)) == ["any", "child"]
    assert [run_id for run_id, _ in in_vain(database, 9.0)] == ["fail"], "it had not begun"
    assert user_requests.declare_done(database, ["p"], 9.0) == [], "once"


@pytest.mark.parametrize(
    ("event", "exit_code", "then"),
    [
        (Event.FAILED, 1, State.STOPPED),
        (Event.TIMEBOXED, None, State.STOPPED),
        (Event.TIMEBOXED, 0, State.QUEUED),
        (Event.COMPLETED, 0, State.QUEUED),
    ],
)
def test_a_resume_decides_for_those_who_wait(
    database: Database, event: Event, exit_code: int | None, then: State
) -> None:
    boxed_with_dependents(database)
    in_vain(database, 7.0)
    user_requests.resume(database, ["p"], {}, None, 8.0)
    assert in_vain(database, 9.0) == []
    assert "child" not in claimable(database)
    ended(database, "p", event, exit_code, 10.0)
    in_vain(database, 11.0)
    assert get(database, "child").state is then
    assert ("child" in claimable(database)) is (event is Event.COMPLETED)


def test_one_that_may_be_done_is_not_removed_from_under_those_who_wait(database: Database) -> None:
    boxed_with_dependents(database)
    in_vain(database, 7.0)
    assert deletion.remove(database, ["p"]).needed.keys() == {"p"}
    ids = ["p", *DEPENDENTS, "grandchild"]
    assert sorted(deletion.remove(database, ids).ids) == sorted(ids)


def test_what_is_in_vain_for_good_goes_before_what_is_open(database: Database) -> None:
    boxed_with_dependents(database)
    add_run(database, "q", State.FAILED)
    waiting(database, "both", ("p", "success"), ("q", "success"))
    waiting(database, "htob", ("q", "success"), ("p", "success"))
    assert {run_id for run_id, _ in in_vain(database, 8.0)} == {"both", "htob"}


def test_a_retried_parent_has_not_ended(database: Database) -> None:
    add_run(database, "a")
    waiting(database, "b", ("a", "success"))
    waiting(database, "c", ("a", "fail"))
    crashed = NextMove(
        Event.REQUEUED, SegmentOutcome.FAILED, "exit code 1; retry 1 of 1", delay_s=10.0, retries_used=1
    )
    claims.apply_result(
        database, claimed(database, get(database, "a")), crashed, SegmentResult(exit_code=1), 6.0
    )
    assert in_vain(database, 7.0) == []
    assert claimable(database) == ["a"]
    failed = NextMove(Event.FAILED, SegmentOutcome.FAILED, "exit code 1")
    claims.apply_result(
        database, claimed(database, get(database, "a"), 17.0), failed, SegmentResult(exit_code=1), 18.0
    )
    assert [run_id for run_id, _ in in_vain(database, 19.0)] == ["b"]
    assert claimable(database) == ["c"]


def test_a_chain_waits_through_the_parents_segments(bench: Bench) -> None:
    """The parent is cut by its timebox once and asks to be run again once before it completes; only then does the
    child start."""
    bench.script(
        "parent.py",
        """
        import json, os, signal, sys, time
        segment = int(os.environ["BACKPROP_SEGMENT"])
        with open("order", "a") as file:
            file.write(f"parent {segment}\\n")
        with open(f"c{segment}.pt", "w") as file:
            file.write("x")
        print(json.dumps({"event": "checkpoint_saved", "path": f"c{segment}.pt", "step": segment}), flush=True)
        if segment == 1:
            time.sleep(60)
        sys.exit(75 if segment == 2 else 0)
        """,
    )
    bench.script("child.py", "open('order', 'a').write('child\\n')")
    parent = bench.queue("parent.py", "-m", "0.02", "--grace-seconds", "1", "-n", "first")
    child = bench.queue("child.py", "--after", "first")
    last = bench.queue("child.py", "--after", child[:6])
    assert f"waits for {parent} to complete" in str(bench.column(child, "reason"))
    assert f"waits for {parent} to complete (queued)" in bench.backprop("why", child).stdout
    shown = bench.backprop("show", child).stdout
    assert f"{parent} to complete (queued)" in shown
    assert bench.worker("--drain").wait(timeout=90) == 0
    assert (bench.project / "order").read_text().split("\n")[:-1] == [
        "parent 1", "parent 2", "parent 3", "child", "child"
    ]  # fmt: skip
    assert [bench.state(run) for run in (parent, child, last)] == ["completed"] * 3


def test_in_vain_is_stopped_with_a_reason_that_outlives_the_database(bench: Bench) -> None:
    bench.script("train.py", FAILS)
    bench.script("other.py", "print(1)")
    parent = bench.queue("train.py")
    child = bench.queue("other.py", "--after", parent)
    kept = bench.queue("other.py", "--after", parent, "--keep")
    rescue = bench.queue("other.py", "--after-fail", parent)
    group = bench.backprop(
        "run", "-q", *QUIET_LIMITS, "--array", "1-3", "--after", parent, "other.py"
    ).stdout.split()
    assert bench.worker("--drain").wait(timeout=60) == 0, "nothing is left that may start by itself"
    why = f"waited for {parent} to complete, but it ended as failed"
    assert (bench.state(child), bench.column(child, "reason")) == ("stopped", why)
    assert bench.state(kept) == "queued"
    assert bench.state(rescue) == "completed"
    assert {bench.state(run) for run in group} == {"stopped"}
    assert why in bench.output()
    assert "can never be met" in bench.backprop("why", kept).stdout
    (bench.home / "backprop.db").unlink()
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert {bench.column(run, "reason") for run in (child, *group)} == {why}
    assert (bench.state(kept), bench.state(rescue)) == ("queued", "completed")


def test_a_stopped_parent_is_noticed(bench: Bench) -> None:
    """Stopped by a command, while nothing runs: the next worker says so."""
    bench.script("train.py", "print(1)")
    parent = bench.queue("train.py", "--hold")
    child = bench.queue("train.py", "--after", parent)
    bench.backprop("stop", parent)
    bench.worker()
    bench.wait_for(child, "stopped")


def test_groups_names_and_several(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    many = bench.backprop(
        "run", "-q", *QUIET_LIMITS, "--array", "1-2", "--group", "night", "train.py"
    ).stdout.split()
    one = bench.queue("train.py", "-n", "base")
    child = bench.queue("train.py", "--after", f"night, {one[:5]}")
    assert {link["run"] for link in bench.show(child)["after"]} == {*many, one}
    last = bench.queue("train.py", "--after-any", "base", "--after-fail", child)
    kinds = {link["run"]: link["kind"] for link in bench.show(last)["after"]}
    assert kinds == {one: "any", child: "fail"}


def test_what_is_refused(bench: Bench) -> None:
    bench.script("train.py", FAILS)
    bench.script("good.py", "print(1)")
    failed = bench.queue("train.py", "-n", "bad")
    good = bench.queue("good.py")
    bench.worker("--drain").wait(timeout=60)
    for words, code, says in (
        (["--after", "nobody"], 3, "no run has the id or name nobody"),
        (["--after", "bad"], 6, f"run {failed} (bad) has failed already"),
        (["--after-fail", good], 6, f"run {good} has completed already"),
        (["--after", good, "--after-any", good], 6, "two kinds"),
        (["--after", f"{good},"], 6, "empty name"),
        (["--array", "1-3", "--after", "bad"], 6, "in vain"),
    ):
        assert says in refused(bench, code, "run", "good.py", *words)
    assert bench.backprop("run", *QUIET_LIMITS, "good.py", "--after", "bad", "--keep").returncode == 0
    assert (
        bench.backprop("run", *QUIET_LIMITS, "good.py", "--after-fail", "bad", "--after", good).returncode
        == 0
    )


def test_nothing_starts_before_its_time(bench: Bench) -> None:
    bench.script("train.py", "import time; open('at', 'w').write(str(time.time()))")
    run = bench.queue("--begin", "+3s", "train.py")
    begin_s = bench.column(run, "not_before_s")
    assert isinstance(begin_s, float)
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert float((bench.project / "at").read_text()) >= begin_s
