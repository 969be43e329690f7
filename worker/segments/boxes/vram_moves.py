"""Has the VRAM of segments moved to RAM before they are frozen, and back once they go on.

What is ordered and what came of it stands in the segment's folder, see `executor.vram.move_files`: whoever finds it
there goes on with it. A driver that overruns its deadline is not asked again by this worker. The run that it is at work
on is not touched until it returns.
"""

from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Final

from backprop.scheduler.governor.model import amount
from backprop.scheduler.governor.snapshot import Gpu
from backprop.scheduler.governor.suspension import PROMISED_RAM_MIB, least_free_mib
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.worker.context import Context
from backprop.worker.executor.vram import move_files, trials
from backprop.worker.executor.vram.move_files import MoveAnswer, MoveOrder
from backprop.worker.executor.vram.moving import Move, NoAnswer, Stuck, order_for
from backprop.worker.executor.vram.target import NoTarget, Target, find_target
from backprop.worker.machine.reader import MachineReadings
from backprop.worker.supervisor import failpoint, process_tree

SOURCE: Final = "nvml"
LEFT_MIB: Final = 100
"""What a process may still have on its GPU once its VRAM is out."""

FREED_SHARE: Final = 0.9
"""Of what it had, more is free by then."""

MOMENT_S: Final = 0.2
"""How old a reading may be that shows room for a restore, or no use: a restore that meets a full GPU may never succeed
again."""

_Key = tuple[str, int]


class Where(Enum):
    """Where the VRAM of a segment is."""

    HERE = "on its GPU"
    LEAVING = "on its way out"
    OUT = "in RAM"
    COMING = "on its way in"
    STAYED = "on its GPU: it could not be moved"
    STRANDED = "lost"
    """It does not come back, or its process is gone."""


