"""Suspends live segments and lets them go on, in steps that any worker can take up again.

    decide                                                            the end of a box, or its user
    suspend.json: leaving, number N; its VRAM goes out                where it can be moved, see `vram_moves`
    suspend.json: suspend, number N                                   then a signal
    the supervisor freezes the tree, and answers in pause.json
    the row: running -> suspended                                     its slot is free from here on
    ...
    the row: suspended -> running, order N is over                    in its turn, with a slot
    its GPU shows room                                                where its VRAM is out, see `vram_return`
    box-N.json: another box; suspend.json: go on                      then a signal
    the supervisor lets the tree go on
    its VRAM comes in                                                 where it is out

Each step leaves on disk or in the row what the next one needs. A row that is running beside an order to suspend is
therefore either on its way there, or on its way back where the row says that the order is over.
"""

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor.model import amount
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import ASKED, RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import suspensions
from backprop.worker.context import Context
from backprop.worker.executor import box_files, segment_files, suspend_files
from backprop.worker.executor.suspend_files import SuspendOrder
from backprop.worker.executor.vram import move_files, promised
from backprop.worker.executor.vram.target import NoTarget, Target
from backprop.worker.machine.reader import MachineReadings
from backprop.worker.machine.state import MachineState
from backprop.worker.segments import timebox
from backprop.worker.segments.boxes.keeper import NOT_SEEN
from backprop.worker.segments.boxes.suspendable import Suspendable, ram_mib
from backprop.worker.segments.boxes.vram_moves import MOMENT_S, VramMoves, Where
from backprop.worker.segments.boxes.vram_return import VramReturn, owned
from backprop.worker.segments.ends.chain import begun_in_chain
from backprop.worker.supervisor import failpoint

SIGNAL_EVERY_S: Final = 2.0
ANSWER_S: Final = 60.0
"""Its supervisor tries for half a minute."""
LOOK_EVERY_S: Final = 10.0
AGAIN_S: Final = 30.0
"""After it was refused, the end of a box asks for it again no sooner."""
LEAST_LEFT: Final = 0.1
"""Of a box of which less is left at a thaw, the segment gets another one."""

_Key = tuple[str, int]


class _UnderWay(msgspec.Struct):
    """An order whose answer is awaited, and when it was given and last signalled, on the monotonic clock. `stays`: why
    its VRAM stays on its GPU, None where that does not, or is not known."""

    order: SuspendOrder
    begun_s: float
    signalled_s: float
    stays: str | None = None


