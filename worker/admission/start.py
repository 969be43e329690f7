"""Claims prepared runs and starts them: composes arguments, environment and timebox, and hands them to the executor.

All of a round are claimed in one transaction, against the serial of the reservations that the decisions were made on.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

import msgspec

from backprop.scheduler.errors import LostRace, UnknownRun
from backprop.scheduler.governor.box_end import BoxRule, minutes, rule_of
from backprop.scheduler.governor.decide import Decision, Need
from backprop.scheduler.governor.need import memory_limit_mib
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.admission.preparation import AdmittedRun, PreparedRun, release_locks
from backprop.worker.admission.promises import PromisePoster
from backprop.worker.checkpoints.glob_walk import fixed_folder
from backprop.worker.checkpoints.resume import command_line
from backprop.worker.checkpoints.roots import linked_folders, roots_for
from backprop.worker.checkpoints.seen import baseline
from backprop.worker.checkpoints.seen.places import saving_variables
from backprop.worker.context import Context
from backprop.worker.environment import ports
from backprop.worker.environment.integrations import integration_environment
from backprop.worker.environment.leader import allocator_limit, leader_environment, leave_to_load
from backprop.worker.environment.nodes import seen_from_nodes
from backprop.worker.environment.snapshot_paths import snapshot_command
from backprop.worker.environment.tracking import tracking_environment
from backprop.worker.executor import segment_files
from backprop.worker.executor.base import NoSupervisor, SegmentOrder, Starts
from backprop.worker.executor.segment_files import BeforeFile
from backprop.worker.machine.state import MachineState
from backprop.worker.segments import timebox
from backprop.worker.segments.ends.start_errors import passes
from backprop.worker.segments.tracker import SegmentTracker
from backprop.worker.supervisor import failpoint
from backprop.worker.user_files import NOT_YET, place_of

BEFORE_PATIENCE_S: Final = 1.0
"""No start waits longer for folders in which a run may save: a share that is away would keep others waiting too."""
ORDER_PATIENCE_S: Final = 2.0
"""The run is claimed by then: later it is queued again."""


class Starter:
    """Claims and starts the runs of one worker."""

    def __init__(self, context: Context, tracker: SegmentTracker) -> None:
        self._context = context
        self._tracker = tracker
        self._promises = PromisePoster(context)

    def start(self, admitted: Sequence[AdmittedRun], state: MachineState) -> int:
        """Claim the runs in one transaction and start them; return how many. Consumes their locks.

        Fewer than all: another worker has claimed meanwhile, or another home has promised the room. Raises
        DatabaseBusy, UnknownRun.
        """
        left = self._promises.post(admitted, state)
        if not left:
            return 0
        started, trouble = 0, None
        try:
            for number in self._claim(left, state.serial):
                prepared, decision, need = left.pop(0)
                if number is None:
                    prepared.release()
                    continue
                started += 1
                try:
                    self._launch(prepared, number, decision, need, state)
                except Exception as error:
                    # The others are claimed too, and would be lost with it.
                    trouble = error
        finally:
            # A lock still held would make its run look alive for as long as this worker lives.
            release_locks(left)
        if trouble is not None and not isinstance(trouble, LostRace):
            raise trouble
        return started

    def _claim(self, admitted: Sequence[AdmittedRun], serial: int) -> list[int | None]:
        """Return the segment number of each claimed run, in order, None for one that is not queued any more; no numbers
        at all when another worker has claimed meanwhile."""
        wanted = [
            claims.Claim(
                run=prepared.run,
                worker=self._context.worker,
                serial=serial,
                gpu_uuids=decision.gpu_uuids,
                promised_mib=_promised_mib(decision, need),
                need_source=need.source,
                exclusive=need.exclusive,
                checkpoint_used=prepared.resume.checkpoint,
                token=None if prepared.run.cluster is None else os.urandom(8).hex(),
            )
            for prepared, decision, need in admitted
        ]
        try:
            numbers = claims.claim(self._context.database, wanted, self._context.clock.wall_s())
        except LostRace:
            return []
        failpoint.at("claimed")
        return numbers

    def _launch(
        self, prepared: PreparedRun, number: int, decision: Decision, need: Need, state: MachineState
    ) -> None:
        """Start a claimed run; finalize it at once if it cannot be started. Consumes the lock."""
        context = self._context
        order: SegmentOrder | SegmentResult
        try:
            run = self._claimed(prepared.run.id)
            order = self._order_in_time(run, prepared, number, decision, need, state)
        except BaseException:
            # Held on, the lock would make a claimed run look alive for as long as this worker lives.
            prepared.release()
            raise
        if isinstance(order, SegmentResult):
            prepared.release()
            self._tracker.could_not_start(run, order)
        else:
            checkpoint = prepared.resume.checkpoint
            source = f" from {_near(checkpoint, run.spec.cwd)}" if checkpoint else ""
            event = "started" if run.cluster is None else f"to {run.cluster}"
            context.console.event(event, run, f"segment {number}, {_box(order)}{source}")
            try:
                self._executor_of(run).start(order)
            except OSError as error:
                passing = isinstance(error, NoSupervisor) or passes(error.errno, users=False)
                self._tracker.could_not_start(run, _not_started(run, str(error), passing))
        for broken in prepared.resume.passed_over:
            context.console.event("passed over", prepared.run, f"checkpoint {broken}")

    def _executor_of(self, run: RunRecord) -> Starts:
        if run.cluster is None:
            return self._context.executor
        return self._context.clusters.of(run.cluster, run.spec.share)

    def _claimed(self, run_id: str) -> RunRecord:
        run = queries.run_by_id(self._context.database, run_id)
        if run is None:
            raise UnknownRun(f"run {run_id} has been removed meanwhile")
        return run

    def _order_in_time(
        self,
        run: RunRecord,
        prepared: PreparedRun,
        number: int,
        decision: Decision,
        need: Need,
        state: MachineState,
    ) -> SegmentOrder | SegmentResult:
        """As `_order`; that it could not be started where the user's files do not answer. Raises DatabaseBusy."""
        files, history, key = self._context.files, self._save_history(run), ("order", run.id, number)
        port = {} if run.cluster else ports.offer(prepared.environment, self._offered_ports(run))
        token = self._token(run, number)

        def look() -> SegmentOrder | SegmentResult:
            return self._order(run, prepared, number, decision, need, state, history, port, token)

        place = place_of(run.spec, files)
        order = files.ask(key, look, place, ORDER_PATIENCE_S)
        if order is NOT_YET:
            files.forget(key)
            return _not_started(run, f"{place} does not answer", passing=True)
        if isinstance(order, SegmentResult):
            return order
        return msgspec.structs.replace(order, before=self._what_lies_there(run, prepared, number))

    def _what_lies_there(self, run: RunRecord, prepared: PreparedRun, number: int) -> BeforeFile | None:
        """Return what lies where the run may save; None where that does not answer: no start waits for it."""
        files, key, home = self._context.files, ("before", run.id, number), self._context.home.root
        shell, checkpoint = prepared.environment, prepared.resume.checkpoint

        def look() -> BeforeFile:
            return baseline.note(_where_it_may_save(run, shell, checkpoint), home)

        before = files.ask(key, look, place_of(run.spec, files), BEFORE_PATIENCE_S)
        if before is NOT_YET:
            files.forget(key)
            return None
        return before

    def _order(
        self,
        run: RunRecord,
        prepared: PreparedRun,
        number: int,
        decision: Decision,
        need: Need,
        state: MachineState,
        history: timebox.SaveHistory,
        port: Mapping[str, str],
        token: str | None,
    ) -> SegmentOrder | SegmentResult:
        """Return what to execute, with the code as it was when queued. `port`: offered to it. `token`: of the job that
        it becomes. Called in a thread.

        Where that code or an earlier order cannot be read: that it could not be started.
        """
        context, snapshot = self._context, state.snapshot
        checkpoint, code = (
            seen_from_nodes(context.home, run.id, run.spec, path)
            for path in (prepared.resume.checkpoint, run.spec.code)
        )
        run = msgspec.structs.replace(run, spec=msgspec.structs.replace(run.spec, code=code))
        shell = prepared.environment
        try:
            snapshot_of = snapshot_command(run.spec, shell)
        except OSError as error:
            passing = passes(error.errno, users=False)
            what = f"cannot be read now ({error.strerror})" if passing else "is gone or damaged"
            return _not_started(run, f"its code snapshot {what}: {run.spec.code}", passing)
        try:
            tracking = tracking_environment(context.home, run, number, shell)
        except OSError as error:
            why = f"{error.filename or 'an earlier order'} cannot be read now ({error.strerror})"
            return _not_started(run, why, passing=True)
        gpus = [gpu for uuid in decision.gpu_uuids if (gpu := snapshot.gpu(uuid)) is not None]
        limit_mib = memory_limit_mib(prepared.run.spec, snapshot) if decision.gpu_uuids else None
        run = msgspec.structs.replace(run, spec=snapshot_of.spec)
        folder = str(context.folder(run, number))
        return SegmentOrder(
            run=run,
            number=number,
            argv=command_line(run.spec, checkpoint),
            environment={
                **port,
                **tracking,
                **leader_environment(run, number, checkpoint, folder, gpus, limit_mib),
                **leave_to_load(prepared.resume.holds_objects, shell),
                **snapshot_of.environment,
                **integration_environment(run, number, {**shell, **snapshot_of.environment}),
                **allocator_limit(run.spec, gpus, limit_mib, shell),
            },
            timebox_s=timebox.latest_end_s(run, history),
            at_timebox=rule_of(run.spec),
            promised_mib=_promised_mib(decision, need),
            lock=prepared.lock,
            promise=prepared.promise,
            token=token,
        )

    def _token(self, run: RunRecord, number: int) -> str | None:
        if run.cluster is None:
            return None
        segment = queries.segment(self._context.database, run.id, number)
        return segment.token if segment is not None else None

    def _offered_ports(self, run: RunRecord) -> set[str]:
        """Return the ports that live runs were given: those that start with this one do not listen yet."""
        found: set[str] = set()
        for other in queries.live_runs(self._context.database):
            if other.id != run.id:
                with contextlib.suppress(OSError):
                    order = segment_files.read_order(self._context.executor.folder(other.id, other.segment))
                    found |= {order.environment.get(name, "") for name in ports.VARIABLES} if order else set()
        return found

    def _save_history(self, run: RunRecord) -> timebox.SaveHistory:
        database = self._context.database
        earlier = [segment for segment in queries.segments(database, run.id) if segment.number < run.segment]
        saved = queries.checkpoints(database, run.id)
        return timebox.save_history(run.spec, earlier, saved, announces=False)


