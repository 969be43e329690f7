"""Gathers what a chain had done when a segment of it ended, for `scheduler.outcome.next_move`."""

import os
from collections.abc import Collection, Sequence

from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.records import LOG, CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.reads.company import DOUBT
from backprop.worker.checkpoints.fallback import fallen_back
from backprop.worker.checkpoints.resume import can_hand_back, first_segment, initial_checkpoint, usable
from backprop.worker.checkpoints.validation import newest_good
from backprop.worker.environment.presence import checkpoint_away, empty_mount_point, missing


def chain_of(
    run: RunRecord,
    segment: SegmentRecord,
    result: SegmentResult,
    saved: Sequence[CheckpointRecord],
    earlier: Sequence[SegmentRecord] = (),
    mounts: Collection[str] = (),
    others_live: bool = False,
    at_once: bool = False,
    other: str | None = None,
) -> Chain:
    """Return what the chain has done, by the checkpoints that are good now, and by those that are merely away: the run
    waits for them. `saved`: the run's, newest first. `earlier`: its segments before this one, where some may never have
    begun. `mounts`: that it has used. `others_live`: other runs are live now. `at_once`: the segment failed at
    once with its checkpoint. `other`: the one to try instead."""
    good = usable(run, saved)
    handed_back = not good or not good[0].observed or can_hand_back(run.spec)
    wrote = None if handed_back else _short(good[0].path, run.spec.cwd)
    good = good if handed_back else []
    # Of a run that announces its checkpoints all are on record; others may have saved what nobody could look for.
    away = run.spec.plan is not None and bool(run.spec.plan.globs) and _is_away(run.spec.cwd, mounts)

    def any_left(records: Sequence[CheckpointRecord]) -> bool:
        whole, broken = newest_good(records)
        beside = [record.path for record in good]
        return whole is not None or any(checkpoint_away(each.path, mounts, beside) for each, _ in broken)

    used = (
        record.step
        for record in saved
        if record.path == segment.checkpoint_used and record.segment < segment.number
    )
    resumed_step = next(used, None)
    fresh = [
        record for record in good if record.segment == segment.number and _later(record.step, resumed_step)
    ]
    unstarted = 0
    while unstarted < len(earlier) and earlier[-1 - unstarted].outcome is SegmentOutcome.NOT_STARTED:
        unstarted += 1
    refused = _refused(run, saved) if not good else None
    return Chain(
        segments=begun_in_chain(run, segment.number, earlier) + max(segment.boxes, result.boxes) - 1,
        total_s=run.chain_total_s + result.running_s,
        stalled=run.stalled,
        retries_used=run.retries_used,
        lost=run.lost,
        unstarted=unstarted,
        has_begun=_has_reported(run) or bool(saved),
        progressed=away or any_left(fresh),
        promised_mib=segment.promised_mib,
        peak_mib=segment.peak_mib,
        oom_retries=run.oom_retries,
        host_faults=run.host_faults,
        others_live=others_live,
        fallback=(segment.checkpoint_used, other) if segment.checkpoint_used and other else None,
        fell_back=fallen_back(run, saved, earlier) if at_once else 0,
        resumable=away or any_left(good) or initial_checkpoint(run) is not None,
        # A counter in plain output may begin again with each epoch.
        not_handed_back=wrote,
        refused=_in_words(refused, run.spec.cwd) if refused is not None else None,
        doubted=refused is not None and refused.attribution == DOUBT,
        advanced=run.last_step is not None
        and run.step_source != LOG
        and run.last_step > (-1 if segment.steps_from is None else segment.steps_from),
    )


def chain_unseen(run: RunRecord, segment: SegmentRecord, result: SegmentResult) -> Chain:
    """Return what the database knows of the chain, for an end that cannot be read: no checkpoint is looked at."""
    return Chain(
        segments=segment.number - run.chain_start + max(segment.boxes, result.boxes) - 1,
        total_s=run.chain_total_s + result.running_s,
        stalled=run.stalled,
        retries_used=run.retries_used,
        lost=run.lost,
        progressed=False,
        resumable=False,
        has_begun=_has_reported(run),
    )


def begun_in_chain(run: RunRecord, number: int, earlier: Sequence[SegmentRecord]) -> int:
    """Return how many timeboxes the chain has begun with the start of segment `number`, without those of segments that
    could not be started."""
    before = (one for one in earlier if run.chain_start < one.number < number)
    more = sum(-1 if one.outcome is SegmentOutcome.NOT_STARTED else one.boxes - 1 for one in before)
    return number - run.chain_start + more


def _refused(run: RunRecord, saved: Sequence[CheckpointRecord]) -> CheckpointRecord | None:
    """Return the newest checkpoint that was refused in a segment that counts."""
    since = first_segment(run)
    return next((each for each in saved if each.refused is not None and each.segment >= since), None)


def _in_words(refused: CheckpointRecord, cwd: str) -> str:
    """Return a refused checkpoint with why."""
    why = refused.refused or ""
    return why if refused.path in why else f"{_short(refused.path, cwd)}: {why}"


def _short(path: str, cwd: str) -> str:
    """Return a path relative to the run's directory, if it lies inside."""
    return path.removeprefix(f"{os.path.realpath(cwd)}{os.sep}")


def _is_away(cwd: str, mounts: Collection[str]) -> bool:
    return missing("its directory", cwd) is not None or empty_mount_point(cwd, mounts) is not None


def _has_reported(run: RunRecord) -> bool:
    return run.last_step is not None or run.last_loss is not None


def _later(step: int | None, resumed_step: int | None) -> bool:
    """Saving again the very step one resumed from is no progress; without both steps, a newer file is."""
    return step is None or resumed_step is None or step > resumed_step
