"""Suspends live segments and lets them go on, in steps that any worker can take up again.

    decide                                                            the end of a box, or its user
    suspend.json: suspend, number N                                   then a signal
    the supervisor freezes the tree, and answers in pause.json
    the row: running -> suspended                                     its slot is free from here on
    ...
    the row: suspended -> running, order N is over                    in its turn, with a slot
    box-N.json: another box; suspend.json: go on                      then a signal
    the supervisor lets the tree go on

Each step leaves on disk or in the row what the next one needs. A row that is running beside an order to suspend is
therefore either on its way there, or on its way back where the row says that the order is over.
"""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backprop.scheduler.config.choices import SuspendRule
from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor.model import amount
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.governor.suspension import RamRoom, why_no_room
from backprop.scheduler.lifecycle import HOLDS_A_SLOT, State
from backprop.scheduler.records import ASKED, RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import suspensions
from backprop.worker.context import Context
from backprop.worker.executor import box_files, segment_files, suspend_files
from backprop.worker.executor.suspend_files import SuspendOrder
from backprop.worker.segments import timebox
from backprop.worker.segments.boxes.fragile import why_fragile
from backprop.worker.segments.result import begun_in_chain
from backprop.worker.supervisor import failpoint, process_tree

SIGNAL_EVERY_S: Final = 2.0
ANSWER_S: Final = 60.0
"""Its supervisor tries for half a minute."""
LOOK_EVERY_S: Final = 10.0
AGAIN_S: Final = 30.0
"""After it was refused, the end of a box asks for it again no sooner."""
LEAST_LEFT: Final = 0.1
"""Of a box of which less is left at a thaw, the segment gets another one."""
MIB: Final = 1024 * 1024

_Key = tuple[str, int]


@dataclass
class _UnderWay:
    """An order whose answer is awaited, and when it was given and last signalled, on the monotonic clock."""

    order: SuspendOrder
    begun_s: float
    signalled_s: float


