"""Which queued runs start now? Asks the governor for each in turn, and claims and starts all that it admits.

What is admitted in one round is claimed in one transaction: each is decided on as if those before it had been claimed
already. What comes before the claim is in `ready`, what comes after it in `launch`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor import need as terms
from backprop.scheduler.governor import opening, starvation
from backprop.scheduler.governor.decide import Decision, Denial, Limits, Need, Reservation, decide
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store import drain, gpu_history
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.admission.preparation import Preparation, PreparedRun, hold
from backprop.worker.admission.waiting_reasons import Starving, WaitingReasons
from backprop.worker.context import Context
from backprop.worker.executor import locks
from backprop.worker.machine.monitor import MachineState, RuntimeMonitor, Sense
from backprop.worker.segments.launch import Launch, launch
from backprop.worker.segments.tracker import SegmentTracker
from backprop.worker.supervisor import failpoint

LEARN_AGAIN_S: Final = 30.0
HEAD: Final = 16
ALL: Final = 200
"""Candidates: so many are looked at where the first may do, else so many of the front of the queue, and as many of what
is behind it, the next ones each time: a queue of ten thousand is gone through, and no look takes long."""
TELL_AGAIN_S: Final = 1.0
"""While as many runs as may are running, what waits is looked at, and told so, this seldom: nothing can start."""


@dataclass
class _Round:
    """One pass over the candidates, on one reading of the machine. `running`, `reservations`: as they will be once
    `starts` are claimed. `waiting`, `behind`: why the others wait, of the front of the queue and of what is behind it.
    `room`: in groups that have a cap. `shut`: somebody was passed over for its full group."""

    picture: MachineState
    running: int
    reservations: list[Reservation]
    room: dict[str, int]
    judged: dict[tuple[Need, Limits], Decision] = field(default_factory=dict[tuple[Need, Limits], Decision])
    starts: list[tuple[PreparedRun, Decision, Need]] = field(
        default_factory=list[tuple[PreparedRun, Decision, Need]]
    )
    waiting: list[tuple[RunRecord, Decision]] = field(default_factory=list[tuple[RunRecord, Decision]])
    behind: list[tuple[RunRecord, Decision]] = field(default_factory=list[tuple[RunRecord, Decision]])
    shut: bool = False

    def add(self, ready: PreparedRun, decision: Decision, need: Need, now_s: float) -> None:
        """`ready` is to be claimed: whoever comes after it finds less room."""
        self.starts.append((ready, decision, need))
        self.judged.clear()
        self.running += 1
        self.reservations += terms.promises_of(ready.run.id, decision.gpu_uuids, need, now_s)
        group = ready.run.group_name
        if group is not None and group in self.room:
            self.room[group] -= 1


class Admitter:
    def __init__(
        self, context: Context, sense: Sense, guard: RuntimeMonitor, tracker: SegmentTracker
    ) -> None:
        self._context = context
        self._reader = sense
        self._monitor = guard
        self._tracker = tracker
        self._admission = locks.Admission(context.home.locks)
        self._preparation = Preparation(context, tracker.checkpoints)
        self._waits = WaitingReasons(context)
        self._closed: tuple[tuple[opening.Drained | None, int], Denial | None] | None = None
        self._learned: dict[str, tuple[int | None, float]] = {}
        self._told_s = -TELL_AGAIN_S
        self._seen_to: RunRecord | None = None

    def admit(self) -> int:
        """Start what may start; how many. Raises DatabaseBusy."""
        now_s = self._context.clock.monotonic_s()
        full = self._is_full(queries.live_count(self._context.database))
        if full and now_s - self._told_s < TELL_AGAIN_S:
            return 0
        limit = ALL if full else HEAD
        candidates = self._candidates(limit)
        if not candidates:
            self._waits.clear()
            self._learned.clear()
            return 0
        if (closed := self._look_closed()) is not None:
            told = [(run, Decision((closed,), ())) for run in self._candidates(ALL)]
            self._waits.tell(told[:ALL], told[ALL:])
            self._told_s = now_s
            return 0
        with self._admission as ours:
            return self._rounds(candidates, limit) if ours else 0

    def _rounds(self, candidates: list[RunRecord], limit: int) -> int:
        """Look at the first `limit`, then at more, and again as long as a group that is full now hides others."""
        started = 0
        while (snapshot := self._reader.snapshot()) is not None:
            whole = limit == ALL or len(candidates) < limit
            this = self._look_at(candidates, snapshot, whole)
            begun = self._begin(this)
            started += begun
            if begun < len(this.starts):
                break  # somebody else has claimed: what was decided on is not what is there any more
            if whole and not this.shut:
                self._waits.tell(this.waiting, this.behind)
                self._told_s = self._context.clock.monotonic_s()
            if self._is_full(this.running) or (whole and not (this.shut and begun)):
                break
            limit, candidates = ALL, self._candidates(ALL)
        return started

    def _is_full(self, running: int) -> bool:
        """A run may only ask for fewer beside it than its worker allows, see `terms.limits_of`."""
        return running >= self._context.settings.max_parallel

    def _look_closed(self) -> Denial | None:
        """Why nothing at all may start, said when it changes. Worked out once a minute: the next opening is found by
        going through the week."""
        now_s = self._context.clock.wall_s()
        seen = (drain.drained(self._context.database), int(now_s // 60))
        before = self._closed
        if before is not None and before[0] == seen:
            return before[1]
        closed = opening.closed(seen[0], self._context.settings.active_hours or (), now_s)
        self._closed = (seen, closed)
        was = before[1] if before is not None else None
        if closed is not None and (was is None or was.rule is not closed.rule):
            self._context.console.event("closed", more=f"not starting runs: {closed.text}")
        elif closed is None and was is not None:
            self._context.console.event("open", more="starting runs again")
        return closed

    def _candidates(self, limit: int) -> list[RunRecord]:
        """The first `limit` of the queue; where that is `ALL`, the next so many of what is behind them too."""
        front = self._queue(limit)
        if limit < ALL or len(front) < limit:
            return front
        last, seen = front[-1], self._seen_to
        begin = seen if seen is not None and _turn(seen) > _turn(last) else last
        behind = self._queue(ALL, begin)
        self._seen_to = behind[-1] if len(behind) == ALL else None
        return front + behind

    def _queue(self, limit: int, after: RunRecord | None = None) -> list[RunRecord]:
        context = self._context
        return queries.queue(context.database, context.clock.wall_s(), limit, context.only, after)

    def _look_at(self, candidates: Sequence[RunRecord], snapshot: Snapshot, whole: bool) -> _Round:
        """Judge `candidates` in queue order, and have those ready that the governor admits. `whole`: those that can
        not start are wanted too. Raises DatabaseBusy."""
        picture = self._monitor.picture(snapshot)
        self._waits.note_alive(len(picture.alive))
        room = queries.group_room(self._context.database)
        this = _Round(picture, len(picture.alive), list(picture.reservations), room)
        quarantined = self._monitor.quarantined() if snapshot.gpus else {}
        aged: Starving | None = None
        try:
            for number, run in enumerate(candidates):
                waiting = this.waiting if number < ALL else this.behind
                if this.room.get(run.group_name or "", 1) <= 0:
                    this.shut = True
                    continue
                if self._is_full(this.running) and not whole:
                    break
                need = terms.need_of(run.spec, snapshot, self._learned_mib(run, snapshot), run.need_mib)
                decision = self._judge(run, need, this, quarantined)
                if decision.infeasible is not None:
                    hold(self._context, run, f"fits nowhere: {decision.infeasible}")
                elif not decision.admitted:
                    waiting.append((run, decision))
                    if number < ALL:
                        aged = aged or self._waits.aged(run, decision)
                elif aged is not None and starvation.keeps_back(aged.wait, need.gpus):
                    waiting.append((run, aged.behind()))
                elif ready := self._prepare(run, this):
                    this.add(ready, decision, need, self._context.clock.wall_s())
        except BaseException:
            _let_go(this.starts)
            raise
        return this

    def _prepare(self, run: RunRecord, this: _Round) -> PreparedRun | None:
        """Trouble with one run is said, and keeps no other from its start. Raises DatabaseBusy."""
        beside = [one.run for one, _, _ in this.starts]
        return self._tracker.attempt(run, lambda: self._preparation.prepare(run, beside))

    def _judge(self, run: RunRecord, need: Need, this: _Round, quarantined: dict[str, str]) -> Decision:
        limits = terms.limits_of(run.spec, self._context.settings)
        decision = this.judged.get((need, limits))
        if decision is None:
            snapshot, peaks = this.picture.snapshot, self._monitor.peaks
            decision = decide(need, limits, snapshot, this.reservations, this.running, quarantined, peaks)
            this.judged[need, limits] = decision
        return decision

    def _begin(self, this: _Round) -> int:
        """Claim what is ready, and start it; how many were. Raises DatabaseBusy."""
        left = list(this.starts)
        if not left:
            return 0
        started, trouble = 0, None
        try:
            for number in self._claim(this):
                ready, decision, need = left.pop(0)
                if number is None:
                    os.close(ready.lock)
                    continue
                started += 1
                try:
                    self._launch(this.picture.snapshot, ready, number, decision, need)
                except Exception as error:
                    # The others are claimed too, and would be lost with it.
                    trouble = error
        finally:
            # Held on, a lock would make its run look alive for as long as this worker lives.
            _let_go(left)
        if trouble is not None and not isinstance(trouble, LostRace):
            raise trouble
        return started

    def _claim(self, this: _Round) -> list[int | None]:
        """Numbers of segments; none when somebody else has claimed meanwhile."""
        wanted = [
            claims.Claim(
                run=ready.run,
                worker=self._context.worker,
                serial=this.picture.serial,
                gpu_uuids=decision.gpu_uuids,
                promised_mib=need.vram_mib if decision.gpu_uuids else 0,
                need_source=need.source,
                exclusive=need.exclusive,
                checkpoint_used=ready.resume.checkpoint,
            )
            for ready, decision, need in this.starts
        ]
        try:
            numbers = claims.claim(self._context.database, wanted, self._context.clock.wall_s())
        except LostRace:
            return []
        failpoint.at("claimed")
        return numbers

    def _launch(
        self, snapshot: Snapshot, ready: PreparedRun, number: int, decision: Decision, need: Need
    ) -> None:
        """Consumes the lock."""
        spec = ready.run.spec
        launch(
            self._context,
            self._tracker,
            Launch(
                run_id=ready.run.id,
                number=number,
                lock=ready.lock,
                checkpoint=ready.resume.checkpoint,
                gpus=[gpu for uuid in decision.gpu_uuids if (gpu := snapshot.gpu(uuid)) is not None],
                promised_mib=need.vram_mib if decision.gpu_uuids else 0,
                limit_mib=terms.memory_limit_mib(spec, snapshot) if decision.gpu_uuids else None,
            ),
        )
        for broken in ready.resume.passed_over:
            self._context.console.event("passed over", ready.run, f"checkpoint {broken}")

    def _learned_mib(self, run: RunRecord, snapshot: Snapshot) -> int | None:
        """Asked only where it can matter, and for each run only now and then."""
        if not snapshot.gpus or run.spec.gpu_memory_limit is not None or run.spec.gpu_min_vram_declared:
            return None
        now_s = self._context.clock.monotonic_s()
        known = self._learned.get(run.id)
        if known is None or now_s - known[1] > LEARN_AGAIN_S:
            known = (gpu_history.learned_mib(self._context.database, run.id, run.spec), now_s)
            self._learned[run.id] = known
        return known[0]


def _turn(run: RunRecord) -> tuple[int, float, str]:
    return -run.priority, run.turn_s, run.id


def _let_go(starts: Sequence[tuple[PreparedRun, Decision, Need]]) -> None:
    for ready, _, _ in starts:
        os.close(ready.lock)