def _where_it_may_save(run: RunRecord, shell: Mapping[str, str], checkpoint: str | None) -> list[str]:
    """Return the folders to note before a start, the likeliest first."""
    spec, cwd = run.spec, Path(run.spec.cwd)
    named = [cwd / value for _, value in saving_variables(shell) if value]
    extra = [*map(Path, spec.checkpoint_roots), *named, *linked_folders(cwd)]
    given = Path(spec.resume_from) if spec.resume_from else None
    patterns = [fixed_folder(pattern) for pattern in (spec.plan.globs if spec.plan is not None else ())]
    used = [Path(checkpoint).parent] if checkpoint is not None else []
    return list(dict.fromkeys(map(str, (*used, *patterns, *roots_for(cwd, spec.argv, given, extra)))))


def _near(path: str, folder: str) -> str:
    """Return a path as it is called in the run's directory, where it lies below that."""
    with contextlib.suppress(ValueError):
        return str(PurePath(path).relative_to(folder))
    return path


def _box(order: SegmentOrder) -> str:
    return "no timebox" if order.at_timebox is BoxRule.NONE else minutes(order.timebox_s)


def _not_started(run: RunRecord, why: str, passing: bool) -> SegmentResult:
    return SegmentResult(could_not_start=why, passing=passing, wanted=run.intent)


def _promised_mib(decision: Decision, need: Need) -> int:
    return need.vram_mib if decision.gpu_uuids else 0
