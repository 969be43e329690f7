"""What may the next segment begin from, as the disk is now, and what has to be put in order there first?

A trainer that is told no path looks for its newest checkpoint itself, and a torn one lies in its way: it is renamed,
never deleted. One that overwrites its checkpoint finds our copy in its place, if the original is torn or older.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backprop.scheduler.home.layout import Home
from backprop.scheduler.outcome import SegmentOutcome
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.spec import Plan, RunSpec
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.checkpoints import backups
from backprop.worker.checkpoints.backups import Backup, copies
from backprop.worker.checkpoints.candidate import (
    CandidateCheck,
    WriterExit,
    fault_of,
    may_be_half,
    record_of,
    step_in,
)
from backprop.worker.checkpoints.directory_scan import DirectoryScan, newest_first
from backprop.worker.checkpoints.resume import ResumeChoice, choose, known_of, picks_itself, usable
from backprop.worker.checkpoints.scanner import NEWEST
from backprop.worker.checkpoints.validation import CLOCK_GRAIN_S, CheckpointFile, measure, still_good


@dataclass(frozen=True)
class StartPoint:
    """`put_back`: a copy whose original is torn, older or gone; `set_aside`: broken ones to rename. Both before the
    segment is started, with the run's lock held."""

    resume: ResumeChoice
    put_back: Backup | None = None
    set_aside: tuple[str, ...] = ()

    @property
    def in_order(self) -> bool:
        return self.put_back is None and not self.set_aside


def known(home: Home, database: Database, run: RunRecord) -> list[CheckpointRecord]:
    """Every checkpoint of a run, newest first: on record, our copies, and where the record was lost, what is on disk.

    Bounded; reads files only for a run that is watched from outside. Raises DatabaseBusy.
    """
    saved = queries.checkpoints(database, run.id)
    if run.spec.plan is None or not run.spec.plan.globs:
        return saved
    for kept in reversed(copies(home.run_folder(run.id))):
        _insert(saved, kept.record(), next((at for at, one in enumerate(saved) if kept.is_of(one)), None))
    segments = _own(run, queries.segments(database, run.id))
    if not usable(run, saved) or any(one.outcome is SegmentOutcome.RECOVERED for one in segments):
        for record in reversed(_found_again(run, segments, home.root)):
            same = (record.path, record.mtime_ns, record.size_bytes)
            if all((one.path, one.mtime_ns, one.size_bytes) != same for one in saved):
                _insert(saved, record, None)
    return saved


def choose_start(home: Home, database: Database, run: RunRecord) -> StartPoint:
    """What the next segment begins from. Reads the files. Raises OSError when it cannot look just now, DatabaseBusy."""
    resume = choose(run, known(home, database, run))
    plan = run.spec.plan
    if plan is None or not plan.globs or resume.problem is not None:
        return StartPoint(resume)
    mine = [kept for kept in copies(home.run_folder(run.id)) if usable(run, [kept.record()])]
    back = _to_put_back(resume.checkpoint, mine)
    if back is not None:
        resume = dataclasses.replace(resume, checkpoint=back.source.path)
    segments = _own(run, queries.segments(database, run.id))
    newest_ns = back.source.mtime_ns if back is not None else _mtime_ns(resume.checkpoint)
    ours = {resume.checkpoint, *(kept.source.path for kept in mine)}
    broken = [
        (path, why)
        for path, why in _broken(plan, segments, home.root, newest_ns)
        if path not in ours and all(not told.startswith(f"{path}: ") for told in resume.passed_over)
    ]
    passed_over = (*(f"{path}: {why}" for path, why in broken), *resume.passed_over)
    aside = tuple(path for path, _ in broken) if picks_itself(run.spec) else ()
    return StartPoint(dataclasses.replace(resume, passed_over=passed_over), back, aside)


def repair(start: StartPoint, spec: RunSpec, segment: int) -> list[str]:
    """Do what `choose_start` found to be needed; what was done, in words. Touches only files. Raises OSError."""
    plan = spec.plan or Plan()
    done: list[str] = []
    for path in start.set_aside:
        why = _fault_now(path, plan)
        if why is not None:
            done.append(f"{path}: {why}; renamed {backups.set_aside(Path(path), plan.globs, segment).name}")
    if start.put_back is not None:
        aside = backups.put_back(start.put_back, plan.globs)
        was = f"; what was there is renamed {aside.name}" if aside is not None else ""
        told = f"a copy of segment {start.put_back.source.segment} is put back"
        done.append(f"{start.put_back.source.path}: {told}{was}")
    return done