class Suspender:
    """The suspensions of one worker. `snapshot`: returns the newest reading of the machine. `state`: what is made of
    one. `why_not_end`: returns what would be lost if a run were asked to save and end; None for nothing."""

    def __init__(
        self,
        context: Context,
        snapshot: MachineReadings,
        state: Callable[[Snapshot], MachineState],
        why_not_end: Callable[[RunRecord], str | None],
    ) -> None:
        self._context = context
        self._why_not_end = why_not_end
        self._snapshot = snapshot
        self._vram = VramMoves(context, snapshot)
        self._return = VramReturn(context, self._vram, snapshot, state, self._let_go_on, self._stand_still)
        self.candidates = Suspendable(context, self._vram, snapshot)
        self._under_way: dict[_Key, _UnderWay] = {}
        self._looked_s: dict[_Key, float] = {}
        self._refused: dict[_Key, tuple[str, float]] = {}

    @property
    def leaving(self) -> frozenset[str]:
        """The runs that are about to leave their slots."""
        return frozenset(run_id for run_id, _ in self._under_way)

    def is_moving(self, run: RunRecord) -> bool:
        """Return whether nothing may be asked of a live run now: its VRAM is not where it belongs, or may not be.
        Raises nothing."""
        with contextlib.suppress(OSError):
            return self._return.is_away((run.id, run.segment))
        return True

    def why_not_in(self) -> str | None:
        """Return why no VRAM comes back now, whatever room there is; None where it may."""
        return self._vram.stuck

    def attend(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Take the next step, where one is due. Call once per tick for each live run of this worker. Raises OSError,
        LostRace, DatabaseBusy."""
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        if run.intent is not None or run.state is State.SUSPENDED:
            # An end comes first: the supervisor lets it go on for that.
            self._under_way.pop(key, None)
        if run.intent is not None:
            if self._return.is_away(key):
                self._return.end(run, segment)
            return
        if key in self._under_way:
            self._advance(run, segment, self._under_way[key])
        elif run.state is not State.SUSPENDED and key in self._looked_s and self._return.is_away(key):
            self._return.attend(run, segment)
        elif now_s - self._looked_s.get(key, -LOOK_EVERY_S) >= LOOK_EVERY_S:
            if run.state is State.SUSPENDED:
                self._confirm_suspended(run, segment)
            else:
                self._take_up(run, segment)
            self._looked_s[key] = now_s
        elif run.suspension == ASKED and run.state is not State.SUSPENDED:
            self.begin(run, segment, "asked by the user", kept=True)

    def forget(self, keys: Collection[_Key]) -> None:
        """Keep nothing but what concerns these live segments."""
        for kept in (self._under_way, self._refused, self._looked_s):
            for key in [key for key in kept if key not in keys]:
                del kept[key]
        self._vram.forget(keys)
        self._return.forget(keys)
        self.candidates.forget(keys)

    def why_not(self, run: RunRecord, segment: SegmentRecord, newcomer: bool, swaps: bool) -> str | None:
        """As `Suspendable.why_not`; for a while, why it was refused. Raises OSError, DatabaseBusy."""
        refused, refused_s = self._refused.get((run.id, run.segment), ("", 0.0))
        if refused and self._context.clock.monotonic_s() - refused_s < AGAIN_S:
            return refused
        return self.candidates.why_not(run, segment, newcomer, swaps)

    def begin(self, run: RunRecord, segment: SegmentRecord, why: str, kept: bool = False) -> None:
        """Order a live segment to be suspended. One at a time, but for those that a user asks for: two must not leave
        for one that waits. Raises OSError, DatabaseBusy."""
        key, folder = (run.id, run.segment), self._context.executor.folder(run.id, run.segment)
        if key in self._under_way or (self._under_way and not kept):
            return
        unread = bool(segment.gpu_uuids) and self._snapshot(MOMENT_S) is None
        if kept and (unread or segment_files.read_processes(folder) is None):
            return  # what can be done is known once its GPU has been read, and its supervisor is there
        if not suspend_files.obeys(folder):
            self._give_up(run, None, "its supervisor is an earlier version's, or not there yet")
            return
        known = suspend_files.read(folder)
        number = max(known.number if known is not None else 0, segment.suspensions) + 1
        order = SuspendOrder(
            number=number,
            wanted="leaving",
            why=why,
            kept=kept,
            thaw_at_s=run.thaw_at_s if kept else None,
            at_s=self._context.clock.wall_s(),
        )
        now_s = self._context.clock.monotonic_s()
        under_way = _UnderWay(order, now_s, now_s)
        try:
            target = self._vram.target(run, segment)
        except NoTarget as error:
            if kept and self._vram.is_used(run, segment):
                # Its user wants the GPU: to stand still in place would not give that back.
                self._give_up(run, None, f"its VRAM stays: {error}")
                return
            under_way.stays = str(error) if segment.gpu_uuids else None
            self._freeze(run, under_way)
            return
        suspend_files.write(folder, order)
        self._send_out(run, under_way, target)

    def _send_out(self, run: RunRecord, under_way: _UnderWay, target: Target) -> None:
        key = (run.id, run.segment)
        failpoint.at("leaving")
        self._under_way[key] = under_way
        self._return.away.add(key)
        self._vram.send_out(key, under_way.order.number, target)
        self._context.console.event(
            "leaving", run, f"segment {run.segment}: its {amount(target.mib)} of VRAM go to RAM"
        )

    def _freeze(self, run: RunRecord, under_way: _UnderWay) -> None:
        """Order the supervisor to freeze the tree."""
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        failpoint.at("ordering suspension")
        order = msgspec.structs.replace(under_way.order, wanted="suspended")
        suspend_files.write(self._context.executor.folder(*key), order)
        failpoint.at("ordered suspension")
        self._under_way[key] = _UnderWay(order, now_s, now_s, under_way.stays)
        self._context.executor.pause(*key)

    def thaw(self, run: RunRecord, most: int, promise: suspensions.Promised | None = None) -> bool:
        """Let a suspended run go on in a slot of this worker. False where somebody was faster. `most`: how many runs
        may hold a slot. `promise`: where its VRAM is in RAM. Raises OSError, DatabaseBusy."""
        folder = self._context.executor.folder(run.id, run.segment)
        order = suspend_files.read(folder)
        segment = queries.segment(self._context.database, run.id, run.segment)
        number = max(
            order.number if order is not None else 0, segment.suspensions if segment is not None else 0
        )
        try:
            now_s = self._context.clock.wall_s()
            suspensions.thaw(self._context.database, run, self._context.worker, number, most, now_s, promise)
        except LostRace:
            return False
        failpoint.at("thaw claimed")
        self._context.console.event("thawed", run, f"segment {run.segment} goes on where it stood")
        if self._return.is_away((run.id, run.segment)):
            return True
        with contextlib.suppress(OSError):  # taken up again by the next tick
            self._let_go_on(run, number)
        return True

    def _take_up(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Find out what an earlier worker has left undone, or an older copy of the database does not know."""
        key, folder = (run.id, run.segment), self._context.executor.folder(run.id, run.segment)
        order = suspend_files.read(folder)
        if order is None or not (order.suspends or order.leaves):
            return
        if order.number <= segment.suspensions:
            if order.suspends and not self._return.is_away(key):
                self._let_go_on(run, order.number)
            return
        now_s = self._context.clock.monotonic_s()
        self._under_way[key] = _UnderWay(order, now_s, now_s)
        if order.suspends:
            self._context.executor.pause(*key)

    def _confirm_suspended(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Believe the folder where the database is an older copy: what goes on there is not suspended."""
        folder = self._context.executor.folder(run.id, run.segment)
        order = suspend_files.read(folder)
        if order is None or order.suspends:
            if segment.vram_out_mib is not None and not self._return.is_away((run.id, run.segment)):
                suspensions.promise_after_all(self._context.database, run)
            return
        number = max(order.number, segment.suspensions)
        now_s = self._context.clock.wall_s()
        suspensions.thaw(self._context.database, run, self._context.worker, number, None, now_s)

    def _advance(self, run: RunRecord, segment: SegmentRecord, under_way: _UnderWay) -> None:
        if under_way.order.leaves:
            self._await_vram(run, segment, under_way)
        else:
            self._await_answer(run, under_way)

    def _await_vram(self, run: RunRecord, segment: SegmentRecord, under_way: _UnderWay) -> None:
        """Freeze the tree once its VRAM is seen to be off its GPU."""
        key, order = (run.id, run.segment), under_way.order
        if order.kept and run.suspension is None:
            self._withdraw(run, order.number)
            return
        if self._vram.number(key) != order.number:
            # Who ordered it was gone before the move itself was ordered.
            try:
                self._send_out(run, under_way, self._vram.target(run, segment))
            except NoTarget as error:
                under_way.stays = str(error)
                if order.kept:
                    self._give_up(run, order.number, f"its VRAM stays: {error}")
                else:
                    self._freeze(run, under_way)
            return
        self._return.away.add(key)
        match self._vram.step(key):
            case Where.OUT if self._vram.is_gone(key):
                failpoint.at("vram is out")
                self._freeze(run, under_way)
            case Where.OUT:
                if self._context.clock.monotonic_s() - under_way.begun_s >= self._patience_s(key):
                    self._vram_stays(run, "it is still on its GPU though the driver says otherwise")
                    self._give_up(run, order.number, "its VRAM is still on its GPU")
            case Where.STAYED | Where.HERE:
                why = self._vram.what_failed(key)
                self._return.away.discard(key)
                self._vram_stays(run, why)
                self._give_up(run, order.number, f"its VRAM cannot be moved: {why}")
            case Where.STRANDED:
                self._under_way.pop(key, None)
                self._return.strand(run)
            case Where.LEAVING | Where.COMING:
                if self._vram.stuck is not None:
                    self._under_way.pop(key, None)  # nothing of it is touched before the driver answers

    def _patience_s(self, key: _Key) -> float:
        return ANSWER_S + move_files.patience_s(self._vram.out_mib(key) or 0)

    def _vram_stays(self, run: RunRecord, why: str) -> None:
        suspensions.vram_stays(self._context.database, run, why)

    def _await_answer(self, run: RunRecord, under_way: _UnderWay) -> None:
        key, order = (run.id, run.segment), under_way.order
        now_s = self._context.clock.monotonic_s()
        answer = suspend_files.answer(self._context.executor.folder(*key), order.number)
        if answer is not None and answer.refused is None:
            self._settle(run, under_way)
        elif answer is not None:
            self._give_up(run, order.number, answer.refused or "")
        elif now_s - under_way.begun_s >= ANSWER_S:
            self._give_up(run, order.number, "its supervisor does not answer")
        elif now_s - under_way.signalled_s >= SIGNAL_EVERY_S:
            under_way.signalled_s = now_s
            self._context.executor.pause(*key)

    def _settle(self, run: RunRecord, under_way: _UnderWay) -> None:
        """Put into the row that a run is frozen."""
        context, order, key = self._context, under_way.order, (run.id, run.segment)
        out_mib = self._vram.out_mib(key) if self._vram.where(key) is Where.OUT else None
        kept_mib = ram_mib(context.executor.pids(run.id, run.segment))
        if order.kept and run.suspension is None:
            # Its user has taken that back meanwhile.
            self._withdraw(run, order.number)
            return
        if out_mib is not None:
            # Frozen with its VRAM in RAM: other homes may use its place.
            folder = context.executor.folder(*key)
            promised.set_aside(folder, lambda: owned(context, run))
        failpoint.at("recording suspension")
        stays = f"; its VRAM stays on its GPU: {under_way.stays}" if under_way.stays is not None else ""
        why, now_s = f"{order.why}{stays}", context.clock.wall_s()
        suspensions.suspended(context.database, run, why, kept_mib, now_s, out_mib, order.at_s)
        failpoint.at("recorded suspension")
        self._under_way.pop(key, None)
        moved = f", {amount(out_mib)} of it VRAM" if out_mib is not None else stays
        context.console.event(
            "suspended", run, f"segment {run.segment}: {order.why}; it keeps {amount(kept_mib)} of RAM{moved}"
        )

    def _give_up(self, run: RunRecord, number: int | None, why: str) -> None:
        """Let a run go on that cannot be suspended, and say why. One that its user wants away is asked to save and end
        instead, where that loses nothing."""
        key = (run.id, run.segment)
        asked = run.suspension == ASKED
        if asked:
            lost = self._why_not_end(run)
            if lost == NOT_SEEN and number is None:
                return  # soon it will be
            if lost is None:
                self._ask_to_leave(run, number, f"it can't be suspended in place: {why}")
                return
            why = f"{why}; {lost}; backprop stop {run.id} ends it all the same"
        self._refused[key] = (why, self._context.clock.monotonic_s())
        reason = f"not suspended: {why}"
        if number is not None:
            self._withdraw(run, number, reason if asked else None)
        elif asked:
            segment = queries.segment(self._context.database, *key)
            suspensions.over(self._context.database, run, segment.suspensions if segment else 0, reason)
        self._context.console.event("kept", run, f"segment {run.segment} is {reason}")

    def _ask_to_leave(self, run: RunRecord, number: int | None, why: str) -> None:
        """Have a run save and end, and held off then. Its own worker asks it, as for any other end."""
        suspensions.leave(self._context.database, run, why, number)
        if number is not None:
            self._take_back(run, number, why)
        self._under_way.pop((run.id, run.segment), None)

    def _withdraw(self, run: RunRecord, number: int, reason: str | None = None) -> None:
        self._take_back(run, number, reason or "")
        suspensions.over(self._context.database, run, number, reason)
        self._under_way.pop((run.id, run.segment), None)

    def _take_back(self, run: RunRecord, number: int, why: str) -> None:
        """Have the supervisor let a tree go on, if it has stopped that already."""
        key = (run.id, run.segment)
        order = SuspendOrder(number=number, wanted="running", why=why)
        suspend_files.write(self._context.executor.folder(*key), order)
        if run.state is State.RUNNING:
            self._context.executor.unpause(*key)

    def _let_go_on(self, run: RunRecord, number: int) -> None:
        """Take the steps of a thaw that follow its claim: what the script finds first, then the order."""
        key, folder = (run.id, run.segment), self._context.executor.folder(run.id, run.segment)
        self._give_box(run, folder)
        failpoint.at("box given")
        suspend_files.write(folder, SuspendOrder(number=number, wanted="running"))
        failpoint.at("thaw ordered")
        self._context.executor.unpause(*key)

    def _stand_still(self, run: RunRecord, segment: SegmentRecord, why: str) -> None:
        """Freeze again what was let go on, and finds no room for its VRAM."""
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        known = suspend_files.read(self._context.executor.folder(*key))
        number = max(known.number if known is not None else 0, segment.suspensions) + 1
        order = SuspendOrder(number=number, wanted="suspended", why=why, at_s=self._context.clock.wall_s())
        self._freeze(run, _UnderWay(order, now_s, now_s))

    def _give_box(self, run: RunRecord, folder: Path) -> None:
        """Give another box to a run that was suspended at the end of one; what was left of it to any other."""
        order, elapsed_s = segment_files.read_order(folder), segment_files.running_s(folder)
        if order is None or elapsed_s is None or order.at_timebox != "auto":
            return
        box, ends_s = box_files.in_force(folder, order.timebox_s)
        box_s = timebox.box_s(run)
        if ends_s - elapsed_s >= LEAST_LEFT * box_s or self._is_last(run, box):
            return
        left_s = run.spec.max_total_s - run.chain_total_s if run.spec.max_total_s is not None else None
        until_s = max(ends_s, elapsed_s) + box_s
        until_s = until_s if left_s is None else min(until_s, max(left_s, ends_s + 1.0))
        box_files.renew(folder, box, until_s, "its next turn", self._context.worker)

    def _is_last(self, run: RunRecord, box: int) -> bool:
        if run.spec.max_segments is None:
            return False
        earlier = [
            one for one in queries.segments(self._context.database, run.id) if one.number < run.segment
        ]
        return begun_in_chain(run, run.segment, earlier) - 1 + box >= run.spec.max_segments
