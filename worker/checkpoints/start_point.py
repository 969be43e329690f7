"""Finds every checkpoint of a run and decides what its next segment begins from, and what must be repaired first.

A trainer that is told no path looks for its newest checkpoint itself, and would take a torn one: that is to be renamed,
never deleted. One that overwrites its checkpoint gets our backup in its place, if the original is torn or older. Only
reads; `repair` does what is decided here.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from backprop.scheduler.home.layout import Home
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.spec import Plan
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.checkpoints.backups import Backup, backups_of
from backprop.worker.checkpoints.candidate import (
    CandidateCheck,
    WriterExit,
    fault_of,
    may_be_unfinished,
    record_of,
    step_in,
)
from backprop.worker.checkpoints.content.torch_file import content_at
from backprop.worker.checkpoints.directory_scan import DirectoryScan, newest_first
from backprop.worker.checkpoints.glob_walk import fixed_folder
from backprop.worker.checkpoints.resume import StartPoint, choose, first_segment, picks_itself, usable
from backprop.worker.checkpoints.scanner import MAX_REPORTED
from backprop.worker.checkpoints.seen.baseline import CLOCK_GRAIN_S, Beginning, beginning_of
from backprop.worker.checkpoints.seen.company import Company, company_of
from backprop.worker.checkpoints.seen.evidence import seen_of
from backprop.worker.checkpoints.suspects import holds_suspect, without_suspects
from backprop.worker.checkpoints.validation import CheckpointFile, measure, still_good
from backprop.worker.environment.presence import empty_mount_point, noted_mounts


class RunRows(msgspec.Struct, frozen=True):
    """What the database knows of a run's past: its checkpoints, newest first, its segments, and the runs that lived
    beside them."""

    saved: Sequence[CheckpointRecord]
    segments: Sequence[SegmentRecord]
    company: Company = Company()


def rows_of(database: Database, run: RunRecord) -> RunRows:
    """Read them before the files, which take another thread. Raises DatabaseBusy."""
    saved, segments = queries.checkpoints(database, run.id), queries.segments(database, run.id)
    globs = run.spec.plan.globs if run.spec.plan is not None else ()
    if not globs or not segments:
        return RunRows(saved, segments)
    folders = {str(fixed_folder(pattern)) for pattern in globs}
    return RunRows(saved, segments, company_of(database, segments[0].started_at_s, time.time(), folders))


def checkpoints_of(home: Home, run: RunRecord, rows: RunRows) -> list[CheckpointRecord]:
    """Return every checkpoint of a run, newest first: on record, our backups, and those on disk whose record was lost.

    Bounded; reads files only for a run whose checkpoints are scanned for.
    """
    saved = without_suspects(rows.saved)
    for backup in reversed(_backups(home, run, rows)):
        original = next((at for at, record in enumerate(saved) if backup.holds(record)), None)
        _insert(saved, backup.record(), original)
    if run.spec.plan is None or not run.spec.plan.globs:
        return saved
    segments = _counting(run, rows.segments)
    lost_last = bool(segments) and segments[-1].outcome is SegmentOutcome.LOST
    recovered = any(segment.outcome is SegmentOutcome.RECOVERED for segment in segments)
    # The last look for what a lost segment had saved may have been made while its disk was away.
    if not usable(run, saved) or lost_last or recovered:
        for record in reversed(_rediscovered(home, run, segments, rows.company)):
            content = (record.path, record.mtime_ns, record.size_bytes)
            if all((known.path, known.mtime_ns, known.size_bytes) != content for known in saved):
                _insert(saved, record, None)
    return saved


def choose_start(home: Home, run: RunRecord, rows: RunRows) -> StartPoint:
    """Decide what the next segment begins from. Reads the files.

    Raises OSError when out of resources or when a file cannot be reached just now.
    """
    mounts = noted_mounts(home.run_folder(run.id))
    if (disk := empty_mount_point(run.spec.cwd, mounts)) is not None:
        return StartPoint(waits_for=disk)
    start = choose(run, checkpoints_of(home, run, rows), mounts)
    if start.problem is not None or start.waits_for is not None:
        return start
    backups = [backup for backup in _backups(home, run, rows) if usable(run, [backup.record()])]
    restore = _to_restore(start.checkpoint, backups, rows.saved)
    shared = restore is not None and any(
        record.path == restore.source.path and record.refused is not None and record.attribution is not None
        for record in rows.saved
    )
    if restore is not None and shared and not picks_itself(run.spec):
        # The original may be the other run's by now, and the script can be told of the copy.
        return msgspec.structs.replace(start, checkpoint=str(restore.path), shared=True)
    checkpoint = restore.source.path if restore is not None else start.checkpoint
    newest_ns = restore.source.mtime_ns if restore is not None else _mtime_ns(checkpoint)
    segments = _counting(run, rows.segments)
    accounted_for = {checkpoint, *(backup.source.path for backup in backups)}
    broken = [
        (path, why)
        for path, why in _broken(home, run, segments, newest_ns, rows.company)
        if path not in accounted_for and all(not line.startswith(f"{path}: ") for line in start.passed_over)
    ]
    return msgspec.structs.replace(
        start,
        checkpoint=checkpoint,
        passed_over=(*(f"{path}: {why}" for path, why in broken), *start.passed_over),
        restore=restore,
        shared=shared,
        set_aside=tuple(path for path, _ in broken) if picks_itself(run.spec) else (),
    )


def start_of(home: Home, run: RunRecord, rows: RunRows) -> StartPoint:
    """Decide the same, and tell what its checkpoint holds. Reads the files. Raises OSError."""
    start = choose_start(home, run, rows)
    # What the user named by `--resume` may be anybody's file.
    is_own = start.restore is not None or any(record.path == start.checkpoint for record in rows.saved)
    path = start.restore.path if start.restore is not None else Path(start.checkpoint or os.devnull)
    content = content_at(path) if is_own and path.is_file() else None
    return msgspec.structs.replace(start, holds_objects=content is not None and content.holds_objects)


def _backups(home: Home, run: RunRecord, rows: RunRows) -> list[Backup]:
    """Return the run's backups but those of suspects, newest first."""
    return [each for each in backups_of(home.run_folder(run.id)) if not holds_suspect(each, rows.saved)]


