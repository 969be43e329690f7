"""What a segment's end means for its run: every rule by a plain call, and chains that never go on for ever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from backprop.scheduler.lifecycle import HAS_PROCESSES, Event, State, next_state
from backprop.scheduler.outcome.chain_end import STALLED_CAP
from backprop.scheduler.outcome.failures import HOST_FAULT_CAP, LOST_CAP
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.next_move import Intent, next_move
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.spec import RunSpec
from tests.support.outcomes import FRESH, GOOD, OLD, SPEC, spec, told


def test_an_outcome_tells_its_fault_and_whether_the_run_could_train() -> None:
    with_fault = {outcome for outcome in SegmentOutcome if outcome.fault is not None}
    own = {SegmentOutcome.NAN, SegmentOutcome.HUNG, SegmentOutcome.STARTED_OVER, SegmentOutcome.GPU_MEMORY}
    assert with_fault == own
    assert all(outcome.fault == outcome for outcome in with_fault), "both are stored, under the same name"
    untrained = {outcome for outcome in SegmentOutcome if not outcome.trained}
    assert untrained == {SegmentOutcome.LOST, SegmentOutcome.NOT_STARTED}


@pytest.mark.parametrize("code", [0, 1, 75, 130, 143, None])
@pytest.mark.parametrize(
    ("asked", "event", "outcome"),
    [
        (Intent.TIMEBOX, Event.REQUEUED, SegmentOutcome.TIMEBOXED),
        (Intent.YIELD, Event.REQUEUED, SegmentOutcome.YIELDED),
        (Intent.STOP, Event.STOPPED, SegmentOutcome.STOPPED),
        (Intent.LIMIT, Event.FAILED, SegmentOutcome.OVER_LIMIT),
    ],
)
def test_intent_wins_over_exit_status(
    code: int | None, asked: Intent, event: Event, outcome: SegmentOutcome
) -> None:
    signal_name = "SIGKILL" if code is None else None
    verdict = next_move(
        SPEC, SegmentResult(asked=asked, exit_code=code, signal_name=signal_name, why_asked="x"), GOOD
    )
    assert (verdict.event, verdict.outcome) == (event, outcome)
    assert (verdict.stalled, verdict.retries_used, verdict.lost) == (0, 0, 0)


@pytest.mark.parametrize("asked", [Intent.TIMEBOX, Intent.YIELD, Intent.STOP])
@pytest.mark.parametrize("code", [0, 1, 75])
def test_a_stop_by_the_user_is_never_lost_to_another_reason(asked: Intent, code: int) -> None:
    """The timebox rang, and while the script saved, the user said stop. It must not be started again."""
    verdict = next_move(SPEC, SegmentResult(asked=asked, wanted=Intent.STOP, exit_code=code), GOOD)
    assert verdict.event is Event.STOPPED


@pytest.mark.parametrize(
    "ending",
    [
        SegmentResult(wanted=Intent.STOP, exit_code=1),
        SegmentResult(wanted=Intent.STOP, exit_code=75),
        SegmentResult(wanted=Intent.STOP, signal_name="SIGINT"),
        SegmentResult(wanted=Intent.STOP, lost=True),
        SegmentResult(wanted=Intent.STOP, could_not_start="no memory", passing=True),
    ],
)
def test_a_stop_that_was_never_delivered_still_counts(ending: SegmentResult) -> None:
    assert next_move(spec(retries=5), ending, GOOD).event is Event.STOPPED


def test_a_run_that_finished_before_the_stop_reached_it_is_completed() -> None:
    assert next_move(SPEC, SegmentResult(wanted=Intent.STOP, exit_code=0), GOOD).event is Event.COMPLETED


@pytest.mark.parametrize("chain", [GOOD, FRESH])
def test_how_a_stopped_run_goes_on_is_said_where_it_can(chain: Chain) -> None:
    stopped = next_move(SPEC, SegmentResult(asked=Intent.STOP, exit_code=130), chain)
    assert ("continues from its last checkpoint" in told(stopped)) is chain.resumable


def test_exit_0_of_its_own_is_completed_whatever_was_saved() -> None:
    for chain in (FRESH, OLD, GOOD):
        assert next_move(SPEC, SegmentResult(exit_code=0), chain) == NextMove(
            Event.COMPLETED, SegmentOutcome.COMPLETED, "exited 0"
        )


END = "step 9/9"


@pytest.mark.parametrize(
    ("result", "how"),
    [
        (SegmentResult(asked=Intent.TIMEBOX, exit_code=0, shown_end=END), "exited 0 within its grace"),
        (
            SegmentResult(asked=Intent.YIELD, exit_code=0, shown_end=END, why_asked="it is too hot"),
            "exited 0 within its grace",
        ),
        (SegmentResult(told=True, exit_code=0, shown_end=END), "exited 0 when should_stop() said so"),
    ],
)
def test_exit_0_after_the_end_was_shown_is_completed(result: SegmentResult, how: str) -> None:
    for chain in (FRESH, OLD, GOOD):
        done = NextMove(Event.COMPLETED, SegmentOutcome.COMPLETED, f"finished: step 9/9; {how}")
        assert next_move(SPEC, result, chain) == done
    for wanted in (Intent.STOP, Intent.OUTRANKED, Intent.NAN):
        assert next_move(SPEC, replace(result, wanted=wanted), GOOD).event is not Event.COMPLETED


def test_a_yield_costs_nothing_and_wipes_nothing_out() -> None:
    before = replace(OLD, stalled=1, retries_used=2, lost=3)
    verdict = next_move(SPEC, SegmentResult(asked=Intent.YIELD, why_asked="GPU 0 is too hot"), before)
    assert (verdict.event, verdict.delay_s) == (Event.REQUEUED, 0.0)
    assert (verdict.stalled, verdict.retries_used, verdict.lost) == (1, 2, 3)
    assert verdict.reason == "paused for now: GPU 0 is too hot; resumes from its last checkpoint"
    after = next_move(SPEC, SegmentResult(asked=Intent.YIELD), replace(before, progressed=True))
    assert (after.stalled, after.lost) == (0, 0)
    bounded = spec(max_segments=1, auto_resume=False)
    assert next_move(bounded, SegmentResult(asked=Intent.YIELD), FRESH).event is Event.REQUEUED, (
        "it was not its end"
    )


def test_a_run_whose_vram_did_not_come_back_is_no_strike_and_does_not_silently_start_over() -> None:
    before = replace(OLD, stalled=1, retries_used=2, lost=3)
    for ending in (
        SegmentResult(asked=Intent.STRANDED, wanted=Intent.STRANDED, why_asked="no room"),
        SegmentResult(wanted=Intent.STRANDED, signal_name="SIGKILL", why_asked="no room"),
        SegmentResult(wanted=Intent.STRANDED, lost=True, why_asked="no room"),
    ):
        verdict = next_move(SPEC, ending, before)
        assert (verdict.event, verdict.stalled, verdict.retries_used, verdict.lost) == (
            Event.REQUEUED,
            1,
            2,
            3,
        )
        assert verdict.reason == "its VRAM did not come back: no room; resumes from its last checkpoint"
        since = next_move(SPEC, ending, replace(before, progressed=True))
        assert (since.stalled, since.retries_used, since.lost) == (0, 2, 0), "it had saved something new"
        held = next_move(SPEC, ending, replace(before, resumable=False, progressed=False))
        assert (held.event, held.advice is not None) == (Event.SET_ASIDE, True)
        assert held.reason.endswith("no checkpoint is known, so it would start from zero")
    assert next_move(SPEC, SegmentResult(wanted=Intent.STRANDED, exit_code=0), GOOD).event is Event.COMPLETED


intents = st.none() | st.sampled_from(Intent)


endings = st.builds(
    SegmentResult,
    asked=intents,
    wanted=intents,
    exit_code=st.none() | st.sampled_from([0, 1, 2, 75, 255]),
    signal_name=st.none() | st.sampled_from(["SIGKILL", "SIGSEGV"]),
    lost=st.booleans(),
    could_not_start=st.none() | st.just("no"),
    passing=st.booleans(),
    killed=st.booleans(),
    why_asked=st.none() | st.just("why"),
    running_s=st.floats(0, 1000),
    out_of_memory=st.none() | st.just("CUDA out of memory"),
    port_in_use=st.none() | st.just("address already in use"),
    disk_full=st.booleans(),
)


chains = st.builds(
    Chain,
    segments=st.integers(1, 50),
    total_s=st.floats(0, 1e6),
    stalled=st.integers(0, STALLED_CAP),
    retries_used=st.integers(0, 5),
    lost=st.integers(0, LOST_CAP),
    progressed=st.booleans(),
    resumable=st.booleans(),
    advanced=st.booleans(),
    promised_mib=st.integers(0, 80_000),
    peak_mib=st.none() | st.integers(0, 80_000),
    oom_retries=st.integers(0, 1),
    host_faults=st.integers(0, HOST_FAULT_CAP),
    others_live=st.booleans(),
)


specs = st.builds(
    spec,
    auto_resume=st.booleans(),
    retries=st.integers(0, 3),
    max_segments=st.none() | st.integers(1, 20),
    max_total_s=st.none() | st.floats(1, 1e5),
    gpu_memory_limit=st.none() | st.just("8"),
)


@settings(deadline=None, max_examples=100)
@given(specs, endings, chains)
def test_every_verdict_is_a_legal_move_with_a_reason(
    spec: RunSpec, ending: SegmentResult, chain: Chain
) -> None:
    verdict = next_move(spec, ending, chain)
    for state in HAS_PROCESSES - {State.SUBMITTED}:  # of which nothing has begun, see test_job_moves
        assert next_state(state, verdict.event) is not None
    assert isinstance(verdict.outcome, SegmentOutcome)
    assert verdict.reason
    ways = 0 if verdict.advice is None else 1 if verdict.advice.may_be_done is None else 2
    assert told(verdict).count("backprop resume") == told(verdict).count("4123-1") == ways
    assert "\n" not in verdict.reason
    assert verdict.delay_s >= 0
    assert min(verdict.stalled, verdict.retries_used, verdict.lost) >= 0


def test_exit_0_after_should_stop_told_it_is_the_timebox() -> None:
    ending = SegmentResult(exit_code=0, told=True)
    assert next_move(SPEC, ending, GOOD).event is Event.REQUEUED
    assert next_move(SPEC, ending, GOOD).outcome is SegmentOutcome.TIMEBOXED
    assert next_move(spec(auto_resume=False), ending, GOOD).event is Event.TIMEBOXED
    assert "no checkpoint found" in next_move(SPEC, ending, FRESH).reason
    assert next_move(SPEC, replace(ending, wanted=Intent.STOP), GOOD).event is Event.STOPPED
    assert next_move(SPEC, replace(ending, wanted=Intent.NAN), GOOD).outcome is SegmentOutcome.NAN


@settings(deadline=None, max_examples=100)
@given(specs, endings, chains)
def test_what_the_user_stopped_is_not_started_again(
    spec: RunSpec, ending: SegmentResult, chain: Chain
) -> None:
    verdict = next_move(spec, replace(ending, wanted=Intent.STOP), chain)
    assert verdict.event in (Event.STOPPED, Event.COMPLETED)


@settings(deadline=None, max_examples=50)
@given(specs, st.lists(endings, min_size=40, max_size=40))
def test_no_chain_goes_on_for_ever_without_progress(spec: RunSpec, ends: list[SegmentResult]) -> None:
    """Whatever happens to it, in any order, a run that saves nothing new comes to rest. Only yields and starts that the
    machine refuses are free."""
    bound = (STALLED_CAP + spec.retries + 2) * (LOST_CAP + 1) * (HOST_FAULT_CAP + 1)
    chain, segments, oom = OLD, 0, 0
    for ending in ends:
        verdict = next_move(spec, replace(ending, wanted=None), replace(chain, segments=segments + 1))
        if verdict.event is not Event.REQUEUED:
            return
        refused = verdict.outcome is SegmentOutcome.NOT_STARTED and ending.passing
        segments += verdict.outcome is not SegmentOutcome.YIELDED and not refused
        oom += verdict.need_mib is not None
        chain = replace(
            chain,
            stalled=verdict.stalled,
            retries_used=verdict.retries_used,
            lost=verdict.lost,
            host_faults=verdict.host_faults,
            oom_retries=oom,
        )
        assert segments <= bound, f"{segments} segments without progress"


def test_a_chain_that_started_over_ends() -> None:
    verdict = next_move(SPEC, SegmentResult(asked=Intent.STARTED_OVER, exit_code=1, why_asked="step 1"), GOOD)
    assert (verdict.event, verdict.outcome) == (Event.FAILED, SegmentOutcome.STARTED_OVER)
    assert verdict.reason == "started over: step 1"


def test_what_has_finished_by_itself_is_not_outranked_any_more() -> None:
    ending = SegmentResult(wanted=Intent.OUTRANKED, exit_code=0)
    assert next_move(SPEC, ending, GOOD).event is Event.COMPLETED
    assert next_move(SPEC, replace(ending, exit_code=1), GOOD).event is Event.STOPPED


@pytest.mark.parametrize("intent", [Intent.STOP, Intent.OUTRANKED])
def test_who_asked_or_wanted_it_to_end_is_obeyed_alike(intent: Intent) -> None:
    for ending in (SegmentResult(asked=intent, exit_code=1), SegmentResult(wanted=intent, exit_code=1)):
        assert next_move(SPEC, replace(ending, why_asked="x"), GOOD).event is Event.STOPPED


def test_what_makes_room_says_why_and_where_it_goes_on() -> None:
    ending = SegmentResult(asked=Intent.YIELD, exit_code=130)
    assert next_move(SPEC, ending, GOOD).reason == (
        "paused for now: asked to make room; resumes from its last checkpoint"
    )
    assert next_move(SPEC, replace(ending, why_asked="it is hot"), FRESH).reason == (
        "paused for now: it is hot; will start from zero: no checkpoint is known"
    )
