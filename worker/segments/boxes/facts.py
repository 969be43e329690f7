"""Gathers what is known of a live segment for the decision at the end of its box."""

from typing import Final

import msgspec

from backprop.scheduler.governor.box_end import BoxCause, BoxFacts, Known
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments import timebox
from backprop.worker.segments.boxes import known
from backprop.worker.segments.cadence import Cadence

BEGUN: Final = 2.0
"""After so many of its usual restarts a segment without a step has begun all the same: it reports none any more."""


class Wanted(msgspec.Struct, frozen=True):
    """Another run waits that could use this one's place. `urgently`: of a higher priority, or for long. `beside`: it
    could also run beside what this one keeps while it is suspended; then `swaps` says that it is suspended itself."""

    urgently: bool = False
    beside: bool = False
    swaps: bool = False


class SeenSaves(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of the segment's own. `newest`: its newest whole checkpoint. `has_copy`: of that, where it will be
    overwritten. `is_writing`: something is being saved. `announces`: it has announced a save. `takes`: it has asked
    what to resume from. `heeds`: it asks whether to stop. `stood_back`: an integration has left a training of it alone.
    """

    steps: StepTrace
    newest: CheckpointRecord | None
    has_copy: bool
    is_writing: bool
    announces: bool
    takes: bool
    heeds: bool
    stood_back: bool = False


def facts_of(
    run: RunRecord,
    segment: SegmentRecord,
    cadence: Cadence,
    seen: SeenSaves,
    wall_s: float,
    wanted: Wanted | None,
    out_of_hours: bool,
) -> BoxFacts:
    """Return the facts, without what depends on the box in force. `wall_s`: now, Unix seconds."""
    newest = seen.newest if seen.newest is not None and cadence.is_new(seen.newest) else None
    elapsed_s = cadence.elapsed_s
    since_saved_s = elapsed_s
    if newest is not None:
        landed_s = timebox.landed_s(newest)
        paused_s = cadence.paused_between_s(landed_s, wall_s)
        since_saved_s = min(max(wall_s - landed_s - paused_s, 0.0), elapsed_s)
    resumes = _resumes(run, segment, cadence, seen, newest is not None)
    # Of what nothing resumes, a save keeps nothing.
    unsaved_s = since_saved_s if resumes is not Known.NO else elapsed_s
    restart_s = known.restart_s([*cadence.earlier, segment])
    stepped = seen.steps.first is not None or newest is not None
    gap_s = timebox.expected_gap_s(cadence.history(seen.announces), cadence.saves_s)
    return BoxFacts(
        cause=BoxCause.HOURS if out_of_hours else BoxCause.BOX,
        is_paused=run.state is State.PAUSED,
        is_saving=seen.is_writing,
        unsaved_s=unsaved_s,
        has_saved=newest is not None and seen.has_copy,
        has_begun=stepped or restart_s is None or elapsed_s >= BEGUN * restart_s,
        has_resumed=segment.checkpoint_used is not None,
        resumes=resumes,
        saves_when_asked=Known.NO if seen.stood_back else known.saves_when_asked(cadence.earlier, seen.heeds),
        due_s=_due_s(gap_s, since_saved_s),
        restart_s=restart_s,
        box_s=timebox.box_s(run),
        turn_s=elapsed_s,
        waited_for=wanted is not None,
        urgently=wanted is not None and wanted.urgently,
        waited_beside=wanted is not None and wanted.beside,
    )


def once_saved(run: RunRecord, segment: SegmentRecord, cadence: Cadence, seen: SeenSaves) -> Known:
    """Return how well the run will be known to resume once this segment has saved something new."""
    return _resumes(run, segment, cadence, seen, True)


def _resumes(
    run: RunRecord, segment: SegmentRecord, cadence: Cadence, seen: SeenSaves, has_saved: bool
) -> Known:
    # What an integration hands back is of its own training. Of another, or of what follows, it hands nothing.
    if seen.stood_back and not known.claims_to_resume(run.spec, announces=False):
        return Known.NO
    goes_on = segment.checkpoint_used is not None and has_saved
    return known.resumes(run, segment, cadence.earlier, cadence.known, goes_on, seen.announces or seen.takes)


def _due_s(gap_s: float | None, unsaved_s: float) -> float:
    """Return when the next save is expected. One that is late by a whole gap is not expected any more."""
    if not gap_s or unsaved_s > 2 * gap_s:
        return float("inf")
    return max(gap_s - unsaved_s, 0.0)
