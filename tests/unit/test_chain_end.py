"""Whether a chain of segments ends at its timebox, and what its user is told to do then."""

import msgspec
import pytest
from msgspec.structs import replace

from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.next_move import Intent, next_move
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.recipes.plan import Plan
from backprop.scheduler.spec import RunSpec
from tests.support.outcomes import FRESH, GOOD, OLD, SPEC, spec, told


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
    renewed = SegmentResult(asked=Intent.TIMEBOX, why_asked="its third box is over", exit_code=130)
    assert (
        next_move(SPEC, renewed, GOOD).reason == "its third box is over; resumes from its newest checkpoint"
    )


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
    assert "--grace-seconds" not in verdict.reason, "it was not killed"
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


BOXED = SegmentResult(asked=Intent.TIMEBOX, exit_code=130)


def test_steps_without_a_save_are_progress_only_where_the_script_asks_to_run_again() -> None:
    boxed = next_move(SPEC, BOXED, replace(OLD, advanced=True))
    assert (boxed.stalled, "without a new checkpoint" in boxed.reason) == (1, True)


def test_a_chain_whose_checkpoints_may_be_anothers_gets_one_more_segment() -> None:
    doubted = replace(FRESH, doubted=True, refused="out/last.pt: 2 runs may have written it")
    first = next_move(SPEC, BOXED, doubted)
    assert (first.event, first.stalled) == (Event.REQUEUED, 1)
    assert "its checkpoint is refused: out/last.pt: 2 runs may have written it" in first.reason
    second = next_move(SPEC, BOXED, replace(doubted, stalled=1))
    assert second.event is Event.TIMEBOXED
    assert "so it would restart from zero" in second.reason


def test_a_checkpoint_that_nothing_hands_back_ends_the_chain_where_there_is_no_other() -> None:
    unknown = replace(FRESH, not_handed_back="out/3.pt")
    ends = next_move(SPEC, BOXED, unknown)
    assert ends.event is Event.TIMEBOXED
    assert ends.reason == ("no option to resume: it wrote out/3.pt, and no option is known to hand it back")
    assert "--resume-arg" in told(ends)
    lifeless = next_move(SPEC, replace(BOXED, why_asked="no sign of life for a whole timebox"), unknown)
    assert lifeless.reason.startswith("no sign of life for a whole timebox; no option to resume: it wrote")
    assert next_move(SPEC, BOXED, replace(GOOD, not_handed_back="out/3.pt")).event is Event.REQUEUED
    assert "it would restart from zero" in next_move(SPEC, BOXED, FRESH).reason


def test_only_the_timebox_needs_a_checkpoint_to_go_on() -> None:
    again = SegmentResult(exit_code=75)
    refused = replace(FRESH, refused="it is empty")
    assert next_move(SPEC, again, refused).event is Event.REQUEUED
    assert next_move(SPEC, BOXED, refused).event is Event.TIMEBOXED
    assert "its checkpoint is refused: it is empty, so it would" in next_move(SPEC, BOXED, refused).reason
    assert next_move(SPEC, again, replace(FRESH, not_handed_back="out/3.pt")).event is Event.REQUEUED
    assert next_move(SPEC, BOXED, replace(GOOD, refused="it is empty")).event is Event.REQUEUED
    assert next_move(SPEC, again, OLD).reason == (
        "exited 75 (run me again) without a new checkpoint; resumes from an older checkpoint"
    )
    assert next_move(SPEC, BOXED, OLD).reason == (
        "timebox reached without a new checkpoint; resumes from an older checkpoint, in a longer box"
    )


def test_progress_wipes_out_the_segments_without_it() -> None:
    assert next_move(SPEC, BOXED, replace(GOOD, stalled=1)).stalled == 0
    zero = next_move(SPEC, SegmentResult(asked=Intent.TIMEBOX, exit_code=0), GOOD)
    assert zero.reason == "timebox reached, exit 0; resumes from its newest checkpoint"
    assert next_move(SPEC, SegmentResult(exit_code=75), GOOD).reason == (
        "exited 75 (run me again); resumes from its newest checkpoint"
    )