class Suspender:
    """The suspensions of one worker. `snapshot`: returns the newest reading of the machine."""

    def __init__(self, context: Context, snapshot: Callable[[], Snapshot | None]) -> None:
        self._context = context
        self._snapshot = snapshot
        self._under_way: dict[_Key, _UnderWay] = {}
        self._looked_s: dict[_Key, float] = {}
        self._refused: dict[_Key, tuple[str, float]] = {}

    @property
    def leaving(self) -> frozenset[str]:
        """The runs that are about to leave their slots."""
        return frozenset(run_id for run_id, _ in self._under_way)

    def attend(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Take the next step, where one is due. Call once per tick for each live run of this worker. Raises OSError,
        LostRace, DatabaseBusy."""
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        if run.intent is not None or run.state is State.SUSPENDED:
            # An end comes first: the supervisor lets it go on for that.
            self._under_way.pop(key, None)
        if run.intent is not None:
            return
        if key in self._under_way:
            self._await_answer(run, self._under_way[key])
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

    def why_not(self, run: RunRecord, segment: SegmentRecord, newcomer: bool, swaps: bool) -> str | None:
        """Return why the end of its box may not suspend a run, in words; None where it may. `newcomer`, `swaps`: see
        `suspension.why_no_room`. Raises OSError, DatabaseBusy."""
        refused, refused_s = self._refused.get((run.id, run.segment), ("", 0.0))
        if refused and self._context.clock.monotonic_s() - refused_s < AGAIN_S:
            return refused
        if run.spec.suspend == SuspendRule.NEVER:
            return "--no-suspend"
        if run.spec.order == "fifo":
            return "it keeps its turn (--order fifo)"
        folder = self._context.executor.folder(run.id, run.segment)
        if not suspend_files.obeys(folder):
            return "its supervisor is an earlier version's"
        pids = self._context.executor.pids(run.id, run.segment)
        if run.spec.suspend != SuspendRule.ALWAYS and (why := why_fragile(run, segment, pids)) is not None:
            return why
        room = self._room(run.id)
        return (
            why_no_room(ram_mib(pids), room, newcomer, swaps) if room is not None else "RAM is not read yet"
        )

    def begin(self, run: RunRecord, segment: SegmentRecord, why: str, kept: bool = False) -> None:
        """Order a live segment to be suspended. One at a time, but for those that a user asks for: two must not leave
        for one that waits. Raises OSError, DatabaseBusy."""
        key, folder = (run.id, run.segment), self._context.executor.folder(run.id, run.segment)
        if key in self._under_way or (self._under_way and not kept):
            return
        if not suspend_files.obeys(folder):
            self._give_up(run, None, "its supervisor is an earlier version's, or not there yet")
            return
        known = suspend_files.read(folder)
        number = max(known.number if known is not None else 0, segment.suspensions) + 1
        order = SuspendOrder(
            number=number, wanted="suspended", why=why, kept=kept, thaw_at_s=run.thaw_at_s if kept else None
        )
        failpoint.at("ordering suspension")
        suspend_files.write(folder, order)
        failpoint.at("ordered suspension")
        now_s = self._context.clock.monotonic_s()
        self._under_way[key] = _UnderWay(order, now_s, now_s)
        self._context.executor.pause(*key)

    def thaw(self, run: RunRecord, most: int) -> bool:
        """Let a suspended run go on in a slot of this worker. False where somebody was faster. `most`: how many runs
        may hold a slot. Raises OSError, DatabaseBusy."""
        folder = self._context.executor.folder(run.id, run.segment)
        order = suspend_files.read(folder)
        segment = queries.segment(self._context.database, run.id, run.segment)
        number = max(
            order.number if order is not None else 0, segment.suspensions if segment is not None else 0
        )
        try:
            suspensions.thaw(self._context.database, run, self._context.worker, number, most)
        except LostRace:
            return False
        failpoint.at("thaw claimed")
        self._context.console.event("thawed", run, f"segment {run.segment} goes on where it stood")
        with contextlib.suppress(OSError):  # taken up again by the next tick
            self._let_go_on(run, number)
        return True

    def _take_up(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Find out what an earlier worker has left undone, or an older copy of the database does not know."""
        key, folder = (run.id, run.segment), self._context.executor.folder(run.id, run.segment)
        order = suspend_files.read(folder)
        if order is None or not order.suspends:
            return
        if order.number <= segment.suspensions:
            self._let_go_on(run, order.number)
            return
        now_s = self._context.clock.monotonic_s()
        self._under_way[key] = _UnderWay(order, now_s, now_s)
        self._context.executor.pause(*key)

    def _confirm_suspended(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Believe the folder where the database is an older copy: what goes on there is not suspended."""
        folder = self._context.executor.folder(run.id, run.segment)
        order = suspend_files.read(folder)
        if order is None or order.suspends:
            return
        number = max(order.number, segment.suspensions)
        suspensions.thaw(self._context.database, run, self._context.worker, number, None)

    def _await_answer(self, run: RunRecord, under_way: _UnderWay) -> None:
        key, order = (run.id, run.segment), under_way.order
        now_s = self._context.clock.monotonic_s()
        answer = suspend_files.answer(self._context.executor.folder(*key), order.number)
        if answer is not None and answer.refused is None:
            self._settle(run, order)
        elif answer is not None:
            self._give_up(run, order.number, answer.refused or "")
        elif now_s - under_way.begun_s >= ANSWER_S:
            self._give_up(run, order.number, "its supervisor does not answer")
        elif now_s - under_way.signalled_s >= SIGNAL_EVERY_S:
            under_way.signalled_s = now_s
            self._context.executor.pause(*key)

    def _settle(self, run: RunRecord, order: SuspendOrder) -> None:
        """Put into the row that a run is frozen."""
        context = self._context
        kept_mib = ram_mib(context.executor.pids(run.id, run.segment))
        if order.kept and run.suspension is None:
            # Its user has taken that back meanwhile.
            self._withdraw(run, order.number)
            return
        failpoint.at("recording suspension")
        suspensions.suspended(context.database, run, order.why, kept_mib, context.clock.wall_s())
        failpoint.at("recorded suspension")
        self._under_way.pop((run.id, run.segment), None)
        context.console.event(
            "suspended", run, f"segment {run.segment}: {order.why}; it keeps {amount(kept_mib)} of RAM"
        )

    def _give_up(self, run: RunRecord, number: int | None, why: str) -> None:
        """Let a run go on that cannot be suspended, and say why."""
        key = (run.id, run.segment)
        asked = run.suspension == ASKED
        self._refused[key] = (why, self._context.clock.monotonic_s())
        reason = f"not suspended: {why}"
        if number is not None:
            self._withdraw(run, number, reason if asked else None)
        elif asked:
            segment = queries.segment(self._context.database, *key)
            suspensions.over(self._context.database, run, segment.suspensions if segment else 0, reason)
        self._context.console.event("kept", run, f"segment {run.segment} is {reason}")

    def _withdraw(self, run: RunRecord, number: int, reason: str | None = None) -> None:
        key = (run.id, run.segment)
        suspend_files.write(
            self._context.executor.folder(*key),
            SuspendOrder(number=number, wanted="running", why=reason or ""),
        )
        if run.state is State.RUNNING:
            self._context.executor.unpause(*key)
        suspensions.over(self._context.database, run, number, reason)
        self._under_way.pop(key, None)

    def _let_go_on(self, run: RunRecord, number: int) -> None:
        """Take the steps of a thaw that follow its claim: what the script finds first, then the order."""
        key, folder = (run.id, run.segment), self._context.executor.folder(run.id, run.segment)
        self._give_box(run, folder)
        failpoint.at("box given")
        suspend_files.write(folder, SuspendOrder(number=number, wanted="running"))
        failpoint.at("thaw ordered")
        self._context.executor.unpause(*key)

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

    def _room(self, but: str) -> RamRoom | None:
        """Return the RAM beside which run `but` would be kept. Raises DatabaseBusy."""
        context, snapshot = self._context, self._snapshot()
        if snapshot is None:
            return None
        total_mib, settings = snapshot.host.ram_total_mib, context.settings
        most_mib = settings.max_suspended_ram_mib
        others = [
            run for run in queries.live_runs(context.database) if run.id != but and run.state in HOLDS_A_SLOT
        ]
        return RamRoom(
            free_mib=snapshot.host.ram_free_mib,
            least_mib=settings.min_free_ram_mib,
            suspended_mib=queries.kept_by_suspended(context.database),
            most_mib=most_mib if most_mib is not None or total_mib is None else total_mib // 2,
            most=settings.max_suspended,
            running_mib=[ram_mib(context.executor.pids(run.id, run.segment)) for run in others],
        )


def ram_mib(pids: Collection[int]) -> int:
    """Return the RAM that these processes use, what they share counted once."""
    return sum(map(_ram_bytes, pids)) // MIB


def _ram_bytes(pid: int) -> int:
    folder = process_tree.PROC / str(pid)
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
