"""Gathers how a segment ended: one half of the facts for `scheduler.outcome.next_move`; `chain` has the other."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from backprop.scheduler.home.file_reading import is_there
from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.worker.executor import segment_files
from backprop.worker.executor.box_files import ASK, read_decision
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.executor.vram import move_files
from backprop.worker.segments.ends import final_part, start_errors
from backprop.worker.segments.ends.gpu_oom import out_of_memory
from backprop.worker.segments.ends.port_in_use import port_in_use
from backprop.worker.segments.hang.note import why_hung
from backprop.worker.segments.tail import failure_line
from backprop.worker.segments.timebox import landed_s

ASKED_FROM_OUTSIDE = "its supervisor was told to end it"
NEVER_BEGAN = "its supervisor was gone before its command began"


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
        if exit is None and not _has_begun(segment, folder):
            return SegmentResult(wanted=wanted, could_not_start=NEVER_BEGAN, passing=True, why_asked=why)
        return SegmentResult(
            wanted=wanted,
            lost=True,
            suspended=run.state is State.SUSPENDED,
            why_asked=why,
            running_s=running_s,
            first_sign_s=segment.first_output_s,
        )
    asked = _asked(exit, run)
    told = asked is None and exit.exit_code == 0 and segment_files.was_told(folder)
    boxed = exit.asked == "timebox"
    hung = why_hung(folder, run) if asked is Intent.YIELD else None
    log, failed = folder / "log", asked is None and exit.exit_code != 0
    users = exit.errno is not None and start_errors.at_users_path(exit, folder)
    is_missing = (
        users and exit.errno in start_errors.PATH_ERRORS and start_errors.lacked_a_path(run, exit, folder)
    )
    if exit.signal is not None and asked is None and wanted is None and move_files.was_moving(folder):
        wanted, why = Intent.STRANDED, "its process ended while its VRAM was moved"
    return SegmentResult(
        asked=asked,
        wanted=wanted,
        why_asked=_why_boxed(folder, exit)
        if boxed
        else why or hung or (ASKED_FROM_OUTSIDE if asked is Intent.YIELD else None),
        exit_code=exit.exit_code,
        told=told,
        hung=hung is not None,
        shown_end=_shown_end(exit, folder) if told or asked in (Intent.TIMEBOX, Intent.YIELD) else None,
        signal_name=_signal_name(exit.signal),
        could_not_start=exit.could_not_start,
        passing=not is_missing and start_errors.passes(exit.errno, users),
        missing=is_missing,
        killed=exit.escalated != "none",
        last_line=failure_line(log) if failed else None,
        out_of_memory=out_of_memory(log) if failed else None,
        port_in_use=port_in_use(log) if failed else None,
        disk_full=exit.disk_full and failed,
        running_s=exit.running_s,
        boxes=exit.boxes,
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


def _why_boxed(folder: Path, exit: ExitRecord) -> str | None:  # noqa: A002
    """Return why the end of a box was the segment's, where that is more than its time."""
    decided = read_decision(folder, exit.boxes)
    return decided.why if decided is not None and decided.choice == ASK else None


def _has_begun(segment: SegmentRecord, folder: Path) -> bool:
    """Return whether anything shows that the leader was started. Raises OSError."""
    if segment.first_output_s is not None or is_there(folder / segment_files.PROCESSES):
        return True
    # The supervisor makes it just before the start, empty.
    return is_there(folder / "log") and (folder / "log").lstat().st_size > 0


def _shown_end(exit: ExitRecord, folder: Path) -> str | None:  # noqa: A002
    """Return what shows that it had finished. One that was killed may not have written its result."""
    if exit.exit_code != 0 or exit.escalated != "none":
        return None
    return final_part.shown_end(folder, segment_files.read_stop(folder) if exit.asked is not None else None)


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
