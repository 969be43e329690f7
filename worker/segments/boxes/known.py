"""Tells what is known of a run by its segments so far: whether it resumes, saves when asked, and how soon it is back.

Pure. What a run claims comes from its text, its options and what it announces; what is proven was seen.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final

from backprop.scheduler.governor.box_end import Known
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.spec import RunSpec

RECENT: Final = 3
"""So many of the latest segments count: a script may have been changed."""


def claims_to_resume(spec: RunSpec, announces: bool) -> bool:
    """Return whether the run is said to go on from a checkpoint. `announces`: it has announced one itself."""
    plan = spec.plan
    if spec.resume_arg != "auto" or announces:
        return True
    return plan is not None and (plan.resumes in ("append", "rerun") or bool(plan.speaks))


def resumes(
    run: RunRecord,
    segment: SegmentRecord,
    earlier: Sequence[SegmentRecord],
    saved: Sequence[CheckpointRecord],
    goes_on: bool,
    announces: bool,
) -> Known:
    """Return whether the run goes on from its checkpoints. `earlier`: its segments before this one, oldest first.
    `saved`: its good checkpoints of those. `goes_on`: this one has resumed, and saved something new since."""
    if run.spec.cannot_resume:
        return Known.NO
    # What a user has resumed may have been mended.
    earlier = [one for one in earlier if one.number > run.chain_start]
    if any(one.outcome is SegmentOutcome.STARTED_OVER for one in earlier):
        return Known.NO
    if goes_on or any(_went_on(one, saved) for one in earlier):
        return Known.PROVEN
    begun = (*earlier, segment) if segment.number > run.chain_start + 1 else ()
    resumed_in_vain = any(one.checkpoint_used is not None for one in begun)
    claimed = claims_to_resume(run.spec, announces) and not resumed_in_vain
    return Known.CLAIMED if claimed else Known.NO


def _went_on(segment: SegmentRecord, saved: Sequence[CheckpointRecord]) -> bool:
    """Return whether an earlier segment resumed and left a checkpoint that goes beyond what it began with."""
    if segment.checkpoint_used is None:
        return False
    used = [one.step for one in saved if one.path == segment.checkpoint_used and one.segment < segment.number]
    step = next((one for one in reversed(used) if one is not None), None)
    own = (one for one in saved if one.segment == segment.number)
    return any(one.step is None or step is None or one.step > step for one in own)


def saves_when_asked(earlier: Sequence[SegmentRecord], heeds: bool) -> Known:
    """Return whether the run saves when it is asked to stop. `heeds`: it has asked `should_stop()`, or one of our
    callbacks has. What was seen beats what it says."""
    shown = [one.cut_cost_s for one in earlier if one.cut_cost_s is not None][-RECENT:]
    if shown:
        return Known.PROVEN if 2 * shown.count(0.0) >= len(shown) else Known.NO
    return Known.CLAIMED if heeds else Known.NO


def restart_s(segments: Sequence[SegmentRecord]) -> float | None:
    """Return how long a restart takes until the first new step, by the latest segments that resumed; None for unknown.
    `segments`: oldest first."""
    times_s = [
        one.first_step_s
        for one in segments
        if one.checkpoint_used is not None and one.first_step_s is not None
    ]
    return median(times_s[-RECENT:]) if times_s else None
