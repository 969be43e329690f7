"""Has the older checkpoints of runs removed that want only so many kept, in the background, once newer ones are good.

A crash is gone on from by its traces on disk: after a worker's start, the runs that ended lately are looked at again.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from backprop.scheduler.records import CheckpointRecord, RunRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import progress
from backprop.worker.checkpoints.background import JobStopped
from backprop.worker.checkpoints.rotation import removal
from backprop.worker.checkpoints.rotation.choice import Judgement
from backprop.worker.checkpoints.rotation.judging import Rotation, judged, rotation_of
from backprop.worker.context import Context

AGAIN_S: Final = 60.0
LATELY_S: Final = 7 * 86400.0

Send = Callable[[RunRecord, str, Callable[[JobStopped], object], Callable[[object], None]], None]


class RotationResult(msgspec.Struct, frozen=True):
    """`gone`: removed from disk. `failed`: why one that may go is still there."""

    gone: tuple[CheckpointRecord, ...] = ()
    failed: tuple[tuple[CheckpointRecord, str], ...] = ()


class Rotator:
    """One per worker. `send`: has a job done in the background."""

    def __init__(self, context: Context, send: Send) -> None:
        self._context, self._send = context, send
        self._again_s: dict[str, float] | None = None
        self._said: dict[str, str] = {}

    def saved(self, run: RunRecord) -> None:
        """Look at a run's checkpoints: a newer one is on record, or the run has ended. Raises DatabaseBusy."""
        rotation = rotation_of(self._context.database, run)
        if rotation is None:
            return
        home = self._context.home

        def work(stopped: JobStopped) -> RotationResult:
            return _rotate(rotation, judged(home, rotation), stopped)

        self._send(run, "rotate", work, lambda result: self._done(run, result))

    def step(self) -> None:
        """Try again what has failed, and what an earlier worker has left undone. Call once per tick. Raises
        DatabaseBusy."""
        now_s = self._context.clock.monotonic_s()
        if self._again_s is None:
            since_s = self._context.clock.wall_s() - LATELY_S
            self._again_s = dict.fromkeys(queries.rotating(self._context.database, since_s), now_s)
        for run_id in [run_id for run_id, at_s in self._again_s.items() if at_s <= now_s]:
            del self._again_s[run_id]
            run = queries.run_by_id(self._context.database, run_id)
            if run is not None and self._context.may_touch(run):
                self.saved(run)

    def _done(self, run: RunRecord, result: object) -> None:
        console = self._context.console
        if not isinstance(result, RotationResult):
            console.event("trouble", run, f"its older checkpoints are kept: {result}")
            return
        if result.gone:
            keep = run.spec.keep_checkpoints
            progress.removed(
                self._context.database, result.gone, f"removed, as --keep-checkpoints {keep} says"
            )
            names = ", ".join(record.path for record in result.gone)
            console.event("removed", run, f"older checkpoints: {names}")
        for record, why in result.failed:
            if self._said.get(record.path) != why:
                console.event("trouble", run, f"{record.path} is not removed: {why}; tried again")
            self._said[record.path] = why
        if result.failed and self._again_s is not None:
            self._again_s[run.id] = self._context.clock.monotonic_s() + AGAIN_S


def _rotate(rotation: Rotation, verdicts: Sequence[Judgement], stopped: JobStopped) -> RotationResult:
    """Remove what may go, the oldest first, and finish what was begun. In a thread."""
    by_path = {each.record.path: each for each in verdicts}
    gone: list[CheckpointRecord] = []
    failed: list[tuple[CheckpointRecord, str]] = []
    for record in reversed(rotation.surplus):
        verdict, begun = by_path[record.path], removal.is_begun(record)
        if stopped() or not (verdict.stays is None or begun):
            continue
        try:
            if begun and not verdict.enough:
                removal.take_back(record)
                continue
            why = removal.remove(record)
        except OSError as error:
            why = error.strerror or str(error)
        if why is None:
            gone.append(record)
        else:
            failed.append((record, why))
    return RotationResult(tuple(gone), tuple(failed))
