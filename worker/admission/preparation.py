"""Prepares an admitted run for its claim: repairs its checkpoint, makes its folder, takes its lock.

The order of a start keeps it single: the run lock, then the claim in the database with its reservation, then the
supervisor, which inherits the lock. This module does the part before the claim.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.errors import HomeRefused, LostRace
from backprop.scheduler.governor.decide import Decision, Need, Rule
from backprop.scheduler.home import batch_file, run_folder, shared_folder
from backprop.scheduler.home.file_reading import is_there
from backprop.scheduler.records import RunRecord, Waiting
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.reads.company import rival
from backprop.scheduler.store.writes import claims, user_requests
from backprop.worker.admission.missing_paths import MissingPaths
from backprop.worker.admission.port_wait import port_refusal
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.checkpoints.resume import StartPoint
from backprop.worker.checkpoints.seen.places import fixed_files
from backprop.worker.checkpoints.start_point import rows_of, start_of
from backprop.worker.context import Context
from backprop.worker.environment import presence
from backprop.worker.executor import locks
from backprop.worker.maintenance import completion
from backprop.worker.segments.ends.start_errors import passes
from backprop.worker.user_files import NOT_YET, NotYet, place_of

MOST_GONE: Final = 3
"""Missing files of a held run that are looked for: the newest."""


class PreparedRun(msgspec.Struct, frozen=True):
    """A run that can be claimed. `lock`: descriptor of its run lock; `promise`: that of its GPUs' promise, once one is
    posted. The holder hands them on or releases them. `environment`: that of the shell that queued it, read before the
    claim: what cannot be read now waits in the queue."""

    run: RunRecord
    resume: StartPoint
    lock: int
    environment: Mapping[str, str]
    promise: int | None = None

    def release(self) -> None:
        """Close what a run that does not start after all has locked."""
        os.close(self.lock)
        if self.promise is not None:
            os.close(self.promise)


AdmittedRun = tuple[PreparedRun, Decision, Need]


def release_locks(admitted: Sequence[AdmittedRun]) -> None:
    """Release runs that are not claimed after all."""
    for prepared, _, _ in admitted:
        prepared.release()


def hold(context: Context, run: RunRecord, why: str, gone: Sequence[str] = ()) -> None:
    """Hold a run that cannot start as it is, until its user releases it, or until one of the paths `gone` is back.
    Raises DatabaseBusy."""
    with contextlib.suppress(LostRace):
        user_requests.hold_run(context.database, run, why, held_for(gone, context.clock.wall_s()))
        context.console.event("held", run, why)


def held_for(gone: Sequence[str], now_s: float) -> tuple[Waiting, ...]:
    """Return what a run is held for, so that it is released once a path is back."""
    return tuple(
        Waiting(rule=Rule.PATH.value, text=f"{path} is not there", since_s=now_s, path=path)
        for path in gone[:MOST_GONE]
    )


class Preparation:
    """Prepares the runs of one worker."""

    def __init__(self, context: Context, checkpoints: CheckpointManager, paths: MissingPaths) -> None:
        self._context = context
        self._checkpoints = checkpoints
        self._paths = paths

    def prepare(self, run: RunRecord, beside: Sequence[RunRecord]) -> PreparedRun | Decision | None:
        """Prepare `run` and take its lock. Return None when it cannot be claimed now; its reason then says why. Return
        a decision when it has to wait for a path or a port. `beside`: runs that are about to be claimed too. Raises
        DatabaseBusy.
        """
        context = self._context
        if (refusal := self._paths.refusal(run)) is not None:
            return refusal
        if (why := self._checkpoints.why_not_yet(run)) is not None:
            return self._set_reason(run, f"waiting: {why}")
        others = [*queries.live_runs(context.database), *beside]
        if (refusal := port_refusal(context.home, run, others, context.clock.wall_s())) is not None:
            return refusal
        repaired = queries.runs_by_id(context.database, sorted(self._checkpoints.repairing - {run.id}))
        if (other := self._rival(run, [*others, *repaired])) is not None:
            why = "which writes the same files, or may; give each a folder of its own"
            return self._set_reason(run, f"waiting for {other.name} ({other.id}), {why}")
        try:
            start = self._start_point(run)
            if start is NOT_YET:
                place = place_of(run.spec, context.files)
                return self._set_reason(run, f"waiting for its files: {place} does not answer")
            if start.waits_for is not None:
                return self._paths.wait_for(run, start.waits_for)
            problem = start.problem or self._checkpoints.why_never(run, start)
        except OSError as error:
            # Perhaps the share with the checkpoint is away: it is not gone, and its user has nothing to repair.
            return self._set_reason(
                run, f"cannot be read now: {error.filename or 'its checkpoint'} ({error.strerror})"
            )
        if problem is not None:
            return hold(context, run, problem, start.gone)
        try:
            if not batch_file.materialise(context.home, run):
                return hold(context, run, f"held: its folder {context.home.run_folder(run.id)} was removed")
            if run.spec.cluster is not None and run.spec.share is not None:
                shared_folder.bring(context.home, run.id, run.spec.share)
            lock = locks.take(context.home.run_lock(run.id))
        except HomeRefused as error:
            return hold(context, run, str(error))
        except OSError as error:
            why = f"its folder {context.home.run_folder(run.id)} cannot be used: {error.strerror}"
            if passes(error.errno, users=False):
                return self._set_reason(run, f"waiting: {why}")
            return hold(context, run, why)
        if lock is None:
            return self._set_reason(run, "waiting for processes of its last segment to end")
        ready = False
        try:
            if run_folder.newest_segment(context.home.run_folder(run.id)) > run.segment:
                return self._put_back(run)
            environment = run_folder.read_environment(context.home.run_folder(run.id))
            absence = presence.missing_named_interpreter(run.spec.program, environment)
            if absence is not None:
                return self._paths.wait_for(run, absence)
            ready = True
        except OSError as error:
            return self._set_reason(run, f"cannot be read now: {error.filename} ({error.strerror})")
        finally:
            if not ready:
                os.close(lock)
        presence.note_mounts(context.home.run_folder(run.id), [run.spec.cwd])
        if start.needs_repair:
            return self._checkpoints.repair(run, start, lock)
        return PreparedRun(run, start, lock, environment)

    def _start_point(self, run: RunRecord) -> StartPoint | NotYet:
        """Return what the next segment begins from. Raises OSError, DatabaseBusy."""
        files, rows = self._context.files, rows_of(self._context.database, run)

        def look() -> StartPoint:
            # A supervisor would hang in a directory that does not answer, with the run's slot and VRAM.
            is_there(Path(run.spec.cwd))
            return start_of(self._context.home, run, rows)

        # An answer for the run as it was before it was edited, resumed or run again is none.
        key = ("start", run.id, run.segment, run.resume_pin, repr(run.spec))
        return files.ask(key, look, place_of(run.spec, files))

    def _set_reason(self, run: RunRecord, reason: str) -> None:
        if run.reason != reason:
            claims.record_waiting_reasons(self._context.database, {run.id: (reason, ())})

    def _rival(self, run: RunRecord, others: Sequence[RunRecord]) -> RunRecord | None:
        """Return a live run that writes the same file as `run`: by its plan, or because it was seen to, or may have."""
        files = fixed_files(run.spec)
        by_plan = (other for other in others if not files.isdisjoint(fixed_files(other.spec)))
        if (found := next(by_plan, None)) is not None or not run.segment:
            return found
        seen = rival(self._context.database, run.id, [other.id for other in others])
        return next((other for other in others if other.id == seen), None)

    def _put_back(self, run: RunRecord) -> None:
        """Put a run back from its folder: the database is older, and starting the segment again could repeat a finished
        run."""
        if completion.put_back(self._context.home, self._context.database, run.id):
            self._context.console.event("repairing", run, "put back from its folder")
        else:
            why = "its folder holds a later segment than the database, and its spec.json is damaged"
            hold(self._context, run, why)
