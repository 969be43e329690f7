"""Which queued run starts now? Asks the governor for each in turn, claims the first it admits, has it started.

The order of a start is what keeps it single: the run lock, then the claim in the database with its reservation,
then the supervisor, which inherits the lock.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import Final

from backprop.scheduler import ageing, batches, claims, folders, gate, queue, reads, watchbook
from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor import Decision, Denial, Limits, Need, decide
from backprop.scheduler.records import RunRecord
from backprop.scheduler.snapshot import Snapshot
from backprop.worker import locks, recovery, terms
from backprop.worker.context import Context
from backprop.worker.ending import PASSING_ERRORS
from backprop.worker.guard import Guard, Picture, Sense
from backprop.worker.launch import Launch, launch
from backprop.worker.mend import consider
from backprop.worker.resume import Resume
from backprop.worker.supervisor import failpoint
from backprop.worker.tend import Tender
from backprop.worker.waiting import Aged, Waits

LEARN_AGAIN_S: Final = 30.0


class Admitter:
    def __init__(self, context: Context, sense: Sense, guard: Guard, tender: Tender) -> None:
        self._context = context
        self._sense = sense
        self._guard = guard
        self._tender = tender
        self._admission = locks.Admission(context.home.locks)
        self._waits = Waits(context)
        self._closed: tuple[tuple[gate.Drained | None, int], Denial | None] | None = None
        self._learned: dict[str, tuple[int | None, float]] = {}

    def admit(self) -> int:
        """Start what may start; how many. Raises DatabaseBusy."""
        candidates = self._candidates()
        if not candidates:
            self._waits.clear()
            self._learned.clear()
            return 0
        if (closed := self._look_closed()) is not None:
            self._waits.tell([(run, Decision((closed,), ())) for run in candidates])
            return 0
        started = 0
        with self._admission as ours:
            while ours and (snapshot := self._sense.snapshot()) is not None:
                begun = self._start_first(snapshot, candidates)
                if begun is None:
                    break
                started += 1
                # Its group may be full now, which the queue knows. Anything else that has changed meanwhile is found
                # out by the claim.
                left = [run for run in candidates if run.id != begun.id]
                candidates = left if begun.group_name is None else self._candidates()
        return started

    def _look_closed(self) -> Denial | None:
        """Why nothing at all may start, said when it changes. Worked out once a minute: the next opening is found by
        going through the week."""
        now_s = self._context.clock.wall_s()
        seen = (reads.drained(self._context.database), int(now_s // 60))
        before = self._closed
        if before is not None and before[0] == seen:
            return before[1]
        closed = gate.closed(seen[0], self._context.settings.active_hours or (), now_s)
        self._closed = (seen, closed)
        was = before[1] if before is not None else None
        if closed is not None and (was is None or was.rule is not closed.rule):
            self._context.talk.say("closed", more=f"nothing is started: {closed.text}")
        elif closed is None and was is not None:
            self._context.talk.say("open", more="runs are started again")
        return closed

    def _candidates(self) -> list[RunRecord]:
        ripe = reads.queue(self._context.database, self._context.clock.wall_s())
        return [run for run in ripe if self._context.mine(run)]

    def _start_first(self, snapshot: Snapshot, candidates: Sequence[RunRecord]) -> RunRecord | None:
        """Start the first of `candidates`, in queue order, that the governor admits; tell the others why they wait."""
        picture = self._guard.picture(snapshot)
        quarantined = self._guard.quarantined() if snapshot.gpus else {}
        waiting: list[tuple[RunRecord, Decision]] = []
        judged: dict[tuple[Need, Limits], Decision] = {}
        aged: Aged | None = None
        self._waits.note_alive(len(picture.alive))
        for run in candidates:
            need = terms.need_of(run.spec, snapshot, self._learned_mib(run, snapshot), run.need_mib)
            limits = terms.limits_of(run.spec, self._context.settings)
            decision = judged.get((need, limits))
            if decision is None:
                running = len(picture.alive)
                decision = decide(
                    need, limits, snapshot, picture.reservations, running, quarantined, self._guard.peaks
                )
                judged[need, limits] = decision
            if decision.infeasible is not None:
                self._hold(run, f"fits nowhere: {decision.infeasible}")
            elif not decision.admitted:
                waiting.append((run, decision))
                aged = aged or self._waits.aged(run, decision)
            elif aged is not None and ageing.keeps_back(aged.wait, need.gpus):
                waiting.append((run, aged.behind()))
            elif self._start(run, decision, need, picture):
                return run
        self._waits.tell(waiting)
        return None

    def _start(self, run: RunRecord, decision: Decision, need: Need, picture: Picture) -> bool:
        context = self._context
        if (why := self._tender.outside.why_not_yet(run)) is not None:
            claims.say_waiting(context.database, {run.id: (f"waits: {why}", ())})
            return False
        if (rival := self._rival(run)) is not None:
            told = f"waits: {rival.name} ({rival.id}) is running and saves where it does; give each a folder of its own"
            if run.reason != told:
                claims.say_waiting(context.database, {run.id: (told, ())})
            return False
        start = consider(context.home, context.database, run)
        resume = start.resume
        if (problem := resume.problem or self._tender.outside.why_never(run, start)) is not None:
            self._hold(run, problem)
            return False
        try:
            batches.materialise(context.home, run)
            lock = locks.take(context.home.run_lock(run.id))
        except OSError as error:
            why = f"its folder {context.home.run_folder(run.id)} cannot be used: {error.strerror}"
            if error.errno in PASSING_ERRORS:
                claims.say_waiting(context.database, {run.id: (f"waits: {why}", ())})
            else:
                self._hold(run, why)
            return False
        if lock is None:
            reason = f"waits: processes of segment {run.segment} are still alive"
            claims.say_waiting(context.database, {run.id: (reason, ())})
            return False
        if folders.newest_segment(context.home.run_folder(run.id)) > run.segment:
            os.close(lock)
            self._put_back(run)
            return False
        if not start.in_order:
            self._tender.outside.mend(run, start, lock)
            return False
        number = self._claim(run, decision, need, picture, resume, lock)
        if number is None:
            return False
        launch(
            context,
            self._tender,
            Launch(
                run_id=run.id,
                number=number,
                lock=lock,
                checkpoint=resume.checkpoint,
                gpus=[gpu for uuid in decision.gpu_uuids if (gpu := picture.snapshot.gpu(uuid)) is not None],
                promised_mib=need.vram_mib if decision.gpu_uuids else 0,
                limit_mib=terms.memory_limit_mib(run.spec, picture.snapshot) if decision.gpu_uuids else None,
            ),
        )
        for broken in resume.passed_over:
            context.talk.say("passed over", run, f"checkpoint {broken}")
        return True

    def _rival(self, run: RunRecord) -> RunRecord | None:
        """A live run among whose checkpoints those of `run` would appear: seen from outside they cannot be told apart,
        and whoever resumed from one would go on from another's work."""
        globs = frozenset(run.spec.plan.globs) if run.spec.plan is not None else frozenset[str]()
        if not globs:
            return None
        live = reads.live_runs(self._context.database)
        return next(
            (one for one in live if one.spec.plan and not globs.isdisjoint(one.spec.plan.globs)), None
        )

    def _claim(
        self, run: RunRecord, decision: Decision, need: Need, picture: Picture, resume: Resume, lock: int
    ) -> int | None:
        """Claim the run; its new segment's number, or None when somebody was faster. Lets go of the lock then."""
        claim = claims.Claim(
            run=run,
            worker=self._context.worker,
            serial=picture.serial,
            gpu_uuids=decision.gpu_uuids,
            promised_mib=need.vram_mib if decision.gpu_uuids else 0,
            need_source=need.source,
            exclusive=need.exclusive,
            checkpoint_used=resume.checkpoint,
        )
        try:
            number = claims.claim(self._context.database, claim, self._context.clock.wall_s())
            failpoint.at("claimed")
        except LostRace:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        return number

    def _learned_mib(self, run: RunRecord, snapshot: Snapshot) -> int | None:
        """Asked only where it can matter, and for each run only now and then."""
        if not snapshot.gpus or run.spec.gpu_memory_limit is not None or run.spec.gpu_min_vram_declared:
            return None
        now_s = self._context.clock.monotonic_s()
        known = self._learned.get(run.id)
        if known is None or now_s - known[1] > LEARN_AGAIN_S:
            known = (watchbook.learned_mib(self._context.database, run.id, run.spec), now_s)
            self._learned[run.id] = known
        return known[0]

    def _put_back(self, run: RunRecord) -> None:
        """The database is older than the run's folder: starting the segment again could repeat a finished run."""
        if recovery.put_back(self._context.home, self._context.database, run.id):
            self._context.talk.say("repairing", run, "put back from its folder")
        else:
            self._hold(
                run, "its folder holds a later segment than the database, and its spec.json is damaged"
            )

    def _hold(self, run: RunRecord, why: str) -> None:
        with contextlib.suppress(LostRace):
            queue.hold(self._context.database, run, why)
            self._context.talk.say("held", run, why)
