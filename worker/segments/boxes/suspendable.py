"""Tells which live runs may be suspended at the end of a box, and whether their VRAM would be moved to RAM then."""

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Final

from backprop.scheduler.config.choices import SuspendRule
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.governor.suspension import RamRoom, why_no_room
from backprop.scheduler.lifecycle import HOLDS_A_SLOT, State
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.worker.context import Context
from backprop.worker.executor import suspend_files
from backprop.worker.executor.vram.target import NoTarget, Target
from backprop.worker.segments.boxes.fragile import why_fragile
from backprop.worker.segments.boxes.vram_moves import VramMoves
from backprop.worker.supervisor import process_tree

TARGET_S: Final = 3.0
NO_TARGET_S: Final = 1.0
"""A look at what could be moved counts for so long, and one that found nothing."""
MIB: Final = 1024 * 1024

_Key = tuple[str, int]


class Suspendable:
    """What one worker knows of that. `snapshot`: returns the newest reading of the machine."""

    def __init__(self, context: Context, moves: VramMoves, snapshot: Callable[[], Snapshot | None]) -> None:
        self._context, self._moves, self._snapshot = context, moves, snapshot
        self._found: dict[_Key, tuple[Target | str, float]] = {}

    def forget(self, keys: Collection[_Key]) -> None:
        """Keep nothing but what concerns these live segments."""
        for key in [key for key in self._found if key not in keys]:
            del self._found[key]

    def why_not(self, run: RunRecord, segment: SegmentRecord, newcomer: bool, swaps: bool) -> str | None:
        """Return why the end of its box may not suspend a run, in words; None where it may. `newcomer`, `swaps`: see
        `suspension.why_no_room`. Raises OSError, DatabaseBusy."""
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
        if room is None:
            return "RAM is not read yet"
        target = self._look(run, segment)
        vram_mib = target.mib if isinstance(target, Target) else 0
        return why_no_room(ram_mib(pids), room, newcomer, swaps, vram_mib)

    def why_vram_stays(self, run: RunRecord, segment: SegmentRecord) -> str | None:
        """Return why a suspension would leave the run's VRAM on its GPU, in words; None where it would not, or it has
        none."""
        found = self._look(run, segment)
        return found if isinstance(found, str) and segment.gpu_uuids else None

    def movable(
        self, live: Sequence[RunRecord], snapshot: Snapshot, segments: Sequence[SegmentRecord]
    ) -> frozenset[str]:
        """Return the ids of the running runs whose VRAM would be moved to RAM if they were suspended."""
        if not snapshot.gpus:
            return frozenset()
        own = {segment.run_id: segment for segment in segments}
        pairs = [(run, own[run.id]) for run in live if run.id in own and run.state is State.RUNNING]
        return frozenset(run.id for run, segment in pairs if isinstance(self._look(run, segment), Target))

    def _look(self, run: RunRecord, segment: SegmentRecord) -> Target | str:
        """Return what would be moved of a run, or why its VRAM stays, as a look of the last seconds has shown."""
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        found, looked_s = self._found.get(key, ("", -TARGET_S))
        if now_s - looked_s >= (NO_TARGET_S if isinstance(found, str) else TARGET_S):
            try:
                found = self._moves.target(run, segment)
            except (NoTarget, OSError) as error:
                found = str(error)
            self._found[key] = (found, now_s)
        return found

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
