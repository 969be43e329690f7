"""The table of states: every pair is a row or refused, what is derived from it, and its page in the docs."""

import pytest

from backprop.scheduler.errors import IllegalMove
from backprop.scheduler.lifecycle import (
    DESCRIPTION,
    FINAL,
    HAS_PROCESSES,
    HOLDS_A_SLOT,
    HOLDS_VRAM,
    TRANSITIONS,
    Event,
    State,
    next_state,
)
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, user_requests
from tests.support.harness import ROOT
from tests.support.store_rows import add_run
from tools.docs.lifecycle import page

PAIRS = [(state, event) for state in State for event in Event]
SETTLING = (Event.REQUEUED, Event.COMPLETED, Event.FAILED, Event.TIMEBOXED, Event.STOPPED)
PAGE = ROOT / "docs" / "design" / "lifecycle.md"


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_is_a_row_or_nothing(state: State, event: Event) -> None:
    assert next_state(state, event) is TRANSITIONS.get((state, event))


@pytest.mark.parametrize(
    ("state", "event"), [pair for pair in PAIRS if pair not in TRANSITIONS and pair[1] in SETTLING]
)
def test_a_move_that_is_no_row_is_refused_and_changes_nothing(
    database: Database, state: State, event: Event
) -> None:
    run = add_run(database, "r1", state)
    with pytest.raises(IllegalMove, match=f"r1 is {state}: it cannot be {event}"):
        claims.apply_result(database, run, NextMove(event, SegmentOutcome.FAILED, "y"), SegmentResult(), 5.0)
    assert queries.run_by_id(database, "r1") == run


def declare_done(database: Database, run: RunRecord) -> None:
    if not user_requests.declare_done(database, [run.id], 9.0):
        raise IllegalMove(run.id)


@pytest.mark.parametrize(
    ("verb", "legal"),
    [
        ("hold", {State.QUEUED}),
        ("pause", {State.RUNNING}),
        ("unpause", {State.PAUSED}),
        ("stop", {State.QUEUED, State.HELD, *HAS_PROCESSES}),
        ("declare done", {State.HELD, State.FAILED, State.TIMEBOXED, State.STOPPED}),
    ],
)
def test_every_verb_does_what_the_table_says_and_no_more(
    database: Database, verb: str, legal: set[State]
) -> None:
    verbs = {
        "hold": lambda run: user_requests.hold_run(database, run, "why"),
        "pause": lambda run: claims.pause(database, run, "heat", "why"),
        "unpause": lambda run: claims.unpause(database, run),
        "stop": lambda run: user_requests.ask_to_stop(database, run, 9.0),
        "declare done": lambda run: declare_done(database, run),
    }
    for state in State:
        run = add_run(database, state.value, state)
        if state in legal:
            verbs[verb](run)
        else:
            with pytest.raises(IllegalMove):
                verbs[verb](run)
            assert queries.run_by_id(database, run.id) == run


def test_what_is_derived_from_the_table() -> None:
    assert {State.COMPLETED, State.FAILED, State.TIMEBOXED, State.STOPPED} == FINAL
    assert {State.RUNNING, State.PAUSED, State.SUSPENDED} == HOLDS_VRAM
    assert HOLDS_VRAM | {State.SUBMITTED} == HAS_PROCESSES
    assert {State.SUBMITTED, State.RUNNING, State.PAUSED} == HOLDS_A_SLOT
    assert {state for state in State if (state, Event.REQUEUED) in TRANSITIONS} == HAS_PROCESSES
    assert set(DESCRIPTION) == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event), "an event that moves nothing"


def test_every_state_is_reached_and_left_again() -> None:
    assert set(TRANSITIONS.values()) == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State), "even what has ended can be resumed"
    reached = {State.QUEUED}
    while more := {TRANSITIONS[pair] for pair in TRANSITIONS if pair[0] in reached} - reached:
        reached |= more
    assert reached == set(State)


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m tools.docs.lifecycle > docs/design/lifecycle.md"
