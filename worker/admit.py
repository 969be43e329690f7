"""Which queued run starts now? Asks the governor for each in turn, claims the first it admits, starts it.

The order of a start is what keeps it single: the run lock, then the claim in the database with its reservation,
then the supervisor, which inherits the lock.
"""

import contextlib
import os
from typing import Final, Protocol

from backprop.scheduler import queue, reads
from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor import Decision, decide
from backprop.scheduler.outcome import Ending
from backprop.scheduler.records import RunRecord
from backprop.scheduler.snapshot import Snapshot
from backprop.worker import locks, terms
from backprop.worker.context import Context
from backprop.worker.ending import PASSING_ERRORS
from backprop.worker.place import Order
from backprop.worker.resume import choose, command_line
from backprop.worker.tend import Tender

SAY_AGAIN_S: Final = 60.0
"""A waiting reason whose amounts alone changed is written this seldom."""


class Sense(Protocol):
    def snapshot(self) -> Snapshot | None:
        """The machine now; None while the first reading of its GPUs is still under way."""
        ...


class Admitter:
    def __init__(self, context: Context, sense: Sense, tender: Tender) -> None:
        self._context = context
        self._sense = sense
        self._tender = tender
        self._admission = locks.Admission(context.home.locks)
        self._said: dict[str, tuple[str, float]] = {}

    def admit(self) -> int:
        """Start what may start; how many. Raises DatabaseBusy."""
        if not self._candidates():
            self._said.clear()
            return 0
        started = 0
        with self._admission as ours:
            while ours and (snapshot := self._sense.snapshot()) is not None:
                if not self._start_first(snapshot):
                    break
                started += 1
        return started

    def _candidates(self) -> list[RunRecord]:
        ripe = reads.queue(self._context.database, self._context.clock.wall_s())
        return [run for run in ripe if self._context.mine(run)]

    def _start_first(self, snapshot: Snapshot) -> bool:
        """Start the first run in queue order that the governor admits; tell the others why they wait."""
        now_s = self._context.clock.wall_s()
        serial, alive = reads.live_segments(self._context.database)
        reservations = terms.reservations_of(alive, now_s)
        waiting: list[tuple[RunRecord, Decision]] = []
        for run in self._candidates():
            need = terms.need_of(run.spec, snapshot)
            limits = terms.limits_of(run.spec, self._context.settings)
            decision = decide(need, limits, snapshot, reservations, len(alive))
            if decision.infeasible is not None:
                self._hold(run, f"fits nowhere: {decision.infeasible}")
            elif not decision.admitted:
                waiting.append((run, decision))
            elif self._start(run, decision, need.vram_mib if decision.gpu_uuids else 0, serial, snapshot):
                return True
        self._say_waiting(waiting)
        return False

    def _start(
        self, run: RunRecord, decision: Decision, promised_mib: int, serial: int, snapshot: Snapshot
    ) -> bool:
        context = self._context
        resume = choose(run, reads.checkpoints(context.database, run.id))
        if resume.problem is not None:
            self._hold(run, resume.problem)
            return False
        try:
            lock = locks.take(context.home.run_lock(run.id))
        except OSError as error:
            self._hold(run, f"its folder {context.home.run_folder(run.id)} cannot be used: {error.strerror}")
            return False
        if lock is None:
            self._say({run.id: f"processes of segment {run.segment} are still alive"})
            return False
        claim = queue.Claim(
            run=run,
            worker=context.worker,
            serial=serial,
            gpu_uuids=decision.gpu_uuids,
            promised_mib=promised_mib,
            checkpoint_used=resume.checkpoint,
        )
        try:
            number = queue.claim(context.database, claim, context.clock.wall_s())
        except BaseException as error:
            os.close(lock)
            if isinstance(error, LostRace):
                return False
            raise
        self._launch(
            run.id, number, lock, decision, resume.checkpoint, terms.memory_limit_mib(run.spec, snapshot)
        )
        for broken in resume.passed_over:
            context.talk.say("passed over", run, f"checkpoint {broken}")
        return True

    def _launch(
        self,
        run_id: str,
        number: int,
        lock: int,
        decision: Decision,
        checkpoint: str | None,
        limit_mib: int | None,
    ) -> None:
        context = self._context
        run = reads.run_by_id(context.database, run_id)
        if run is None:
            os.close(lock)
            return
        folder = str(context.place.folder(run_id, number))
        environment = terms.environment_of(run, number, folder, decision.gpu_uuids, limit_mib, checkpoint)
        order = Order(
            run=run,
            number=number,
            argv=command_line(run.spec, checkpoint),
            environment=environment,
            timebox_s=timebox_s(run),
            lock=lock,
        )
        told = f" from {checkpoint}" if checkpoint else ""
        context.talk.say("started", run, f"segment {number}, {order.timebox_s / 60:g} min{told}")
        try:
            context.place.start(order)
        except OSError as error:
            ending = Ending(
                could_not_start=str(error), passing=error.errno in PASSING_ERRORS, wanted=run.intent
            )
            self._tender.could_not_start(run, ending)

    def _hold(self, run: RunRecord, why: str) -> None:
        with contextlib.suppress(LostRace):
            queue.hold(self._context.database, run, why)
            self._context.talk.say("held", run, why)

    def _say_waiting(self, waiting: list[tuple[RunRecord, Decision]]) -> None:
        """Write down why runs wait, when that has changed in kind, or after a while in amount."""
        now_s = self._context.clock.monotonic_s()
        news: dict[str, str] = {}
        for run, decision in waiting:
            kind = ",".join(f"{denial.rule}{denial.gpu_index}" for denial in decision.denials)
            said, said_s = self._said.get(run.id, ("", 0.0))
            if said != kind or now_s - said_s >= SAY_AGAIN_S:
                self._said[run.id] = (kind, now_s)
                news[run.id] = f"waits: {decision.sentence()}"
        self._say(news)

    def _say(self, news: dict[str, str]) -> None:
        if news:
            queue.say_waiting(self._context.database, news)


def timebox_s(run: RunRecord) -> float:
    """This segment's box: the run's, cut to what `--max-total-minutes` leaves."""
    if run.spec.max_total_s is None:
        return run.spec.timebox_s
    return min(run.spec.timebox_s, max(run.spec.max_total_s - run.chain_total_s, 1.0))
