"""Hands queued runs over to their clusters, as many as each takes, and records why the others wait.

The queue's order is ours and is kept by handing over late: a job that waits in a cluster's own queue is passed by none
of ours. The governor is not asked: nothing of this machine is used.
"""

from collections.abc import Sequence
from typing import Final

from backprop.scheduler.governor.decide import Decision, Need
from backprop.scheduler.governor.snapshot import Host, Snapshot
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store import drain
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.admission.preparation import AdmittedRun, Preparation, PreparedRun, hold
from backprop.worker.admission.start import Starter
from backprop.worker.context import Context
from backprop.worker.executor import locks
from backprop.worker.executor.clusters import Clusters
from backprop.worker.machine.state import MachineState, Opening
from backprop.worker.segments.tracker import SegmentTracker

EVERY_S: Final = 1.0
TOLD: Final = 200
"""So many waiting runs of a cluster are told why they wait."""
AT_ONCE: Final = 8
"""Segments handed over in one tick: each takes a moment to prepare."""


class HandOver:
    """Admits the runs of one worker that go to clusters."""

    def __init__(
        self, context: Context, tracker: SegmentTracker, preparation: Preparation, starter: Starter
    ) -> None:
        self._context = context
        self._tracker = tracker
        self._preparation = preparation
        self._starter = starter
        self._admission = locks.Admission(context.home.locks)
        self._looked_s = -EVERY_S

    def admit(self) -> int:
        """Hand over what clusters take; return how many segments were. Raises DatabaseBusy."""
        context, now_s = self._context, self._context.clock.monotonic_s()
        if now_s - self._looked_s < EVERY_S:
            return 0
        self._looked_s = now_s
        names = queries.clusters(context.database)
        if not names or drain.drained(context.database) is not None:
            return 0
        return sum(self._admit_to(name) for name in names)

    def _admit_to(self, name: str) -> int:
        context = self._context
        waiting = queries.queue(context.database, context.clock.wall_s(), TOLD, context.only, cluster=name)
        if not waiting:
            return 0
        clusters = context.clusters
        if name not in clusters.configured:
            why = f"{name} is no cluster of your config.json any more"
            for run in waiting:
                hold(
                    context, run, f"{why}; backprop edit {run.id} --on here, or configure it, then release it"
                )
            return 0
        room = self._room(clusters, name, waiting[0])
        started = 0
        if room > 0:
            with self._admission as acquired:
                started = self._start(waiting, min(room, AT_ONCE)) if acquired else 0
        self._explain(name, waiting[started:])
        return started

    def _room(self, clusters: Clusters, name: str, first: RunRecord) -> int:
        executor = clusters.of(name, first.spec.share)
        live = queries.slot_count(self._context.database, name)
        return executor.room(live, self._context.clock.monotonic_s())

    def _start(self, waiting: Sequence[RunRecord], most: int) -> int:
        context = self._context
        groups = queries.group_room(context.database)
        state = _no_machine(queries.serial(context.database))
        admitted: list[AdmittedRun] = []
        for run in waiting:
            if len(admitted) == most:
                break
            if groups.get(run.group_name or "", 1) <= 0:
                continue
            beside = [prepared.run for prepared, _, _ in admitted]
            prepared = self._tracker.attempt(
                run, lambda run=run, beside=beside: self._preparation.prepare(run, beside)
            )
            if isinstance(prepared, PreparedRun):
                admitted.append((prepared, Decision((), ()), Need(vram_mib=0, gpus=run.spec.gpus)))
                if run.group_name in groups:
                    groups[run.group_name or ""] -= 1
            elif isinstance(prepared, Decision):
                self._set_reason(run, prepared.sentence())
        return self._starter.start(admitted, state) if admitted else 0

    def _explain(self, name: str, waiting: Sequence[RunRecord]) -> None:
        """Record why these runs are not handed over, where nothing of their own keeps them."""
        executor = self._context.clusters.of(name, None)
        closure, now_s = executor.closure, self._context.clock.monotonic_s()
        if closure is not None and closure.until_s > now_s:
            why = f"waiting: nothing is handed to {name} now: {closure.why}"
        else:
            live = queries.slot_count(self._context.database, name)
            most = executor.cluster.max_jobs
            if live < most:
                return
            why = f"waiting: {live} of at most {most} jobs are in {name}"
        reasons = {run.id: (why, ()) for run in waiting if run.reason != why}
        if reasons:
            claims.record_waiting_reasons(self._context.database, reasons)

    def _set_reason(self, run: RunRecord, why: str) -> None:
        if run.reason != why:
            claims.record_waiting_reasons(self._context.database, {run.id: (why, ())})


def _no_machine(serial: int) -> MachineState:
    """Return a state without a GPU: what a job gets is the cluster's decision."""
    host = Host(ram_free_mib=None, ram_total_mib=None, load_1m=None, cores=1, disk_free_mib=None)
    snapshot = Snapshot(host=host, gpus=(), source="none", problem=None, taken_s=0.0)
    return MachineState(
        snapshot=snapshot,
        serial=serial,
        segments=[],
        processes={},
        usage={},
        reservations=[],
        elsewhere=[],
        peaks={},
        recorded={},
        quarantined={},
        opening=Opening(None, None),
    )