def _counting(run: RunRecord, segments: Sequence[SegmentRecord]) -> list[SegmentRecord]:
    """Return the segments whose checkpoints count."""
    since = first_segment(run)
    return [segment for segment in segments if segment.number >= since]


def _insert(saved: list[CheckpointRecord], record: CheckpointRecord, original: int | None) -> None:
    """Insert a backup right after its original's index, else `record` before all that is not newer."""
    if original is None:
        key = (record.segment, record.mtime_ns)
        older = (at for at, known in enumerate(saved) if (known.segment, known.mtime_ns) <= key)
        saved.insert(next(older, len(saved)), record)
    else:
        saved.insert(original + 1, record)


def _rediscovered(
    home: Home, run: RunRecord, segments: Sequence[SegmentRecord], company: Company
) -> list[CheckpointRecord]:
    """Return what ended segments left on disk, newest first. The final scan of one not finalized yet was just done."""
    ended = [(segment, segment.ended_at_s) for segment in segments if segment.ended_at_s is not None]
    if not ended or run.spec.plan is None:
        return []
    plan, began = run.spec.plan, [_beginning(home, segment) for segment, _ in ended]
    scan = DirectoryScan(plan.globs, began[0], home.root)
    scan.finish()
    candidates, files = CandidateCheck(run.spec), list(newest_first(scan.files))
    records: list[CheckpointRecord] = []
    for path, file in files[: 4 * MAX_REPORTED]:
        saved_s = file.mtime_ns / 1e9
        segment, ended_s = next(
            (each for each, its in reversed([*zip(ended, began, strict=True)]) if _is_new(file, its)),
            ended[0],
        )
        end = WriterExit(
            ended_s, killed=segment.outcome is SegmentOutcome.LOST or segment.signal_name == "SIGKILL"
        )
        newest_s = files[0][1].mtime_ns / 1e9
        if saved_s > ended_s + CLOCK_GRAIN_S or may_be_unfinished(file, plan, end, newest_s):
            continue
        if not _may_be_its_own(run.id, path, file, company):
            continue
        if isinstance(candidates.check(path, file, began[0]), CheckpointFile):
            records.append(record_of(run.id, segment, file, step_in(path, plan.step_pattern)))
    return records[:MAX_REPORTED]


def _beginning(home: Home, segment: SegmentRecord) -> Beginning:
    return beginning_of(home.segment_folder(segment.run_id, segment.number), segment.started_at_s)


def _is_new(file: CheckpointFile, began: Beginning) -> bool:
    try:
        return not began.is_all_old(str(file.path))
    except OSError:
        return False


def _may_be_its_own(run_id: str, path: str, file: CheckpointFile, company: Company) -> bool:
    """Return False for what another run wrote, or may have written."""
    found = company.writer_of(path, file, seen_of(None, file, None, False), named=True)
    return found.writer == run_id or (found.writer is None and not found.suspects)


def _to_restore(
    checkpoint: str | None, backups: Sequence[Backup], saved: Sequence[CheckpointRecord]
) -> Backup | None:
    """Return the backup to put in its original's place; None when the original is the one to take."""
    last = next((record for record in saved if record.path == checkpoint), None)
    is_last = last is not None and last.mtime_ns == _mtime_ns(checkpoint)
    for backup in backups:
        if checkpoint == str(backup.path):
            return backup
        newer = backup.source.mtime_ns - _mtime_ns(checkpoint) > CLOCK_GRAIN_S * 1e9
        original = checkpoint == backup.source.path
        # What was saved last looks older where the clock was set back.
        if original and newer and not is_last and still_good(CheckpointFile.of(backup.record())) is None:
            return backup
    return None


def _broken(
    home: Home, run: RunRecord, segments: Sequence[SegmentRecord], newest_ns: int, company: Company
) -> list[tuple[str, str]]:
    """Return what the run's segments left that is newer than `newest_ns` and not whole, each with why.

    What was written after they ended belongs to somebody else.
    """
    plan = run.spec.plan or Plan()
    if not segments or not plan.globs:
        return []
    scan = DirectoryScan(plan.globs, _beginning(home, segments[0]), home.root)
    scan.finish()
    ended_ns = ((segments[-1].ended_at_s or time.time()) + CLOCK_GRAIN_S) * 1e9
    broken = [(path, int(at_s * 1e9), "it is empty") for path, at_s in scan.empty.items()]
    for path, file in newest_first(scan.files):
        is_newer = newest_ns < file.mtime_ns <= ended_ns and _may_be_its_own(run.id, path, file, company)
        if is_newer and (why := fault_of(file, plan.needs)) is not None:
            broken.append((str(file.path), file.mtime_ns, why))
    return [(path, why) for path, at_ns, why in broken if newest_ns < at_ns <= ended_ns]


def _mtime_ns(checkpoint: str | None) -> int:
    """Return 0 for none, and for one that is gone."""
    try:
        file = measure(Path(os.path.realpath(checkpoint))) if checkpoint is not None else None
    except OSError:
        return 0
    return file.mtime_ns if isinstance(file, CheckpointFile) else 0
