"""A run that its user wants suspended, and whose segment ends all the same, waits for its user, or until then."""

import pytest

from backprop.scheduler.errors import LostRace
from backprop.scheduler.lifecycle import Event, Intent, State
from backprop.scheduler.outcome.move import NextMove, held_off
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import KEPT, RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries, start_conditions
from backprop.scheduler.store.writes import claims, suspensions, user_requests
from tests.support.store_rows import add_run, claimed, get

LEAVES = NextMove(Event.REQUEUED, SegmentOutcome.YIELDED, "paused for now")
SAID = "suspended by the user; backprop unsuspend lets it go on; paused for now"


def end(database: Database, run: RunRecord, move: NextMove = LEAVES) -> RunRecord:
    """End its segment, as it was when `run` was read."""
    move = held_off(move, run.suspension is not None, run.thaw_at_s)
    claims.apply_result(database, run, move, SegmentResult(), 5.0)
    return get(database, run.id)


def asked(database: Database, until_s: float | None = None, leaves: bool = True) -> RunRecord:
    run = add_run(database, "a", State.RUNNING)
    assert suspensions.ask(database, ["a"], until_s) == ["a"]
    if leaves:
        assert suspensions.leave(database, run, "why", None)
        assert get(database, "a").intent is Intent.YIELD
    return get(database, "a")


def due(database: Database, now_s: float) -> list[str]:
    return [run.id for run in queries.queue(database, now_s)]


@pytest.mark.parametrize("leaves", [True, False], ids=["asked to save and end", "ends by itself"])
def test_it_waits_for_its_user(database: Database, leaves: bool) -> None:
    run = end(database, asked(database, leaves=leaves))
    assert (run.state, run.reason, run.suspension) == (State.HELD, SAID, KEPT)
    assert queries.suspended_by_users(database) == {"a"}
    assert suspensions.unask(database, ["a", "b"]) == ["a"]
    run = get(database, "a")
    assert (run.state, run.suspension, due(database, 6.0)) == (State.QUEUED, None, ["a"])
    assert suspensions.unask(database, ["a"]) == []


def test_it_waits_until_then(database: Database) -> None:
    run = end(database, asked(database, 100.0))
    assert (run.state, run.suspension, due(database, 99.0), due(database, 100.0)) == (
        "queued",
        KEPT,
        [],
        ["a"],
    )
    (why,) = start_conditions.reasons(database, run, 99.0, str)
    assert why == "its user has suspended it until 100.0; backprop unsuspend a lets it go on"
    run = claimed(database, run, 101.0)
    assert (run.suspension, run.thaw_at_s) == (None, None)


def test_unsuspended_before_then_it_is_due_at_once(database: Database) -> None:
    end(database, asked(database, 100.0))
    assert suspensions.unask(database, ["a"]) == ["a"]
    assert due(database, 6.0) == ["a"]


@pytest.mark.parametrize("verb", ["release", "hold", "resume", "stop"])
def test_another_word_of_its_user_replaces_that(database: Database, verb: str) -> None:
    end(database, asked(database, 100.0 if verb == "hold" else None))
    match verb:
        case "release":
            user_requests.release(database, ["a"])
        case "hold":
            user_requests.hold(database, ["a"], "why")
        case "resume":
            user_requests.resume(database, ["a"], {}, None, 6.0)
        case _:
            user_requests.ask_to_stop(database, get(database, "a"), 6.0)
    assert queries.suspended_by_users(database) == frozenset()
    assert suspensions.unask(database, ["a"]) == []


def test_what_was_taken_back_before_its_end_is_queued_again(database: Database) -> None:
    run = asked(database)
    suspensions.unask(database, ["a"])
    with pytest.raises(LostRace):
        end(database, run)
    assert end(database, get(database, "a")).state is State.QUEUED
    assert not suspensions.leave(database, get(database, "a"), "why", None)


def test_one_that_is_about_to_end_anyway_is_held_off_then(database: Database) -> None:
    run = add_run(database, "a", State.RUNNING)
    claims.ask_to_end(database, run, Intent.TIMEBOX, "it has just saved")
    assert suspensions.ask(database, ["a"], None) == ["a"]
    assert end(database, get(database, "a")).state is State.HELD


def test_a_reboot_starts_nothing_that_its_user_has_suspended(database: Database) -> None:
    add_run(database, "a", State.SUSPENDED)
    suspensions.ask(database, ["a"], None)
    assert end(database, get(database, "a")).state is State.HELD


def test_what_ends_for_good_is_no_longer_suspended(database: Database) -> None:
    run = end(database, asked(database), NextMove(Event.COMPLETED, SegmentOutcome.COMPLETED, "exited 0"))
    assert (run.state, run.suspension) == (State.COMPLETED, None)
