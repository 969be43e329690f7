"""Manages the checkpoints that scripts do not announce, for all runs of a worker.

Scans the files of live segments, has backups made of what is overwritten in place, and has files repaired before a
start. The long file work is done by background jobs.
"""

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec

from backprop.scheduler.home import run_folder
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.reads.company import DOUBT, written_in
from backprop.scheduler.store.writes import progress
from backprop.worker.checkpoints import backups, repair
from backprop.worker.checkpoints.background import BackgroundJob, BackgroundJobs, JobStopped
from backprop.worker.checkpoints.backups import Backup, BackupRefused
from backprop.worker.checkpoints.fingerprint import Contents, contents
from backprop.worker.checkpoints.glob_walk import fixed_folder
from backprop.worker.checkpoints.resume import StartPoint
from backprop.worker.checkpoints.scanner import CheckpointScanner, ScannedCheckpoint
from backprop.worker.checkpoints.seen.attribution import RunIds, doubt
from backprop.worker.checkpoints.seen.company import Company, company_of
from backprop.worker.checkpoints.seen.finder import Finder
from backprop.worker.checkpoints.seen.looks_like import may_be_checkpoint
from backprop.worker.checkpoints.seen.places import saving_variables
from backprop.worker.checkpoints.seen.witness import Witness
from backprop.worker.checkpoints.validation import CheckpointFile
from backprop.worker.context import Context