class VramMoves:
    """The moves of one worker. `snapshot`: returns the newest reading of the machine. `stuck`: why the driver is not
    asked any more; None while it is."""

    def __init__(self, context: Context, snapshot: MachineReadings) -> None:
        self._context = context
        self._snapshot = snapshot
        self._moves: dict[_Key, Move] = {}
        self._unanswered: dict[_Key, str] = {}
        self._free_before: dict[_Key, int] = {}
        self.stuck: str | None = None

    def target(self, run: RunRecord, segment: SegmentRecord) -> Target:
        """Return what would be moved of a live run. Raises NoTarget with the reason why its VRAM stays, OSError."""
        snapshot = self._snapshot()
        if not segment.gpu_uuids:
            raise NoTarget("it has no GPU")
        if run.vram_stays is not None:
            raise NoTarget(f"it cannot be moved: {run.vram_stays}")
        if run.state is not State.RUNNING:
            raise NoTarget("it is paused")
        if self.stuck is not None:
            raise NoTarget(self.stuck)
        if snapshot is None or snapshot.source != SOURCE:
            raise NoTarget("its GPU is not read by NVML")
        if (why := trials.why_not(self._context.home, segment.gpu_uuids[0], snapshot.driver)) is not None:
            raise NoTarget(why)
        found = find_target(segment.gpu_uuids, snapshot.gpus, self._context.executor.pids(*_key(run)))
        free_mib = snapshot.host.ram_free_mib
        leaving_mib = sum(one.order.mib for one in self._moves.values() if one.order.wanted == "out")
        least_mib = found.mib + leaving_mib + self._context.settings.min_free_ram_mib + PROMISED_RAM_MIB
        if free_mib is None or free_mib < least_mib:
            raise NoTarget(f"{amount(least_mib)} of RAM would have to be free for it")
        return found

    def is_used(self, run: RunRecord, segment: SegmentRecord) -> bool:
        """Return whether a live run was seen to have VRAM, a moment ago or at any time. Raises OSError."""
        snapshot = self._snapshot(MOMENT_S)
        if segment.peak_mib or snapshot is None:
            return bool(segment.peak_mib)
        users = {pid for gpu in snapshot.gpus for pid, _ in gpu.used_by_pid}
        return not users.isdisjoint(self._context.executor.pids(*_key(run)))

    def forget(self, keys: Collection[_Key]) -> None:
        """Keep nothing but what concerns these live segments."""
        for kept in (self._moves, self._unanswered, self._free_before):
            for key in [key for key in kept if key not in keys]:
                del kept[key]

    def where(self, key: _Key) -> Where:
        """Return where the VRAM of a segment is, as its folder says. Raises OSError."""
        folder = self._folder(key)
        order = move_files.read(folder)
        if order is None:
            return Where.HERE
        answer = move_files.answer(folder, order)
        if answer is None and key not in self._unanswered:
            return Where.LEAVING if order.wanted == "out" else Where.COMING
        if order.wanted == "in":
            return Where.HERE if answer is not None and answer.runs else Where.STRANDED
        if answer is None or answer.runs or answer.reached == "unknown":
            return Where.STAYED
        return Where.OUT if answer.is_out else Where.STRANDED

    def step(self, key: _Key) -> Where:
        """See to it that what is ordered is carried out, and return where the VRAM is now. Raises OSError."""
        where = self.where(key)
        if where not in (Where.LEAVING, Where.COMING):
            self._moves.pop(key, None)
            return where
        order = move_files.read(self._folder(key))
        if key not in self._moves and order is not None and self.stuck is None:
            self._moves[key] = Move(self._folder(key), order)
        if key in self._moves:
            try:
                self._moves[key].poll()
            except Stuck as error:
                self._complain(f"{error}: VRAM is not moved any more until this worker is restarted")
            except NoAnswer as error:
                self._unanswered[key] = str(error)
        return self.where(key)

    def send_out(self, key: _Key, number: int, target: Target) -> None:
        """Order the VRAM of a segment out. Raises OSError."""
        snapshot = self._snapshot()
        gpu = snapshot.gpu(target.gpu_uuid) if snapshot is not None else None
        if gpu is not None and gpu.free_mib is not None:
            self._free_before[key] = gpu.free_mib
        self._order(key, order_for(number, "out", target.process, target.gpu_uuid, target.mib))
        failpoint.at("vram ordered out")

    def call_in(self, key: _Key) -> None:
        """Order in what is out. Raises OSError."""
        order = move_files.read(self._folder(key))
        if order is not None:
            process = process_tree.Process(order.pid, order.start_ticks)
            self._order(key, order_for(order.number, "in", process, order.gpu_uuid, order.mib))
            failpoint.at("vram ordered in")

    def number(self, key: _Key) -> int | None:
        """Return the number of the last order; None where there is none. Raises OSError."""
        order = move_files.read(self._folder(key))
        return order.number if order is not None else None

    def out_mib(self, key: _Key) -> int | None:
        """Return how much VRAM of a segment lies in RAM; None for none. Raises OSError."""
        return move_files.out_mib(self._folder(key))

    def what_failed(self, key: _Key) -> str:
        """Return what the driver had to say last, in words. Raises OSError."""
        folder = self._folder(key)
        order = move_files.read(folder)
        answer = move_files.answer(folder, order) if order is not None else None
        if answer is None:
            return self._unanswered.get(key, "no answer")
        return answer.what or _reached(answer)

    def is_gone(self, key: _Key) -> bool:
        """Return whether the driver shows that what went out is off its GPU: by its list of processes, or by what is
        free there. Raises OSError."""
        order, gpu = self._gpu(key)
        if order is None or gpu is None or gpu.free_mib is None:
            return False
        if gpu.free_mib - self._free_before.get(key, gpu.free_mib) >= FREED_SHARE * order.mib:
            return True
        return all(pid != order.pid or (mib is not None and mib < LEFT_MIB) for pid, mib in gpu.used_by_pid)

    def why_no_room(self, key: _Key) -> str | None:
        """Return why what is out cannot come back now, and what is in the way; None where it can. Raises OSError."""
        order, gpu = self._gpu(key, MOMENT_S)
        if order is None or gpu is None or gpu.free_mib is None:
            return "its GPU cannot be read"
        needed_mib = least_free_mib(order.mib)
        if gpu.free_mib >= needed_mib:
            return None
        users = sorted(gpu.used_by_pid, key=lambda user: -(user[1] or 0))
        who = f"; pid {users[0][0]} uses {amount(users[0][1] or 0)}" if users else ""
        return f"{amount(needed_mib)} of VRAM are needed on GPU {gpu.index}, {amount(gpu.free_mib)} are free{who}"

    def _gpu(self, key: _Key, fresh_s: float | None = None) -> tuple[MoveOrder | None, Gpu | None]:
        order, snapshot = move_files.read(self._folder(key)), self._snapshot(fresh_s)
        gpu = snapshot.gpu(order.gpu_uuid) if order is not None and snapshot is not None else None
        return order, gpu if gpu is not None and gpu.error is None else None

    def _order(self, key: _Key, order: MoveOrder) -> None:
        self._unanswered.pop(key, None)
        self._moves[key] = Move(self._folder(key), order)
        self._moves[key].begin()

    def _complain(self, why: str) -> None:
        if self.stuck is None:
            self._context.console.event("trouble", more=why)
        self.stuck = why

    def _folder(self, key: _Key) -> Path:
        return self._context.executor.folder(*key)


def _key(run: RunRecord) -> _Key:
    return run.id, run.segment


def _reached(answer: MoveAnswer) -> str:
    return "it took too long" if answer.is_late else f"its process is {answer.reached}"
