"""What the end of a cluster's job means for its run: no strike for what the cluster did, and a stop for a cancel."""

import pytest

from backprop.scheduler.lifecycle import Event, Intent, State, next_state
from backprop.scheduler.outcome.job_end import JobEnd, JobEndKind
from backprop.scheduler.outcome.job_move import NEVER_BEGAN_CAP
from backprop.scheduler.outcome.next_move import next_move
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from tests.support.outcomes import GOOD, SPEC

BEFORE = (JobEndKind.NEVER_BEGAN, JobEndKind.WITHDRAWN, JobEndKind.REFUSED)


def ending(kind: JobEndKind, **more: object) -> SegmentResult:
    return SegmentResult(job=JobEnd(kind, "words", "4711"), **more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", BEFORE)
@pytest.mark.parametrize("wanted", [None, *Intent])
def test_what_never_began_moves_only_as_a_submitted_run_may(kind: JobEndKind, wanted: Intent | None) -> None:
    move = next_move(SPEC, ending(kind, wanted=wanted), GOOD)
    assert next_state(State.SUBMITTED, move.event) is not None
    assert move.outcome is SegmentOutcome.NOT_STARTED
    assert (move.lost, move.retries_used, move.stalled) == (GOOD.lost, GOOD.retries_used, GOOD.stalled)
    assert (move.event is Event.STOPPED) == (wanted in (Intent.STOP, Intent.OUTRANKED))


def test_jobs_that_end_before_they_begin_set_a_run_aside_after_five() -> None:
    def after(unstarted: int) -> Event:
        chain = Chain(1, 0.0, 0, 0, 0, progressed=False, resumable=False, unstarted=unstarted)
        return next_move(SPEC, ending(JobEndKind.NEVER_BEGAN), chain).event

    assert [after(count) for count in range(NEVER_BEGAN_CAP)] == [Event.REQUEUED] * 4 + [Event.SET_ASIDE]


def test_a_cancel_stops_and_a_preemption_goes_on() -> None:
    cancelled = next_move(SPEC, ending(JobEndKind.CANCELLED, by_engine=True, asked=Intent.YIELD), GOOD)
    assert (cancelled.event, cancelled.reason) == (Event.STOPPED, "its job 4711 was cancelled in the cluster")
    preempted = next_move(SPEC, ending(JobEndKind.PREEMPTED, by_engine=True, asked=Intent.YIELD), GOOD)
    assert (preempted.event, preempted.outcome) == (Event.REQUEUED, SegmentOutcome.YIELDED)
    lost = next_move(SPEC, ending(JobEndKind.PREEMPTED, lost=True), GOOD)
    assert (lost.event, lost.lost) == (Event.REQUEUED, GOOD.lost)
    assert next_move(SPEC, ending(JobEndKind.ITSELF, lost=True), GOOD).lost == GOOD.lost + 1


def test_a_cancel_of_a_run_that_its_user_stops_is_the_users() -> None:
    result = ending(JobEndKind.CANCELLED, by_engine=True, asked=Intent.STOP, wanted=Intent.STOP)
    assert next_move(SPEC, result, GOOD).reason == "stopped by the user"


def test_an_end_of_its_own_is_judged_as_at_home() -> None:
    assert next_move(SPEC, ending(JobEndKind.ITSELF, exit_code=0), GOOD).event is Event.COMPLETED
    assert next_move(SPEC, ending(JobEndKind.CANCELLED, exit_code=0), GOOD).event is Event.COMPLETED
    assert next_move(SPEC, ending(JobEndKind.ITSELF, exit_code=1), GOOD).event is Event.FAILED