def _own(run: RunRecord, segments: Sequence[SegmentRecord]) -> list[SegmentRecord]:
    """Those whose checkpoints count, see `resume.usable`."""
    since = 0 if run.resume_pin is None else run.chain_start + 1
    return [one for one in segments if one.number >= since]


def _insert(saved: list[CheckpointRecord], record: CheckpointRecord, at: int | None) -> None:
    """Right after what it is a copy of (`at`), else before all that is not newer."""
    if at is None:
        key = (record.segment, record.mtime_ns)
        older = (at for at, one in enumerate(saved) if (one.segment, one.mtime_ns) <= key)
        saved.insert(next(older, len(saved)), record)
    else:
        saved.insert(at + 1, record)


def _found_again(run: RunRecord, segments: Sequence[SegmentRecord], avoid: Path) -> list[CheckpointRecord]:
    """What segments that have ended left on disk, newest first. One not settled yet has just been looked at."""
    ended = [(one, one.ended_at_s) for one in segments if one.ended_at_s is not None]
    if not ended or run.spec.plan is None:
        return []
    plan, began_s = run.spec.plan, segments[0].started_at_s
    sweep = DirectoryScan(plan.globs, began_s, avoid)
    sweep.whole()
    judge, found = CandidateCheck(run.spec), list(newest_first(sweep.found))
    records: list[CheckpointRecord] = []
    for path, seen in found[: 4 * NEWEST]:
        saved_s = seen.mtime_ns / 1e9
        segment, ended_s = next((one for one in reversed(ended) if one[0].started_at_s <= saved_s), ended[0])
        end = WriterExit(
            ended_s, killed=segment.outcome is SegmentOutcome.LOST or segment.signal_name == "SIGKILL"
        )
        if saved_s > ended_s + CLOCK_GRAIN_S or may_be_half(seen, plan, end, found[0][1].mtime_ns / 1e9):
            continue
        if isinstance(judge.of(path, seen, began_s), CheckpointFile):
            records.append(record_of(run.id, segment, seen, step_in(path, plan.step_pattern)))
    return records[:NEWEST]


def _to_put_back(checkpoint: str | None, mine: Sequence[Backup]) -> Backup | None:
    """The copy to put in its original's place; None when the original is the one to take."""
    for kept in mine:
        if checkpoint == str(kept.path):
            return kept
        newer = kept.source.mtime_ns - _mtime_ns(checkpoint) > CLOCK_GRAIN_S * 1e9
        if checkpoint == kept.source.path and newer and still_good(known_of(kept.record())) is None:
            return kept
    return None


def _broken(
    plan: Plan, segments: Sequence[SegmentRecord], avoid: Path, newest_ns: int
) -> list[tuple[str, str]]:
    """What the run's own segments left behind that is newer than `newest_ns` and not whole, with why. What was written
    after they ended is somebody else's."""
    if not segments:
        return []
    sweep = DirectoryScan(plan.globs, segments[0].started_at_s, avoid)
    sweep.whole()
    ended_ns = ((segments[-1].ended_at_s or time.time()) + CLOCK_GRAIN_S) * 1e9
    found = [(path, int(at_s * 1e9), "it is empty") for path, at_s in sweep.hollow.items()]
    for _, seen in newest_first(sweep.found):
        if newest_ns < seen.mtime_ns <= ended_ns and (why := fault_of(seen, plan.needs)) is not None:
            found.append((str(seen.path), seen.mtime_ns, why))
    return [(path, why) for path, at_ns, why in found if newest_ns < at_ns <= ended_ns]


def _fault_now(path: str, plan: Plan) -> str | None:
    """Looked at again: it may have been finished since, or be gone. Raises OSError."""
    try:
        seen = measure(Path(path))
    except FileNotFoundError:
        return None
    return fault_of(seen, plan.needs) if isinstance(seen, CheckpointFile) else seen


def _mtime_ns(checkpoint: str | None) -> int:
    """0 for none, and for one that is gone."""
    try:
        seen = measure(Path(os.path.realpath(checkpoint))) if checkpoint is not None else None
    except OSError:
        return 0
    return seen.mtime_ns if isinstance(seen, CheckpointFile) else 0
