"""Decides which queued runs start, and records why the others wait.

The governor judges each candidate in queue order, as if those admitted before it had been claimed already.
`preparation` does what comes before the claim; `start` claims all that was admitted in one round, and starts it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.scheduler.governor import starvation
from backprop.scheduler.governor.decide import Decision, Denial, Need, Rule
from backprop.scheduler.governor.disk import Growth
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store import gpu_history
from backprop.scheduler.store.reads import disk_use, queries
from backprop.scheduler.store.writes.suspensions import Promised
from backprop.worker.admission.hand_over import HandOver
from backprop.worker.admission.host_gate import HostGate
from backprop.worker.admission.judge import Judge
from backprop.worker.admission.missing_paths import MissingPaths
from backprop.worker.admission.preparation import AdmittedRun, Preparation, PreparedRun, hold, release_locks
from backprop.worker.admission.start import Starter
from backprop.worker.admission.waiting_reasons import Starving, WaitingReasons
from backprop.worker.admission.wanted import group_wants, suspended_first, wanted_places
from backprop.worker.context import Context
from backprop.worker.executor import locks
from backprop.worker.machine.monitor import RuntimeMonitor, Sense
from backprop.worker.machine.state import MachineState, read_opening
from backprop.worker.segments.boxes.facts import Wanted
from backprop.worker.segments.tracker import SegmentTracker

LEARN_AGAIN_S: Final = 30.0
HEAD: Final = 16
ALL: Final = 200
"""Candidates per round: `HEAD` of the queue where the first may do, else `ALL` of its front and as many of those behind
it, the next ones each time. So a queue of ten thousand is gone through, and no round takes long."""
JUDGE_AGAIN_S: Final = 1.0
"""While no slot is free nothing can start, so waiting runs are judged, and get their reasons, only this often."""


class _Round(msgspec.Struct):
    """One pass over the candidates, on one reading of the machine. `thawed`: suspended runs that go on.

    `starts`: what is to be claimed. `waiting`, `behind`: why the others wait, of the front of the queue and of what is
    behind it. `group_room`: of the groups that have a cap. `group_full`: a candidate was passed over for its full
    group."""

    state: MachineState
    judge: Judge
    group_room: dict[str, int]
    starts: list[AdmittedRun] = []
    waiting: list[tuple[RunRecord, Decision]] = []
    behind: list[tuple[RunRecord, Decision]] = []
    group_full: bool = False
    thawed: set[str] = set()

    def add(self, prepared: PreparedRun, decision: Decision, need: Need, now_s: float) -> None:
        """Add a run that is to be claimed: whatever comes after it finds less room."""
        self.starts.append((prepared, decision, need))
        self.judge.plan(prepared.run.id, need, decision, now_s)
        self._leave_group(prepared.run)

    def add_thawed(self, run: RunRecord, need: Need | None, decision: Decision, now_s: float) -> None:
        """Count a suspended run that goes on. `need`: what is promised to it again."""
        self.thawed.add(run.id)
        self.judge.add_thawed(run.id, need, decision, now_s)
        self._leave_group(run)

    def _leave_group(self, run: RunRecord) -> None:
        if run.group_name is not None and run.group_name in self.group_room:
            self.group_room[run.group_name] -= 1


class Admitter:
    def __init__(
        self, context: Context, reader: Sense, monitor: RuntimeMonitor, tracker: SegmentTracker
    ) -> None:
        self._context = context
        self._reader = reader
        self._monitor = monitor
        self._tracker = tracker
        self._admission = locks.Admission(context.home.locks)
        self._paths = MissingPaths(context.clock, context.files)
        self._preparation = Preparation(context, tracker.checkpoints, self._paths)
        self._starter = Starter(context, tracker)
        self._hand_over = HandOver(context, tracker, self._preparation, self._starter)
        self._waits = WaitingReasons(context)
        self._breaker = tracker.breaker
        self._host = HostGate(context, self._breaker)
        self._closed: Denial | None = None
        self._learned: dict[str, tuple[int | None, float]] = {}
        self._grown: dict[str, tuple[int, Growth | None]] = {}
        self._judged_s = -JUDGE_AGAIN_S
        self._judged_to: RunRecord | None = None
        self.head_waits_for: tuple[Denial, ...] = ()
        """Why the first waiting run of the queue did not start when it was last judged; empty where none waits."""

    def admit(self) -> int:
        """Start every run that may start, here and elsewhere; return how many were started. Raises DatabaseBusy."""
        return self._hand_over.admit() + self._admit_here()

    def _admit_here(self) -> int:
        now_s = self._context.clock.monotonic_s()
        full = self._is_full(queries.slot_count(self._context.database))
        if full and now_s - self._judged_s < JUDGE_AGAIN_S:
            return 0
        limit = ALL if full else HEAD
        candidates = self._candidates(limit)
        if not candidates:
            self.head_waits_for = ()
            self._tracker.out_of_hours = self._is_out_of_hours()
            self._waits.clear()
            self._tracker.wanted = self._wanted_by_groups()
            self._paths.forget()
            self._learned.clear()
            self._grown.clear()
            return 0
        closed = self._check_closed(full)
        self._tracker.out_of_hours = closed is not None and closed.rule is Rule.HOURS
        if closed is not None:
            refused = [(run, Decision((closed,), ())) for run in self._candidates(ALL)]
            self._waits.record(refused[:ALL], refused[ALL:])
            self.head_waits_for = (closed,)
            self._tracker.wanted = {}
            self._judged_s = now_s
            return 0
        if self._host.is_starting and not full:
            return 0
        self._paths.look_again()
        with self._admission as acquired:
            return self._rounds(candidates, limit) if acquired else 0

    @property
    def is_closed(self) -> bool:
        """Whether nothing at all is started now, and nobody knows for how long."""
        return self._closed is not None and self._closed.rule is not Rule.HOURS

    def judge_again(self) -> None:
        """Judge all anew in the next tick, and say so: how many runs may run at once has changed."""
        self._judged_s = -JUDGE_AGAIN_S
        self._waits.tell_again()

    def _rounds(self, candidates: list[RunRecord], limit: int) -> int:
        """Judge the first `limit`, then more, and again as long as a group that is full now hides others."""
        started = 0
        while (snapshot := self._reader.snapshot()) is not None:
            whole = limit == ALL or len(candidates) < limit
            round_ = self._judge_all(candidates, snapshot, whole)
            if self._host.allows_one and (round_.starts or whole):
                return started + self._try_one(round_)
            begun = self._starter.start(round_.starts, round_.state)
            started += begun
            if begun < len(round_.starts):
                break  # another worker has claimed, or another home promised: the state decided on is out of date
            first = next(iter(round_.waiting), None)
            if first is not None or whole:
                self.head_waits_for = first[1].denials if first is not None else ()
            if whole and not round_.group_full:
                self._waits.record(round_.waiting, round_.behind)
                self._note_wanted(round_)
                self._judged_s = self._context.clock.monotonic_s()
            begun += len(round_.thawed)
            started += len(round_.thawed)
            if self._is_full(round_.judge.running) or (whole and not (round_.group_full and begun)):
                break
            limit, candidates = ALL, self._candidates(ALL)
        return started

    def _try_one(self, round_: _Round) -> int:
        """Start the one run that shows whether this machine can start runs again."""
        for prepared, _, _ in round_.starts:
            self._breaker.try_with((prepared.run.id, prepared.run.segment + 1))
        begun = self._starter.start(round_.starts, round_.state)
        self._waits.record(round_.waiting, round_.behind)
        return begun

    def _is_full(self, running: int) -> bool:
        """Return whether no run may start beside `running` others: a run may only lower its worker's limit, see
        `need.limits_of`."""
        return running >= self._context.settings.max_parallel

    def _is_out_of_hours(self) -> bool:
        opening = read_opening(self._context.database, self._context.settings, self._context.clock.wall_s())
        return opening.closed is not None and opening.closed.rule is Rule.HOURS

    def _check_closed(self, full: bool) -> Denial | None:
        """Return why nothing at all may start; print it when that changes. Needs no reading of the machine. `full`: no
        slot is free, so whether this machine can start runs does not matter now."""
        context, before = self._context, self._closed
        closed = read_opening(context.database, context.settings, context.clock.wall_s()).closed
        if closed is None and not full:
            closed = self._host.check()
        if closed is None and before is not None and before.rule is Rule.HOST and self._host.allows_one:
            return None  # one run is tried; whether the others may start is not known yet
        self._closed = closed
        if closed is not None and (before is None or before.rule is not closed.rule):
            context.console.event("closed", more=f"not starting runs: {closed.text}")
            if closed.rule is Rule.HOST:
                context.console.bell(closed.text)
        elif closed is None and before is not None:
            context.console.event("open", more="starting runs again")
        return closed

    def _candidates(self, limit: int) -> list[RunRecord]:
        """Return the first `limit` of the queue; where that is `ALL`, also the next `ALL` of those behind them."""
        front = self._queue(limit)
        if limit < ALL or len(front) < limit:
            return front
        last, judged_to = front[-1], self._judged_to
        begin = judged_to if judged_to is not None and _turn(judged_to) > _turn(last) else last
        behind = self._queue(ALL, begin)
        self._judged_to = behind[-1] if len(behind) == ALL else None
        return front + behind

    def _queue(self, limit: int, after: RunRecord | None = None) -> list[RunRecord]:
        context = self._context
        return queries.queue(context.database, context.clock.wall_s(), limit, context.only, after)

    def _judge_all(self, candidates: Sequence[RunRecord], snapshot: Snapshot, whole: bool) -> _Round:
        """Judge `candidates` in queue order, and prepare those that the governor admits. `whole`: go on once no slot
        is left, to find out why the others wait. Raises DatabaseBusy."""
        state = self._monitor.read_state(snapshot)
        self._waits.note_alive(len(state.segments))
        group_room = queries.group_room(self._context.database)
        settings = self._context.settings
        round_ = _Round(state, Judge(state, settings), group_room)
        starving: Starving | None = None
        try:
            for number, run in enumerate(candidates):
                waiting = round_.waiting if number < ALL else round_.behind
                if round_.group_room.get(run.group_name or "", 1) <= 0:
                    round_.group_full = True
                    continue
                if self._is_full(round_.judge.running) and not whole:
                    break
                if run.state is State.SUSPENDED:
                    if (refused := self._thaw(run, round_)) is not None:
                        waiting.append((run, refused))
                        if (
                            number < ALL
                            and starving is None
                            and any(one.rule is Rule.VRAM for one in refused.denials)
                        ):
                            starving = self._starving(run, refused)
                    continue
                if (denial := suspended_first(run, candidates, round_.thawed, state, settings)) is not None:
                    waiting.append((run, Decision((denial,), ())))
                    continue
                learned_mib = self._learned_mib(run, snapshot)
                need, decision = round_.judge.judge(run.spec, learned_mib, run.need_mib, self._growth(run))
                if decision.infeasible is not None:
                    hold(self._context, run, decision.sentence())
                elif self._host.allows_one and round_.starts:
                    waiting.append((run, Decision((self._host.denial(),), ())))
                elif not decision.admitted:
                    waiting.append((run, decision))
                    if number < ALL and starving is None:
                        starving = self._starving(run, decision)
                elif starving is not None and starvation.keeps_back(starving.wait, need.gpus):
                    waiting.append((run, starving.behind()))
                elif isinstance(prepared := self._prepare(run, round_), Decision):
                    waiting.append((run, prepared))
                elif prepared is not None:
                    round_.add(prepared, decision, need, self._context.clock.wall_s())
        except BaseException:
            release_locks(round_.starts)
            raise
        return round_

    def _thaw(self, run: RunRecord, round_: _Round) -> Decision | None:
        """Let a suspended run go on; return why it has to wait. Raises DatabaseBusy."""
        suspender = self._tracker.suspender
        need, decision = round_.judge.judge_thaw(run)
        if need is not None and (why := suspender.why_not_in()) is not None:
            return Decision((Denial(Rule.SUSPENDED, None, None, why),), ())
        if not decision.admitted:
            return decision
        # Those that are to be started in this round have no slot in the database yet.
        most = self._context.settings.max_parallel - len(round_.starts)
        promise = Promised(need.vram_mib, round_.state.serial) if need is not None else None
        if self._tracker.attempt(run, lambda: suspender.thaw(run, most, promise)):
            round_.add_thawed(run, need, decision, self._context.clock.wall_s())
        return None

    def _note_wanted(self, round_: _Round) -> None:
        """Note whose places could be used by those that have to wait. Raises DatabaseBusy."""
        context, live = self._context, self._tracker.live()
        self._tracker.wanted = wanted_places(
            round_.waiting,
            live,
            round_.state,
            context.settings,
            {run_id: mib for run_id, (mib, _) in self._learned.items()},
            queries.full_groups(context.database, context.clock.wall_s()) if live else (),
            context.clock.wall_s(),
            self._tracker.suspender.leaving,
            self._tracker.suspender.candidates.movable(live, round_.state.snapshot, round_.state.segments),
        )

    def _wanted_by_groups(self) -> dict[str, Wanted]:
        """Return the live runs whose places members of their own groups wait for, which are no candidates."""
        context = self._context
        full = queries.full_groups(context.database, context.clock.wall_s())
        live = self._tracker.live() if full else ()
        return {run.id: group_wants(run) for run in live if run.group_name in full}

    def _starving(self, run: RunRecord, decision: Decision) -> Starving | None:
        """Return a refused run as the head of the line. One that waits for a path as well could not start, so it holds
        nobody back."""
        head = self._waits.starving(run, decision)
        return head if head is not None and self._paths.refusal(run) is None else None

    def _prepare(self, run: RunRecord, round_: _Round) -> PreparedRun | Decision | None:
        """Prepare a start; return why a run has to wait for a path or a port. Trouble with one run is reported,
        and keeps no other from its start. Raises DatabaseBusy."""
        beside = [prepared.run for prepared, _, _ in round_.starts]
        return self._tracker.attempt(run, lambda: self._preparation.prepare(run, beside))

    def _learned_mib(self, run: RunRecord, snapshot: Snapshot) -> int | None:
        """Return what earlier segments used at most. Asked only where it matters, and per run only now and then."""
        if not snapshot.gpus or run.spec.gpu_memory_limit is not None or run.spec.gpu_min_vram_declared:
            return None
        now_s = self._context.clock.monotonic_s()
        known = self._learned.get(run.id)
        if known is None or now_s - known[1] > LEARN_AGAIN_S:
            known = (gpu_history.learned_mib(self._context.database, run.id, run.spec), now_s)
            self._learned[run.id] = known
        return known[0]

    def _growth(self, run: RunRecord) -> Growth | None:
        """Return what one more segment adds to its disk. Asked once per segment."""
        if run.segment == 0:
            return None
        known = self._grown.get(run.id)
        if known is None or known[0] != run.segment:
            known = self._grown[run.id] = (run.segment, disk_use.usual_growth(self._context.database, run))
        return known[1]


def _turn(run: RunRecord) -> tuple[int, float, str]:
    return -run.priority, run.turn_s, run.id
