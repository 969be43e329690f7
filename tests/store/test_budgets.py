"""Groups that have had enough: who is stopped, once, by whom, and what is left to the next worker."""

import pytest

from backprop.scheduler.config.settings import DEFAULTS
from backprop.scheduler.lifecycle import Event, Intent, State
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import MetricRecord, RunRecord
from backprop.scheduler.spec import GroupRules, QueuePosition
from backprop.scheduler.store import budgets, groups
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, progress, user_requests
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.reactions.budget import Budgets
from tests.support.store_rows import SPEC, claimed, enqueue_run, get

GROUP = "night"


def judge(database: Database) -> Budgets:
    context = Context(
        database.home, database, LocalExecutor(database.home), "w1", DEFAULTS, Clock(), Console(quiet=True)
    )
    return Budgets(context)


@pytest.fixture
def members(database: Database) -> Database:
    """Four members: `a` and `b` run, `c` waits, `d` is held."""
    for name in "abcd":
        enqueue_run(database, name, name, SPEC, 1.0, place=QueuePosition(group=GROUP, held=name == "d"))
    for name in "ab":
        claimed(database, get(database, name))
    return database


def rule(database: Database, until: str | None = None, max_total_s: float | None = None) -> None:
    rules = GroupRules(name=GROUP, until=until, max_total_s=max_total_s)
    database.write(lambda: groups.set_rules(rules, 1.0))


def report(database: Database, run_id: str, value: float, number: int = 0) -> None:
    metric = MetricRecord(run_id, 1, 10.0 * number, number, "val_bpb", value, "log")
    read = {"log_from": number, "log_to": number + 1, "events_from": 0, "events_to": 0}
    assert progress.record(database, run_id, 1, progress.SegmentReport(metrics=[metric], **read))


def states(database: Database) -> list[tuple[State, Intent | None]]:
    runs = (get(database, name) for name in "abcd")
    return [(run.state, run.intent) for run in runs]


RUNNING = (State.RUNNING, None)
MET = [RUNNING, (State.RUNNING, Intent.OUTRANKED), (State.STOPPED, None), (State.STOPPED, None)]


def live(database: Database) -> list[RunRecord]:
    return queries.live_runs(database)


def test_who_meets_the_goal_goes_on_and_all_others_are_stopped(members: Database) -> None:
    rule(members, until="val_bpb<0.98")
    budget = judge(members)
    report(members, "a", 0.99)
    budget.end_if_due(live(members))
    assert states(members) == [RUNNING, RUNNING, (State.QUEUED, None), (State.HELD, None)]
    report(members, "a", 0.97, 1)
    budget.end_if_due(live(members))
    assert states(members) == MET
    why = "goal met: val_bpb 0.97 of a is < 0.98"
    assert [get(members, name).reason for name in "bcd"] == [f"stopping: {why}", why, why]
    assert budgets.over(members) == {GROUP: why}


def test_the_next_worker_decides_by_a_value_that_is_no_longer_the_latest(members: Database) -> None:
    rule(members, until="val_bpb<0.98")
    report(members, "a", 0.97)
    report(members, "a", 0.99, 1)
    judge(members).end_if_due(live(members))
    assert states(members) == MET


def test_one_that_is_about_to_come_back_later_does_not_come_back(members: Database) -> None:
    rule(members, until="val_bpb<0.98")
    claims.ask_to_end(members, get(members, "b"), Intent.YIELD, "heat")
    report(members, "a", 0.97)
    judge(members).end_if_due(live(members))
    assert states(members) == MET


def test_a_users_stop_stays_a_users_stop(members: Database) -> None:
    rule(members, until="val_bpb<0.98")
    members.write(lambda: user_requests.intend_to_stop("b", 1))
    report(members, "a", 0.97)
    judge(members).end_if_due(live(members))
    assert get(members, "b").intent is Intent.STOP


def test_a_group_ends_once_and_what_is_resumed_then_goes_on(members: Database) -> None:
    rule(members, until="val_bpb<0.98")
    report(members, "a", 0.97)
    assert [judge(members).end_if_due(live(members)) != [] for _ in range(2)] == [True, False]
    members.write(lambda: user_requests.resume_now(["c"], {}, None, 5.0))
    budget = judge(members)
    budget.end_if_due(live(members))
    budget.ended(get(members, "a"))
    assert get(members, "c").state is State.QUEUED
    # A rule that is given again is judged again.
    rule(members, until="val_bpb<0.98")
    budget.forget()
    budget.end_if_due(live(members))
    assert get(members, "c").state is State.STOPPED


def end(database: Database, run_id: str, event: Event, ran_s: float = 60.0) -> None:
    move = NextMove(event, SegmentOutcome.TIMEBOXED, "why")
    claims.apply_result(database, get(database, run_id), move, SegmentResult(running_s=ran_s), 9.0)


def test_the_time_of_all_members_counts_and_ends_all(members: Database) -> None:
    rule(members, max_total_s=100.0)
    budget = judge(members)
    end(members, "a", Event.REQUEUED)
    budget.ended(get(members, "a"))
    assert get(members, "a").state is State.QUEUED
    end(members, "b", Event.REQUEUED)
    budget.ended(get(members, "b"))
    assert [state for state, _ in states(members)] == [State.STOPPED] * 4
    assert budgets.over(members) == {GROUP: "budget used up: its group has run for 2 of 1.667 minutes"}


def test_the_last_end_of_a_group_is_told_once(members: Database) -> None:
    """Everybody else waits: the stop of these is what completes the group."""
    rule(members, until="val_bpb<0.98")
    report(members, "a", 0.97)
    for name in "ab":
        end(members, name, Event.COMPLETED)
    first, second = judge(members), judge(members)
    told = [finished for budget in (first, second) for finished in budget.end_if_due([])]
    assert [finished.groups for finished in told] == [(GROUP,)]
