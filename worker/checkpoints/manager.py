"""Checkpoints that nobody announces: what a worker does about them, for all its runs.

Looks at live segments' files (`spot`), has copies made of what is overwritten (`keep`) and puts in order what a broken
checkpoint would spoil (`mend`). The long file work is done by `errands`.
"""

import errno
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, cast

from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.worker.background import BackgroundJob, BackgroundJobs
from backprop.worker.checkpoints import backups
from backprop.worker.checkpoints import repair as mend
from backprop.worker.checkpoints.backups import Backup, BackupRefused
from backprop.worker.checkpoints.candidate import writer_exit
from backprop.worker.checkpoints.fingerprint import Contents, contents
from backprop.worker.checkpoints.repair import StartPoint
from backprop.worker.checkpoints.scanner import CheckpointScanner, ScannedCheckpoint
from backprop.worker.context import Context
from backprop.worker.executor.base import ExitRecord

PATIENCE_S: Final = 10.0
"""For a copy that is under way when the worker ends."""
MEND_AGAIN_S: Final = 30.0
PASSING: Final = (errno.ENOSPC, errno.EDQUOT, errno.ETXTBSY, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class CheckpointManager:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._errands = BackgroundJobs()
        self._not_kept: dict[str, str] = {}
        self._mending: dict[str, int] = {}
        self._mended: dict[str, tuple[int, OSError | RuntimeError | None, float]] = {}

    def look(
        self, run: RunRecord, scanner: CheckpointScanner, hurry: bool = False
    ) -> Sequence[CheckpointRecord]:
        """What a live segment has saved since the last look. `hurry`: a save heard of late would cost work."""
        return self._taken(run, scanner.look(hurry=hurry))

    def last_look(
        self,
        run: RunRecord,
        scanner: CheckpointScanner,
        exit: ExitRecord | None,  # noqa: A002
    ) -> Sequence[CheckpointRecord]:
        """The same once nothing of it lives."""
        found = scanner.last_look(writer_exit(exit))
        if scanner.cut_short and run.spec.plan is not None:
            self._context.console.event(
                "trouble", run, f"too many files to look at all of them: {' '.join(run.spec.plan.globs)}"
            )
        return self._taken(run, found)

    def report(self) -> None:
        """Once a tick: say what the long file work has come to."""
        self._errands.report()

    def completed(self, run: RunRecord) -> None:
        """Nothing of it will be resumed from a copy."""
        folder = self._context.home.run_folder(run.id)
        if (folder / "kept").is_dir():
            self._errands.send(
                BackgroundJob((run.id, "drop"), lambda _: backups.drop(folder), lambda _: None)
            )

    def why_not_yet(self, run: RunRecord) -> str | None:
        """Why a run waits for its files; None when they may be looked at."""
        if run.id in self._mending:
            return "its checkpoint is put in order"
        segment, error, at_s = self._mended.get(run.id, (-1, None, 0.0))
        if segment != run.segment or not _passing(error):
            return None
        if self._context.clock.monotonic_s() - at_s > MEND_AGAIN_S:
            del self._mended[run.id]
            return None
        return f"its checkpoint cannot be put in order: {error}"

    def why_never(self, run: RunRecord, start: StartPoint) -> str | None:
        """Why its files cannot be put in order at all; said once, then it may be tried again."""
        segment, error, _ = self._mended.get(run.id, (-1, None, 0.0))
        if segment != run.segment or start.in_order:
            return None
        del self._mended[run.id]
        what = error or "it was put in order, and is broken again"
        return f"its checkpoint cannot be put in order: {what}; look at {start.resume.checkpoint or start.set_aside[0]}"

    def mend(self, run: RunRecord, start: StartPoint, lock: int) -> None:
        """Put the run's files in order. Keeps its lock until that is done: nobody may start it meanwhile."""

        def work(_: object) -> tuple[str, ...]:
            try:
                return tuple(mend.repair(start, run.spec, run.segment))
            finally:
                os.close(lock)

        self._mending[run.id] = run.segment
        self._errands.send(BackgroundJob((run.id, "mend"), work, partial(self._mend_done, run)))

    def close(self) -> None:
        self._errands.close(PATIENCE_S)

    def scanner(self, run: RunRecord, segment: SegmentRecord) -> CheckpointScanner | None:
        """Return a scanner of the files that a live segment may save; None when its plan names none."""
        if run.spec.plan is None or not run.spec.plan.globs:
            return None
        return CheckpointScanner(
            run,
            segment,
            avoid=self._context.home.root,
            known=queries.checkpoints(self._context.database, run.id),
            pids=partial(self._context.executor.pids, run.id, segment.number),
            resumed=self._resumed(run, segment),
        )

    def _resumed(self, run: RunRecord, segment: SegmentRecord) -> Contents | None:
        """What a segment began with; of a file that it has written already, from the copy."""
        used = segment.checkpoint_used
        if used is None:
            return None
        copies = backups.copies(self._context.home.run_folder(run.id))
        earlier = (one for one in copies if one.source.path == used and one.source.segment < segment.number)
        kept = next(earlier, None)
        began = contents(Path(used), segment.started_at_s)
        return contents(kept.path) if began is None and kept is not None else began

    def _taken(self, run: RunRecord, found: Sequence[ScannedCheckpoint]) -> Sequence[CheckpointRecord]:
        for one in found:
            if one.in_place and one.record.refused is None:
                self._keep(run, one.record)
        return [one.record for one in found]

    def _keep(self, run: RunRecord, record: CheckpointRecord) -> None:
        folder = self._context.home.run_folder(run.id)
        if any(kept.is_of(record) for kept in backups.copies(folder)):
            return
        floor_mib = self._context.settings.min_free_disk_mib
        self._errands.send(
            BackgroundJob(
                (run.id, record.path),
                lambda stopped: backups.back_up(folder, record, floor_mib, stopped),
                partial(self._keep_done, run),
            )
        )

    def _keep_done(self, run: RunRecord, result: object) -> None:
        console = self._context.console
        if isinstance(result, Backup):
            self._not_kept.pop(run.id, None)
            console.debug("kept", run, f"a copy of {result.source.path}")
            return
        again = isinstance(result, BackupRefused) and result.again
        why = result.why if isinstance(result, BackupRefused) else str(result)
        if again or self._not_kept.get(run.id) == why:
            console.debug("not kept", run, why)
        else:
            self._not_kept[run.id] = why
            console.event("not kept", run, f"no copy of a checkpoint that is overwritten in place: {why}")

    def _mend_done(self, run: RunRecord, result: object) -> None:
        self._mending.pop(run.id, None)
        error = result if isinstance(result, (OSError, RuntimeError)) else None
        self._mended[run.id] = (run.segment, error, self._context.clock.monotonic_s())
        if isinstance(result, tuple):
            for line in cast("tuple[str, ...]", result):
                self._context.console.event("mended", run, f"checkpoint {line}")
        if error is not None:
            self._context.console.event("trouble", run, f"a checkpoint cannot be put in order: {error}")


def _passing(error: Exception | None) -> bool:
    """A full disk, a process that still writes: try again later."""
    return isinstance(error, OSError) and error.errno in PASSING