PATIENCE_S: Final = 10.0
"""For a backup that is under way when the worker ends."""
RETRY_REPAIR_S: Final = 30.0
RECENT_S: Final = 60.0
LATELY_S: Final = 2.0
PASSING: Final = (errno.ENOSPC, errno.EDQUOT, errno.ETXTBSY, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""A full disk, a process that still writes: retried later."""


@dataclass(frozen=True)
class _Repair:
    """A repair that has ended. `segment`: the run's last one by then. `at_s`: monotonic seconds."""

    segment: int
    error: OSError | RuntimeError | None
    at_s: float

    @property
    def may_pass(self) -> bool:
        return isinstance(self.error, OSError) and self.error.errno in PASSING


class CheckpointManager:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._witness = Witness(
            lambda run_id, number: context.executor.pids(run_id, number), context.home.root
        )
        self._began_s: dict[tuple[str, int], float] = {}
        self._doubts: dict[tuple[str, str], int] = {}
        self._jobs = BackgroundJobs()
        self._copying: set[tuple[str, str]] = set()
        self._refusals: dict[str, str] = {}
        self._repairing: set[str] = set()
        self._repaired: dict[str, _Repair] = {}

    def follow(self, live: Iterable[RunRecord]) -> None:
        """Say which runs are live, of any worker, once per tick. Raises DatabaseBusy."""
        keys = {(run.id, run.segment) for run in live}
        if not keys <= self._began_s.keys():
            _, alive = queries.live_segments(self._context.database)
            self._began_s |= {(each.run_id, each.number): each.started_at_s for each in alive}
        self._began_s = {key: began_s for key, began_s in self._began_s.items() if key in keys}
        self._witness.follow((*key, began_s) for key, began_s in self._began_s.items())

    def scanner(self, run: RunRecord, segment: SegmentRecord) -> CheckpointScanner:
        """Return a scanner of the files that a live segment may save."""
        context = self._context
        recorded = queries.checkpoints(context.database, run.id)
        finder = Finder(
            run.spec,
            partial(_environment, context.home.run_folder(run.id)),
            segment.started_at_s,
            context.home.root,
            partial(self._folders_in_use, run.id, segment.number),
        )
        return CheckpointScanner(
            run,
            segment,
            avoid=context.home.root,
            recorded=recorded,
            pids=partial(context.executor.pids, run.id, segment.number),
            resumed=partial(self._resumed, run, segment),
            finder=None if _known_to_save(recorded) else finder,
            witness=self._witness,
        )

    def attribute(
        self,
        run: RunRecord,
        scanner: CheckpointScanner,
        scanned: Sequence[ScannedCheckpoint],
        report: progress.SegmentReport | None,
    ) -> tuple[list[ScannedCheckpoint], progress.SegmentReport | None]:
        """Return what of the scanned ones is to be recorded, each with how it is known to be this run's own, or why it
        is refused; and the report with them. What another run wrote is left out. Raises DatabaseBusy."""
        if report is None or not (scanned or report.checkpoints):
            return [], report
        known = [self._announced(run, record) for record in report.checkpoints]
        own, spotted = list[ScannedCheckpoint](), list[CheckpointRecord]()
        for each, noted in zip(self._attribute(run, scanner, scanned), report.spotted, strict=True):
            if each is not None:
                own.append(each)
                spotted.append(msgspec.structs.replace(each.record, seen_step=noted.seen_step))
        shared = [
            (other, record.path, _not_alone([run.id]))
            for record, others in [*known, *((each.record, each.shared_with) for each in own)]
            for other in sorted(others)
        ]
        self._back_up(run, [record for record, others in known if others])
        announced = [record for record, _ in known]
        return own, replace(report, checkpoints=announced, spotted=spotted, shared=shared)

    def _announced(self, run: RunRecord, record: CheckpointRecord) -> tuple[CheckpointRecord, RunIds]:
        """Return an announced checkpoint, refused if others that are not final wrote the same file, and these."""
        if record.refused is not None:
            return record, frozenset()
        there = written_in(self._context.database, {os.path.dirname(record.path)})  # noqa: PTH120
        others = frozenset(
            each.run_id
            for each in there
            if each.path == record.path and each.run_id != run.id and not each.is_final
        )
        return msgspec.structs.replace(record, refused=_not_alone(others) if others else None), others

    def _attribute(
        self, run: RunRecord, scanner: CheckpointScanner, scanned: Sequence[ScannedCheckpoint]
    ) -> list[ScannedCheckpoint | None]:
        if not scanned:
            return []
        context = self._context
        if _known_to_save(queries.checkpoints(context.database, run.id)):
            scanner.search_no_further()
        named = any(not each.record.observed and each.record.refused is None for each in scanned)
        company = company_of(
            context.database,
            min(each.seen.from_s for each in scanned),
            max(each.seen.to_s for each in scanned),
            {os.path.dirname(each.record.path) for each in scanned},  # noqa: PTH120
        )
        return [
            self._attributed(run, each, company) if not (each.record.observed and named) else None
            for each in scanned
        ]

    def scanned(self, run: RunRecord, scanner: CheckpointScanner, found: Sequence[ScannedCheckpoint]) -> None:
        """Have backups made of what a scan has found and is overwritten in place; say when it was cut short."""
        if scanner.cut_short and run.spec.plan is not None:
            patterns = " ".join(run.spec.plan.globs)
            self._context.console.event("trouble", run, f"too many files to scan all of them: {patterns}")
        self._back_up(run, [each.record for each in found if each.in_place and _counts(each)])

    def is_writing(self, run: RunRecord) -> bool:
        """Return whether a process of a live segment has a file open that may become a checkpoint."""
        lately = self._witness.opened(run.id, time.time() - LATELY_S)
        return any(may_be_checkpoint(*_name_and_folder(each.path)) for each in lately)

    def is_copying(self, run: RunRecord) -> bool:
        """Return whether a copy of one of its checkpoints is being made."""
        return any(run_id == run.id for run_id, _ in self._copying)

    def report(self) -> None:
        """Report the results of the background jobs, once per tick."""
        self._jobs.report()

    def completed(self, run: RunRecord) -> None:
        """Delete the backups of a run that will not be resumed."""
        folder = self._context.home.run_folder(run.id)
        if (folder / "kept").is_dir():
            self._send(run, "drop", lambda _: backups.drop(folder), lambda _: None)

    def why_not_yet(self, run: RunRecord) -> str | None:
        """Return why a run waits for its files; None when it may start from them."""
        if run.id in self._repairing:
            return "its checkpoint is being repaired"
        last = self._last_repair(run)
        if last is None or not last.may_pass:
            return None
        if self._context.clock.monotonic_s() - last.at_s > RETRY_REPAIR_S:
            del self._repaired[run.id]
            return None
        return f"its checkpoint cannot be repaired: {last.error}"

    def why_never(self, run: RunRecord, start: StartPoint) -> str | None:
        """Return why a repair of its files is of no use. Said once: the next call allows another repair."""
        last = self._last_repair(run)
        if last is None or not start.needs_repair:
            return None
        del self._repaired[run.id]
        if start.shared and last.error is None:
            return None
        what = last.error or "it was repaired, and is broken again"
        return f"its checkpoint cannot be repaired: {what}; look at {start.checkpoint or start.set_aside[0]}"

    @property
    def repairing(self) -> frozenset[str]:
        """The runs whose files are being repaired."""
        return frozenset(self._repairing)

    def repair(self, run: RunRecord, start: StartPoint, lock: int) -> None:
        """Repair the run's files in the background. Closes `lock` when done: nobody may start the run meanwhile."""

        def work(_: object) -> tuple[str, ...]:
            try:
                return tuple(repair.repair(start, run.spec, run.segment))
            finally:
                os.close(lock)

        self._repairing.add(run.id)
        self._send(run, "repair", work, partial(self._repair_done, run))

    def close(self) -> None:
        self._jobs.close(PATIENCE_S)

    def _last_repair(self, run: RunRecord) -> _Repair | None:
        """Return the last repair since the run's last segment."""
        last = self._repaired.get(run.id)
        return last if last is not None and last.segment == run.segment else None

    def _resumed(self, run: RunRecord, segment: SegmentRecord) -> Contents | None:
        """Return what a segment began with; of a file that it has overwritten already, from the backup."""
        used = segment.checkpoint_used
        if used is None:
            return None
        original = contents(Path(used), segment.started_at_s)
        if original is not None:
            return original
        for backup in backups.backups_of(self._context.home.run_folder(run.id)):
            if backup.source.path == used and backup.source.segment < segment.number:
                return contents(backup.path)
        return None

    def _attributed(
        self, run: RunRecord, scanned: ScannedCheckpoint, company: Company
    ) -> ScannedCheckpoint | None:
        record = scanned.record
        if record.refused is not None:
            return scanned
        file = CheckpointFile.of(record)
        found = company.writer_of(scanned.path, file, scanned.seen, named=not record.observed)
        if found.writer == run.id and not found.shared_with:
            return replace(scanned, record=msgspec.structs.replace(record, attribution=found.how))
        if found.writer == run.id:
            why = _not_alone(found.shared_with)
            return replace(
                scanned,
                record=msgspec.structs.replace(record, attribution=found.how, refused=why),
                in_place=True,
                shared_with=found.shared_with,
            )
        if found.writer is not None or run.id not in found.suspects:
            return None
        why = doubt(found.suspects)
        key = (run.id, record.path)
        if self._doubts.get(key) == run.segment:
            return None
        self._doubts[key] = run.segment
        return replace(
            scanned, record=msgspec.structs.replace(record, refused=why, attribution=DOUBT), in_place=False
        )

    def places(self, run: RunRecord) -> list[str]:
        """Return where the processes of a live segment are at work, and which folders its environment names for its
        saves. Reads files of the home."""
        environment = _environment(self._context.home.run_folder(run.id))
        named = (os.path.join(run.spec.cwd, value) for _, value in saving_variables(environment) if value)  # noqa: PTH118
        return [*self._witness.folders((run.id, run.segment)), *named]

    def _folders_in_use(self, run_id: str, number: int) -> list[str]:
        """Return the current directories of a segment's processes, and where they lately had a file open that may be
        a checkpoint."""
        opened = [each.path for each in self._witness.opened(run_id, time.time() - RECENT_S)]
        saving = [path for path in opened if may_be_checkpoint(*_name_and_folder(path))]
        return [*self._witness.folders((run_id, number)), *(path.rpartition("/")[0] for path in saving)]

    def _back_up(self, run: RunRecord, own: Sequence[CheckpointRecord]) -> None:
        folder, floor_mib = self._context.home.run_folder(run.id), self._context.settings.min_free_disk_mib
        for record in (msgspec.structs.replace(each, refused=None) for each in own):
            if any(backup.holds(record) for backup in backups.backups_of(folder)):
                continue
            self._copying.add((run.id, record.path))
            work = partial(backups.back_up, folder, record, floor_mib)
            self._send(run, record.path, work, partial(self._back_up_done, run, record.path))

    def _send(
        self, run: RunRecord, what: str, work: Callable[[JobStopped], object], done: Callable[[object], None]
    ) -> None:
        globs = run.spec.plan.globs if run.spec.plan is not None else ()
        place = self._context.files.share_of(run.spec.cwd) or str(fixed_folder(globs[0]) if globs else "")
        self._jobs.send(BackgroundJob((run.id, what), work, done, place))

    def _back_up_done(self, run: RunRecord, path: str, result: object) -> None:
        self._copying.discard((run.id, path))
        console = self._context.console
        if isinstance(result, Backup):
            self._refusals.pop(run.id, None)
            console.debug("backup", run, f"of {result.source.path}")
            return
        retry = isinstance(result, BackupRefused) and result.retry
        why = result.why if isinstance(result, BackupRefused) else str(result)
        if retry or self._refusals.get(run.id) == why:
            console.debug("no backup", run, why)
        else:
            self._refusals[run.id] = why
            console.event("no backup", run, f"of a checkpoint that is saved in place: {why}")

    def _repair_done(self, run: RunRecord, result: object) -> None:
        self._repairing.discard(run.id)
        error = result if isinstance(result, (OSError, RuntimeError)) else None
        self._repaired[run.id] = _Repair(run.segment, error, self._context.clock.monotonic_s())
        if isinstance(result, tuple):
            for line in cast("tuple[str, ...]", result):
                self._context.console.event("repaired", run, f"checkpoint {line}")
        if error is not None:
            self._context.console.event("trouble", run, f"a checkpoint cannot be repaired: {error}")


def _known_to_save(recorded: Iterable[CheckpointRecord]) -> bool:
    """Return whether a run announces its saves, or its plan names them: then nothing else is its checkpoint."""
    return any(each.refused is None and not each.observed for each in recorded)


def _name_and_folder(path: str) -> tuple[str, str]:
    """Return the name that a file will have once it is complete, and that of its folder."""
    folder, _, name = path.rpartition("/")
    return name.removesuffix(".tmp").removesuffix(".part").removesuffix("~"), folder.rpartition("/")[2]


def _not_alone(others: Collection[str]) -> str:
    return f"{' and '.join(sorted(others))} writes it too, so only copies that were kept of it in time count"


def _counts(scanned: ScannedCheckpoint) -> bool:
    return scanned.record.refused is None or bool(scanned.shared_with)


def _environment(folder: Path) -> Mapping[str, str]:
    try:
        return run_folder.read_environment(folder)
    except OSError:
        return {}
