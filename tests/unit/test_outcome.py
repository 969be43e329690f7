"""What a segment's end means for its run: every rule by a plain call, and chains that never go on for ever."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backprop.scheduler.lifecycle import HAS_PROCESSES, Event, next_state
from backprop.scheduler.outcome.chain_end import STALLED_CAP
from backprop.scheduler.outcome.failures import HOST_FAULT_CAP, LOST_CAP, backoff_s
from backprop.scheduler.outcome.move import NextMove, with_advice
from backprop.scheduler.outcome.next_move import Intent, next_move
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.recipes.plan import Plan
from backprop.scheduler.spec import RunSpec

SPEC = RunSpec(argv=("python", "train.py"), program="/usr/bin/python", cwd="/project")
FRESH = Chain(segments=1, total_s=600.0, stalled=0, retries_used=0, lost=0, progressed=False, resumable=False)
GOOD = replace(FRESH, progressed=True, resumable=True)
OLD = replace(FRESH, resumable=True)
"""Nothing new was saved, but an older checkpoint is known."""


def spec(**changes: object) -> RunSpec:
    return msgspec.structs.replace(SPEC, **changes)


def told(move: NextMove) -> str:
    """What the user of run 4123-1 reads."""
    return with_advice(move, "4123-1").reason


def test_an_outcome_tells_its_fault_and_whether_the_run_could_train() -> None:
    with_fault = {outcome for outcome in SegmentOutcome if outcome.fault is not None}
    assert with_fault == {SegmentOutcome.NAN, SegmentOutcome.STARTED_OVER, SegmentOutcome.GPU_MEMORY}
    assert all(outcome.fault == outcome for outcome in with_fault), "both are stored, under the same name"
    untrained = {outcome for outcome in SegmentOutcome if not outcome.trained}
    assert untrained == {SegmentOutcome.LOST, SegmentOutcome.NOT_STARTED}


def test_what_gpu_memory_limit_to_raise_is_said() -> None:
    ending = SegmentResult(exit_code=1, out_of_memory="CUDA out of memory")
    chain = replace(GOOD, promised_mib=8192, peak_mib=8000)
    said = told(next_move(spec(gpu_memory_limit="8"), ending, chain))
    assert said == "out of GPU memory: CUDA out of memory; raise its limit: backprop resume 4123-1 -g GB"


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


@pytest.mark.parametrize(
    ("asked", "chain"),
    [
        (spec(auto_resume=False), GOOD),
        (spec(max_segments=1), GOOD),
        (SPEC, FRESH),
        (SPEC, replace(OLD, stalled=1)),
    ],
)
def test_where_a_chain_ends_with_exit_0_both_ways_on_are_said(asked: RunSpec, chain: Chain) -> None:
    boxed = SegmentResult(asked=Intent.TIMEBOX, exit_code=0)
    for result, how in (
        (boxed, "it exited 0 within its grace"),
        (replace(boxed, killed=True), "it exited 0 after its grace"),
        (SegmentResult(told=True, exit_code=0), "it exited 0 when should_stop() said so"),
    ):
        move = next_move(asked, result, chain)
        assert (move.event, move.outcome) == (Event.TIMEBOXED, SegmentOutcome.TIMEBOXED)
        assert "backprop resume 4123-1" in told(move)
        assert told(move).endswith(f"; {how}: if it had finished, backprop resume --done 4123-1")
    for result in (replace(boxed, exit_code=130), SegmentResult(exit_code=75)):
        move = next_move(asked, result, replace(chain, stalled=1))
        assert move.event is Event.TIMEBOXED
        assert "--done" not in told(move)


def test_a_chain_that_goes_on_says_exit_0_too() -> None:
    on = next_move(SPEC, SegmentResult(asked=Intent.TIMEBOX, exit_code=0), GOOD)
    assert on.reason == "timebox reached, exit 0; resumes from its newest checkpoint"


def test_75_is_run_me_again_without_a_strike() -> None:
    crashed_before = replace(GOOD, retries_used=1)
    verdict = next_move(spec(retries=1), SegmentResult(exit_code=75), crashed_before)
    assert (verdict.event, verdict.outcome, verdict.retries_used) == (
        Event.REQUEUED,
        SegmentOutcome.TEMPFAIL,
        0,
    )
    assert next_move(SPEC, SegmentResult(exit_code=75), replace(FRESH, advanced=True)).stalled == 0, (
        "its step rose"
    )
    first = next_move(SPEC, SegmentResult(exit_code=75), FRESH)
    assert (first.event, first.stalled) == (Event.REQUEUED, 1), "it asked for it, once"
    second = next_move(SPEC, SegmentResult(exit_code=75), replace(FRESH, stalled=first.stalled))
    assert second.event is Event.TIMEBOXED


def test_without_any_checkpoint_the_chain_ends_at_once_with_advice() -> None:
    ending = SegmentResult(asked=Intent.TIMEBOX, exit_code=0, first_sign_s=400.0)
    verdict = next_move(SPEC, ending, FRESH)
    assert verdict.event is Event.TIMEBOXED
    assert "no checkpoint found, so it would restart from zero" in verdict.reason
    assert "Make it save on Ctrl-C (SIGINT)" in told(verdict)
    assert "first output came after 400.0 s" in verdict.reason
    assert "allow more time: backprop resume 4123-1 -m 20;" in told(verdict), "twice the box"
    assert told(verdict).endswith(
        "; it exited 0 within its grace: if it had finished, backprop resume --done 4123-1"
    )
    slow = next_move(SPEC, replace(ending, first_sign_s=900.0), FRESH)
    assert "backprop resume 4123-1 -m 30" in told(slow), "twice the start-up"
    assert "--grace-seconds" in next_move(SPEC, replace(ending, killed=True), FRESH).reason


def test_two_segments_in_a_row_without_a_new_checkpoint_end_the_chain() -> None:
    ending = SegmentResult(asked=Intent.TIMEBOX, exit_code=0)
    first = next_move(SPEC, ending, OLD)
    assert (first.event, first.stalled) == (Event.REQUEUED, 1)
    second = next_move(SPEC, ending, replace(OLD, stalled=1))
    assert (second.event, second.stalled) == (Event.TIMEBOXED, 2)
    assert "2 segments in a row saved no new checkpoint" in second.reason
    between = next_move(SPEC, ending, replace(GOOD, stalled=1))
    assert (between.event, between.stalled) == (Event.REQUEUED, 0)


@pytest.mark.parametrize(
    ("changes", "chain", "said"),
    [
        ({"auto_resume": False}, GOOD, "; auto-resume is off: backprop resume 4123-1 continues it"),
        (
            {"max_segments": 3},
            replace(GOOD, segments=3),
            "reached --max-segments 3; backprop resume 4123-1 allows 3 more",
        ),
        (
            {"max_total_s": 90.0},
            replace(GOOD, total_s=90.0),
            "reached --max-total-minutes 1.5; backprop resume 4123-1 allows 1.5 more",
        ),
    ],
)
@pytest.mark.parametrize("ending", [SegmentResult(asked=Intent.TIMEBOX), SegmentResult(exit_code=75)])
def test_a_bound_ends_the_chain_and_says_how_to_go_on(
    changes: dict[str, object], chain: Chain, said: str, ending: SegmentResult
) -> None:
    verdict = next_move(spec(**changes), ending, chain)
    assert verdict.event is Event.TIMEBOXED
    assert said in told(verdict)


def test_below_its_bounds_a_chain_goes_on() -> None:
    bounded = spec(max_segments=3, max_total_s=1200.0)
    verdict = next_move(
        bounded, SegmentResult(asked=Intent.TIMEBOX), replace(GOOD, segments=2, total_s=1199.0)
    )
    assert verdict.event is Event.REQUEUED


def test_a_crash_is_retried_with_growing_patience_and_then_failed() -> None:
    crash = SegmentResult(exit_code=1, last_line="ValueError: nan")
    chain = OLD
    for attempt in (1, 2, 3):
        verdict = next_move(spec(retries=3), crash, chain)
        assert verdict.event is Event.REQUEUED
        assert verdict.retries_used == attempt
        assert verdict.delay_s == backoff_s(attempt)
        assert f"retry {attempt} of 3 from its last checkpoint" in verdict.reason
        chain = replace(chain, retries_used=verdict.retries_used)
    last = next_move(spec(retries=3), crash, chain)
    assert last.event is Event.FAILED
    assert last.reason == "exited 1: ValueError: nan (after 3 retries)"
    assert next_move(SPEC, crash, OLD).event is Event.FAILED, "none unless asked for"


def test_a_retry_does_not_go_beyond_the_bounds_of_the_chain() -> None:
    verdict = next_move(
        spec(retries=5, max_segments=2), SegmentResult(exit_code=1), replace(GOOD, segments=2)
    )
    assert verdict.event is Event.FAILED
    assert "reached --max-segments 2; backprop resume 4123-1 allows 2 more" in told(verdict)


def test_the_patience_doubles_up_to_ten_minutes() -> None:
    assert [backoff_s(attempt) for attempt in (1, 2, 3, 7, 8, 100)] == [10, 20, 40, 600, 600, 600]


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (SegmentResult(exit_code=2), "exited 2"),
        (SegmentResult(signal_name="SIGSEGV"), "ended by SIGSEGV"),
        (SegmentResult(signal_name="SIGKILL"), "out of memory?"),
        (SegmentResult(), "ended unseen"),
        (SegmentResult(could_not_start="no such file"), "could not be started: no such file"),
    ],
)
def test_a_failure_says_how_it_ended(ending: SegmentResult, said: str) -> None:
    verdict = next_move(SPEC, ending, FRESH)
    assert verdict.event is Event.FAILED
    assert said in verdict.reason


def test_what_is_lost_while_it_is_suspended_is_no_strike() -> None:
    """A reboot takes all that is suspended: however often, no run is given up for that."""
    chain = replace(GOOD, progressed=False, lost=3)
    verdict = next_move(SPEC, SegmentResult(lost=True, suspended=True), chain)
    assert (verdict.event, verdict.lost) == (Event.REQUEUED, 3)
    assert "disappeared while it was suspended" in verdict.reason
    assert next_move(SPEC, SegmentResult(lost=True), chain).event is Event.FAILED
    assert next_move(SPEC, SegmentResult(lost=True, suspended=True), GOOD).lost == 0


def test_a_lost_segment_is_started_again_and_counted() -> None:
    lost = SegmentResult(lost=True)
    chain = OLD
    for count in range(1, LOST_CAP + 1):
        verdict = next_move(SPEC, lost, chain)
        assert (verdict.event, verdict.lost) == (Event.REQUEUED, count)
        chain = replace(chain, lost=verdict.lost)
    last = next_move(SPEC, lost, chain)
    assert last.event is Event.FAILED
    assert last.reason == "disappeared 4 times in a row (killed, or the machine went down); giving up"
    assert next_move(SPEC, lost, replace(chain, progressed=True)).lost == 1, "progress wipes the count out"
    assert next_move(SPEC, lost, replace(OLD, stalled=1)).stalled == 1, (
        "and it is no alibi for a stalled chain"
    )


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


@pytest.mark.parametrize(("unstarted", "delay_s"), [(0, 0.0), (1, 10.0), (3, 40.0), (500, 600.0)])
def test_a_start_that_the_machine_refuses_counts_for_nothing(unstarted: int, delay_s: float) -> None:
    ending = SegmentResult(could_not_start="Resource temporarily unavailable", passing=True)
    before = replace(FRESH, stalled=1, retries_used=2, lost=LOST_CAP, unstarted=unstarted, segments=9)
    move = next_move(spec(max_segments=2, retries=2), ending, before)
    assert (move.event, move.outcome) == (Event.REQUEUED, SegmentOutcome.NOT_STARTED)
    assert (move.stalled, move.retries_used, move.lost, move.delay_s) == (1, 2, LOST_CAP, delay_s)
    assert next_move(SPEC, replace(ending, passing=False), FRESH).event is Event.FAILED


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
    for state in HAS_PROCESSES:
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


@pytest.mark.parametrize("ending", [SegmentResult(lost=True), SegmentResult(could_not_start="no such file")])
@pytest.mark.parametrize(
    ("wanted", "event"),
    [
        (Intent.STOP, Event.STOPPED),
        (Intent.OUTRANKED, Event.STOPPED),
        (Intent.NAN, Event.FAILED),
        (Intent.STARTED_OVER, Event.FAILED),
        (Intent.LIMIT, Event.FAILED),
    ],
)
def test_what_is_to_end_does_not_go_on_because_its_segment_was_lost(
    ending: SegmentResult, wanted: Intent, event: Event
) -> None:
    verdict = next_move(SPEC, replace(ending, wanted=wanted, why_asked="so it is"), GOOD)
    assert verdict.event is event


@pytest.mark.parametrize(
    ("minutes", "typed"),
    [
        (0.160009, "0.2"),
        (0.0400002, "0.05"),
        (0.04, "0.04"),
        (0.0016, "0.002"),
        (0.95, "1"),
        (1.2, "1.5"),
        (7.3, "7.5"),
        (9.7, "10"),
        (20, "20"),
        (25.1, "26"),
        (61, "65"),
        (133.3, "135"),
        (240, "240"),
    ],
)
def test_a_longer_timebox_is_one_that_a_person_would_type(minutes: float, typed: str) -> None:
    """It doubles the box that was too short."""
    move = next_move(spec(timebox_s=minutes * 30), SegmentResult(asked=Intent.TIMEBOX), FRESH)
    assert told(move).endswith(f" -m {typed}")
    assert float(typed) >= minutes - 1e-6


def test_a_refused_load_is_told_and_accuses_no_checkpoint() -> None:
    line = "_pickle.UnpicklingError: Weights only load failed. In PyTorch 2.6, the default has changed"
    chain = replace(GOOD, fallback=("2.pt", "1.pt"))
    move = next_move(SPEC, SegmentResult(exit_code=1, last_line=line), chain)
    assert (move.event, move.suspect) == (Event.FAILED, None)
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1" in move.reason


COUNTED = replace(FRESH, stalled=1, retries_used=2, lost=1, resumable=True)


@pytest.mark.parametrize(
    ("ending", "event", "counters", "delay_s"),
    [
        (SegmentResult(unreadable="exit.json (I/O error)"), Event.SET_ASIDE, (1, 2, 1), 0.0),
        (SegmentResult(could_not_start="no such disk", missing=True), Event.REQUEUED, (1, 2, 1), 2.0),
        (SegmentResult(could_not_start="no process", passing=True), Event.REQUEUED, (1, 2, 1), 0.0),
        (SegmentResult(lost=True), Event.REQUEUED, (1, 2, 2), 0.0),
        (SegmentResult(exit_code=1, disk_full=True), Event.REQUEUED, (1, 2, 1), 40.0),
        (SegmentResult(exit_code=1, port_in_use="taken"), Event.REQUEUED, (1, 2, 1), 2.0),
        (SegmentResult(exit_code=1, out_of_memory="oom"), Event.REQUEUED, (1, 2, 0), 10.0),
        (SegmentResult(exit_code=1), Event.REQUEUED, (1, 3, 0), 40.0),
    ],
)
def test_what_an_end_counts_for_and_how_long_it_waits(
    ending: SegmentResult, event: Event, counters: tuple[int, int, int], delay_s: float
) -> None:
    verdict = next_move(spec(retries=3), ending, replace(COUNTED, promised_mib=1000))
    assert verdict.event is event
    assert (verdict.stalled, verdict.retries_used, verdict.lost) == counters
    assert verdict.delay_s == delay_s


def test_an_end_that_nobody_can_read_is_said_and_what_was_wanted_is_done() -> None:
    ending = SegmentResult(unreadable="exit.json (I/O error)")
    assert told(next_move(SPEC, ending, GOOD)).startswith(
        "held: how its segment ended cannot be read: exit.json (I/O error); once it can be"
    )
    assert next_move(SPEC, replace(ending, wanted=Intent.STOP), GOOD).event is Event.STOPPED


def test_a_chain_that_started_over_ends() -> None:
    verdict = next_move(SPEC, SegmentResult(asked=Intent.STARTED_OVER, exit_code=1, why_asked="step 1"), GOOD)
    assert (verdict.event, verdict.outcome) == (Event.FAILED, SegmentOutcome.STARTED_OVER)
    assert verdict.reason == "started over: step 1"


@pytest.mark.parametrize(
    ("limit", "chain", "need_mib"),
    [
        (None, {"promised_mib": 1000, "peak_mib": 900}, 1500),
        (None, {"promised_mib": 1000, "peak_mib": None}, 1500),
        (None, {"promised_mib": 1000, "peak_mib": 2000}, 2500),
        (None, {"promised_mib": 1000, "oom_retries": 1}, None),
        (None, {"promised_mib": 0}, None),
        ("8", {"promised_mib": 1000, "peak_mib": 899}, 1000),
        ("8", {"promised_mib": 1000, "peak_mib": 900}, None),
        ("8", {"promised_mib": 1000, "peak_mib": None}, None),
    ],
)
def test_out_of_gpu_memory_is_tried_once_more_with_what_it_may_need(
    limit: str | None, chain: dict[str, int | None], need_mib: int | None
) -> None:
    """Not where it ran into the limit that its user set; a neighbour may have taken what was there below it."""
    ending = SegmentResult(exit_code=1, out_of_memory="oom")
    verdict = next_move(spec(gpu_memory_limit=limit), ending, replace(GOOD, **chain))
    assert verdict.event is (Event.FAILED if need_mib is None else Event.REQUEUED)
    assert verdict.need_mib == need_mib


@pytest.mark.parametrize(("tries", "delay_s"), [(0, 2.0), (1, 10.0), (2, 20.0), (HOST_FAULT_CAP - 1, 80.0)])
def test_a_taken_port_is_looked_at_again_soon_and_then_ever_later(tries: int, delay_s: float) -> None:
    ending = SegmentResult(exit_code=1, port_in_use="taken")
    verdict = next_move(SPEC, ending, replace(OLD, host_faults=tries))
    assert (verdict.delay_s, verdict.host_faults) == (delay_s, tries + 1)
    late = replace(OLD, host_faults=HOST_FAULT_CAP)
    assert next_move(SPEC, ending, late).event is Event.FAILED
    assert next_move(SPEC, ending, replace(late, others_live=True)).event is Event.REQUEUED
    full = SegmentResult(exit_code=1, disk_full=True)
    assert next_move(SPEC, full, replace(late, others_live=True)).event is Event.FAILED
    started = SegmentResult(exit_code=1, port_in_use="taken", signal_name="SIGKILL")
    assert next_move(SPEC, started, OLD).fault is None


def test_why_a_chain_ends_after_its_timebox_is_said() -> None:
    ending = SegmentResult(asked=Intent.TIMEBOX, exit_code=0, why_asked="cut after its save")
    off = spec(auto_resume=False)
    assert "cut after its save; auto-resume is off" in told(next_move(off, ending, GOOD))
    assert "stopped after its timebox; auto-resume is off" in told(
        next_move(off, replace(ending, why_asked=None), GOOD)
    )
    again = SegmentResult(exit_code=75, why_asked="x")
    assert "asked to run again (exit code 75); auto-resume is off" in told(next_move(off, again, GOOD))


def test_a_recipe_that_cannot_resume_ends_the_chain_and_says_why() -> None:
    ending, plan = SegmentResult(asked=Intent.TIMEBOX, exit_code=1), Plan(recipe="timm", resumes="none")
    for why, said in (("it loads weights alone", "it loads weights alone"), ("", "by its recipe")):
        reason = told(next_move(spec(plan=msgspec.structs.replace(plan, why=why)), ending, GOOD))
        assert reason.startswith(f"stopped after its timebox: it cannot resume ({said}); allow more time: ")
    able = spec(plan=msgspec.structs.replace(plan, resumes="append"))
    assert next_move(able, ending, GOOD).event is Event.REQUEUED
    again = SegmentResult(exit_code=75)
    assert next_move(spec(plan=plan), again, GOOD).event is Event.REQUEUED, "it asks for it itself"


def test_what_has_finished_by_itself_is_not_outranked_any_more() -> None:
    ending = SegmentResult(wanted=Intent.OUTRANKED, exit_code=0)
    assert next_move(SPEC, ending, GOOD).event is Event.COMPLETED
    assert next_move(SPEC, replace(ending, exit_code=1), GOOD).event is Event.STOPPED


def test_what_could_not_be_started_has_not_failed_in_training() -> None:
    ending = SegmentResult(could_not_start="Permission denied")
    assert next_move(SPEC, ending, GOOD).outcome is SegmentOutcome.NOT_STARTED
