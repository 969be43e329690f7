"""Gathers how a segment ended and what its chain had done by then: the facts for `scheduler.outcome.next_move`."""

import errno
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from backprop.scheduler.lifecycle import Intent
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.worker.checkpoints.resume import initial_checkpoint, usable
from backprop.worker.checkpoints.validation import newest_good
from backprop.worker.executor import segment_files
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.segments.gpu_oom import out_of_memory
from backprop.worker.segments.tail import failure_line
from backprop.worker.segments.timebox import landed_s

ASKED_FROM_OUTSIDE = "its supervisor was told to end it"
PASSING_ERRORS = frozenset(
    {
        errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ETXTBSY,
        errno.EIO, errno.ESTALE,
    }
)  # fmt: skip
"""Errors of a start that pass by themselves: no process, memory, descriptor or disk is available just now, or a disk or
share is in trouble."""


def result_of(
    run: RunRecord,
    segment: SegmentRecord,
    exit: ExitRecord | None,  # noqa: A002
    folder: Path,
    saved: Sequence[CheckpointRecord] = (),
    paused_s: Callable[[float, float], float] | None = None,
) -> SegmentResult:
    """Return how `run`'s live segment ended. Reads the end of its log when it failed.

    `exit`: None means lost, and so does an end that nobody asked for and nobody saw: it may have been a good one.
    `folder`: the segment's. `saved`: the run's checkpoints. `paused_s`: returns for how much of a span of the wall
    clock (Unix seconds) it was paused.
    """
    wanted, why = run.intent, run.intent_why
    if exit is None or (exit.asked is None and not exit.seen_to_end):
        running_s = exit.running_s if exit is not None else 0.0
        return SegmentResult(
            wanted=wanted, lost=True, why_asked=why, running_s=running_s, first_sign_s=segment.first_output_s
        )
    asked = _asked(exit, run)
    boxed = exit.asked == "timebox"
    log, failed = folder / "log", asked is None and exit.exit_code != 0
    return SegmentResult(
        asked=asked,
        wanted=wanted,
        why_asked=None if boxed else why or (ASKED_FROM_OUTSIDE if asked is Intent.YIELD else None),
        exit_code=exit.exit_code,
        told=asked is None and exit.exit_code == 0 and segment_files.was_told(folder),
        signal_name=_signal_name(exit.signal),
        could_not_start=exit.could_not_start,
        passing=exit.errno in PASSING_ERRORS,
        killed=exit.escalated != "none",
        last_line=failure_line(log) if failed else None,
        out_of_memory=out_of_memory(log) if failed else None,
        running_s=exit.running_s,
        first_sign_s=segment.first_output_s,
        cut_cost_s=_cut_cost_s(segment, exit, folder, saved, paused_s),
    )


def unreadable_end(
    run: RunRecord,
    segment: SegmentRecord,
    exit: ExitRecord | None,  # noqa: A002
    error: OSError,
) -> SegmentResult:
    """Return how a segment ended of which nothing lives, and a file that tells how cannot be read."""
    return SegmentResult(
        unreadable=f"{error.filename or segment.number} ({error.strerror or error}, errno {error.errno})",
        wanted=run.intent,
        why_asked=run.intent_why,
        exit_code=exit.exit_code if exit is not None else None,
        running_s=exit.running_s if exit is not None else 0.0,
        first_sign_s=segment.first_output_s,
    )


def _cut_cost_s(
    segment: SegmentRecord,
    exit: ExitRecord,  # noqa: A002
    folder: Path,
    saved: Sequence[CheckpointRecord],
    paused_s: Callable[[float, float], float] | None,
) -> float | None:
    """Running time whose work is lost because the segment was asked to end: since its newest good checkpoint, or all of
    it. 0 where it saved when asked; None where it was not asked."""
    if exit.asked is None:
        return None
    landed = [
        landed_s(record) for record in saved if record.segment == segment.number and record.refused is None
    ]
    if not landed:
        return exit.running_s
    last_s = max(landed)
    ended_s = exit.ended_at_s if exit.ended_at_s is not None else last_s
    # One that had to be killed went on as if it had not been asked.
    end_s = ended_s if exit.escalated != "none" else _asked_at_s(folder) or ended_s
    if last_s >= end_s:
        return 0.0
    paused = paused_s(last_s, end_s) if paused_s is not None else 0.0
    return min(end_s - last_s - paused, exit.running_s)


def _asked_at_s(folder: Path) -> float | None:
    """When the stop signal was sent, Unix seconds; None where the disk was too full to note it."""
    stop = segment_files.read_stop(folder)
    return stop.at_s if stop is not None else None


def chain_of(
    run: RunRecord, segment: SegmentRecord, result: SegmentResult, saved: Sequence[CheckpointRecord]
) -> Chain:
    """Return what the chain has done, by the checkpoints that are good now. `saved`: the run's, newest first."""
    good = usable(run, saved)
    used = (
        record.step
        for record in saved
        if record.path == segment.checkpoint_used and record.segment < segment.number
    )
    resumed_step = next(used, None)
    fresh = [
        record for record in good if record.segment == segment.number and _later(record.step, resumed_step)
    ]
    return Chain(
        segments=segment.number - run.chain_start,
        total_s=run.chain_total_s + result.running_s,
        stalled=run.stalled,
        retries_used=run.retries_used,
        lost=run.lost,
        progressed=newest_good(fresh)[0] is not None,
        promised_mib=segment.promised_mib,
        peak_mib=segment.peak_mib,
        oom_retries=run.oom_retries,
        resumable=newest_good(good)[0] is not None or initial_checkpoint(run) is not None,
        advanced=run.last_step is not None
        and run.last_step > (-1 if segment.steps_from is None else segment.steps_from),
    )


def chain_unseen(run: RunRecord, segment: SegmentRecord, result: SegmentResult) -> Chain:
    """Return what the database knows of the chain, for an end that cannot be read: no checkpoint is looked at."""
    return Chain(
        segments=segment.number - run.chain_start,
        total_s=run.chain_total_s + result.running_s,
        stalled=run.stalled,
        retries_used=run.retries_used,
        lost=run.lost,
        progressed=False,
        resumable=False,
    )


def _later(step: int | None, resumed_step: int | None) -> bool:
    """Saving again the very step one resumed from is no progress; without both steps, a newer file is."""
    return step is None or resumed_step is None or step > resumed_step


def _asked(exit: ExitRecord, run: RunRecord) -> Intent | None:  # noqa: A002
    """Whose intent the stop signal carried. A signal that no row explains came from outside: the segment yields."""
    if exit.asked == "timebox":
        return Intent.TIMEBOX
    if exit.asked is not None:
        return run.intent or Intent.YIELD
    return None


def _signal_name(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
