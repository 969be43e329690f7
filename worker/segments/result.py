"""Gathers how a segment ended and what its chain had done by then: the facts for `scheduler.outcome.next_move`."""

import errno
import os
import signal
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from backprop.scheduler.home.file_reading import is_there
from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.records import LOG, CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.reads.company import DOUBT
from backprop.worker.checkpoints.fallback import fallen_back
from backprop.worker.checkpoints.resume import can_hand_back, first_segment, initial_checkpoint, usable
from backprop.worker.checkpoints.validation import newest_good
from backprop.worker.environment.presence import (
    checkpoint_away,
    empty_mount_point,
    missing,
    missing_interpreter,
)
from backprop.worker.executor import segment_files
from backprop.worker.executor.box_files import ASK, read_decision
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.executor.vram import move_files
from backprop.worker.segments import final_part
from backprop.worker.segments.gpu_oom import out_of_memory
from backprop.worker.segments.hang.note import why_hung
from backprop.worker.segments.port_in_use import port_in_use
from backprop.worker.segments.tail import failure_line
from backprop.worker.segments.timebox import landed_s

ASKED_FROM_OUTSIDE = "its supervisor was told to end it"
PASSING_ERRORS = frozenset(
    {
        errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ETXTBSY,
        errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EREMOTEIO,
    }
)  # fmt: skip
"""Errors of a start that are the machine's: no process, memory, descriptor or disk is available just now, or a disk or
share is in trouble."""
OWN_FILE_ERRORS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO})
"""Errors of a start at a file of ours that do not pass: somebody removed it, or put something else in its place."""
NEVER_BEGAN = "its supervisor was gone before its command began"
PATH_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EACCES)
"""Errors of a start whose directory or program may have gone between the last look and the start."""


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
    users = exit.errno is not None and _at_users_path(exit, folder)
    is_missing = users and exit.errno in PATH_ERRORS and _lacked_a_path(run, exit, folder)
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
        passing=not is_missing and passes(exit.errno, users),
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


def passes(number: int | None, users: bool) -> bool:
    """Return whether the error of a start is the machine's. `users`: it was met at the user's directory or program."""
    if number is None or number in PASSING_ERRORS:
        return number is not None
    return not users and number not in OWN_FILE_ERRORS


def _at_users_path(exit: ExitRecord, folder: Path) -> bool:  # noqa: A002
    """Return whether a start failed at the run's directory or program, rather than at a file of ours; True where the
    order is lost, which would tell."""
    order = segment_files.read_order(folder)
    return order is None or (exit.path is not None and exit.path in (order.cwd, order.program))


def _lacked_a_path(run: RunRecord, exit: ExitRecord, folder: Path) -> bool:  # noqa: A002
    """Return whether a start failed for a path that is away, or was. `exit`: it failed at the user's directory or
    program. One that is there and may not be entered or executed is the run's own fault."""
    if exit.path is None:
        return False
    is_away = missing("its directory", exit.path) is not None or missing_interpreter(exit.path) is not None
    return is_away or (exit.errno != errno.EACCES and not _failed_so_before(run, folder))


def _failed_so_before(run: RunRecord, folder: Path) -> bool:
    """Return whether the start before failed for a path too: what is there and is not found twice lacks something else,
    such as the loader of a foreign program."""
    before = segment_files.read_exit(folder.with_name(str(run.segment - 1)))
    return before is not None and before.path is not None


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


def _has_reported(run: RunRecord) -> bool:
    return run.last_step is not None or run.last_loss is not None


def begun_in_chain(run: RunRecord, number: int, earlier: Sequence[SegmentRecord]) -> int:
    """Return how many timeboxes the chain has begun with the start of segment `number`, without those of segments that
    could not be started."""
    before = (one for one in earlier if run.chain_start < one.number < number)
    more = sum(-1 if one.outcome is SegmentOutcome.NOT_STARTED else one.boxes - 1 for one in before)
    return number - run.chain_start + more


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
