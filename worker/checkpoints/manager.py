"""Manages the checkpoints that scripts do not announce, for all runs of a worker.

Scans the files of live segments, has backups made of what is overwritten in place, and has files repaired before a
start. The long file work is done by background jobs.
"""

import errno
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec

from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.worker.checkpoints import backups, repair
from backprop.worker.checkpoints.background import BackgroundJob, BackgroundJobs, JobStopped
from backprop.worker.checkpoints.backups import Backup, BackupRefused
from backprop.worker.checkpoints.fingerprint import Contents, contents
from backprop.worker.checkpoints.glob_walk import fixed_folder
from backprop.worker.checkpoints.resume import StartPoint
from backprop.worker.checkpoints.rotation.rotator import Rotator
from backprop.worker.checkpoints.scanner import CheckpointScanner, ScannedCheckpoint
from backprop.worker.checkpoints.seen.overseer import Attributed, Overseer
from backprop.worker.context import Context

PATIENCE_S: Final = 10.0
"""For a backup that is under way when the worker ends."""
RETRY_REPAIR_S: Final = 30.0
PASSING: Final = (errno.ENOSPC, errno.EDQUOT, errno.ETXTBSY, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""A full disk, a process that still writes: retried later."""


class _Repair(msgspec.Struct, frozen=True):
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
        self.overseer = Overseer(context)
        self._jobs = BackgroundJobs()
        self._copying: set[tuple[str, str]] = set()
        self._refusals: dict[str, str] = {}
        self._repairing: set[str] = set()
        self._repaired: dict[str, _Repair] = {}
        self._rotator = Rotator(context, self._send)

    def scanner(self, run: RunRecord, segment: SegmentRecord) -> CheckpointScanner:
        """Return a scanner of the files that a live segment may save."""
        context = self._context
        recorded = queries.checkpoints(context.database, run.id)
        return CheckpointScanner(
            run,
            segment,
            avoid=context.home.root,
            recorded=recorded,
            pids=partial(context.executor.pids, run.id, segment.number),
            resumed=partial(self._resumed, run, segment),
            finder=self.overseer.finder(run, segment, recorded),
            began=partial(self.overseer.beginning, segment),
            witness=self.overseer.witness,
        )

    def scanned(self, run: RunRecord, scanner: CheckpointScanner, found: Attributed) -> None:
        """Have backups made of what is overwritten in place; say when a scan was cut short."""
        if scanner.cut_short and run.spec.plan is not None:
            patterns = " ".join(run.spec.plan.globs)
            self._context.console.event("trouble", run, f"too many files to scan all of them: {patterns}")
        own = [each.record for each in found.own if each.in_place and _counts(each)]
        self._back_up(run, [*found.copied, *own])

    def is_copying(self, run: RunRecord) -> bool:
        """Return whether a copy of one of its checkpoints is being made."""
        return any(run_id == run.id for run_id, _ in self._copying)

    def report(self) -> None:
        """Report the results of the background jobs, once per tick. Raises DatabaseBusy."""
        self._jobs.report()
        self._rotator.step()

    def rotate(self, run: RunRecord) -> None:
        """Have older checkpoints removed, where the run's user wants that. Raises DatabaseBusy."""
        self._rotator.saved(run)

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
        began = self.overseer.beginning(segment)
        original = contents(Path(used), lambda info: began.is_old(used, info))
        if original is not None:
            return original
        for backup in backups.backups_of(self._context.home.run_folder(run.id)):
            if backup.source.path == used and backup.source.segment < segment.number:
                return contents(backup.path)
        return None

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


def _counts(scanned: ScannedCheckpoint) -> bool:
    return scanned.record.refused is None or bool(scanned.shared_with)
