"""Is a run that the governor admits ready to be claimed? Its files in order, its folder there, its lock taken.

The order of a start is what keeps it single: the run lock, then the claim in the database with its reservation, then
the supervisor, which inherits the lock. This is the part before the claim.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from backprop.scheduler.errors import LostRace
from backprop.scheduler.home import batch_file, run_folder
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, user_requests
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.checkpoints.resume import StartPoint
from backprop.worker.checkpoints.start_point import choose_start
from backprop.worker.context import Context
from backprop.worker.executor import locks
from backprop.worker.maintenance import recovery
from backprop.worker.segments.result import PASSING_ERRORS


@dataclass(frozen=True)
class PreparedRun:
    """`lock`: descriptor of the run's lock. Whoever has this hands it on or closes it."""

    run: RunRecord
    resume: StartPoint
    lock: int


def hold(context: Context, run: RunRecord, why: str) -> None:
    """It cannot start as it is: until its user says otherwise. Raises DatabaseBusy."""
    with contextlib.suppress(LostRace):
        user_requests.hold_run(context.database, run, why)
        context.console.event("held", run, why)


class Preparation:
    def __init__(self, context: Context, checkpoints: CheckpointManager) -> None:
        self._context = context
        self._checkpoints = checkpoints

    def prepare(self, run: RunRecord, beside: Sequence[RunRecord]) -> PreparedRun | None:
        """Have `run` ready, its lock taken; None when it cannot be claimed now, which it is told. `beside`: runs that
        are about to be claimed too. Raises DatabaseBusy."""
        context = self._context
        if (why := self._checkpoints.why_not_yet(run)) is not None:
            return self._say(run, f"waits: {why}")
        if (rival := self._rival(run, beside)) is not None:
            told = f"waits: {rival.name} ({rival.id}) is running and saves where it does; give each a folder of its own"
            return self._say(run, told)
        try:
            start = choose_start(context.home, context.database, run)
            problem = start.problem or self._checkpoints.why_never(run, start)
        except OSError as error:
            # The share that it lies on is away, say: it is not gone, and there is nothing for its user to repair.
            told = f"waits: {error.filename or 'what it begins from'} cannot be looked at: {error.strerror}"
            return self._say(run, told)
        if problem is not None:
            return hold(context, run, problem)
        try:
            batch_file.materialise(context.home, run)
            lock = locks.take(context.home.run_lock(run.id))
        except OSError as error:
            why = f"its folder {context.home.run_folder(run.id)} cannot be used: {error.strerror}"
            return (
                self._say(run, f"waits: {why}") if error.errno in PASSING_ERRORS else hold(context, run, why)
            )
        if lock is None:
            return self._say(run, f"waits: processes of segment {run.segment} are still alive")
        sound = False
        try:
            sound = run_folder.newest_segment(context.home.run_folder(run.id)) <= run.segment
            if not sound:
                return self._put_back(run)
        except OSError as error:
            return self._say(run, f"waits: {error.filename} cannot be looked at: {error.strerror}")
        finally:
            if not sound:
                os.close(lock)
        if start.needs_repair:
            return self._checkpoints.repair(run, start, lock)
        return PreparedRun(run, start, lock)

    def _say(self, run: RunRecord, reason: str) -> None:
        if run.reason != reason:
            claims.record_waiting_reasons(self._context.database, {run.id: (reason, ())})

    def _rival(self, run: RunRecord, beside: Sequence[RunRecord]) -> RunRecord | None:
        """A live run among whose checkpoints those of `run` would appear: seen from outside they cannot be told apart,
        and whoever resumed from one would go on from another's work."""
        globs = frozenset(run.spec.plan.globs) if run.spec.plan is not None else frozenset[str]()
        if not globs:
            return None
        others = [*queries.live_runs(self._context.database), *beside]
        return next(
            (one for one in others if one.spec.plan and not globs.isdisjoint(one.spec.plan.globs)), None
        )

    def _put_back(self, run: RunRecord) -> None:
        """The database is older than the run's folder: starting the segment again could repeat a finished run."""
        if recovery.put_back(self._context.home, self._context.database, run.id):
            self._context.console.event("repairing", run, "put back from its folder")
        else:
            why = "its folder holds a later segment than the database, and its spec.json is damaged"
            hold(self._context, run, why)
