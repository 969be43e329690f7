"""How much VRAM does each of our runs use now? Matches the driver's list of processes with our trees.

None means "cannot be told": in a container the driver lists the host's pids, on WSL2 and some vGPUs it gives no
amounts. A run that is merely not on the list yet uses nothing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from backprop.scheduler.records import SegmentRecord
from backprop.scheduler.snapshot import Gpu, Snapshot
from backprop.worker.place import Place

IDLE_USE_MIB: Final = 1024
"""Below this an empty list is believed: drivers and desktops hold some memory without a compute process."""

Usage = Mapping[tuple[str, str], int | None]
"""(run id, GPU UUID) → MiB, or None."""


def usage_of(segments: Iterable[SegmentRecord], snapshot: Snapshot, place: Place) -> Usage:
    """What every live segment uses on each GPU it was given. Looks at /proc only where a driver lists processes."""
    found: dict[tuple[str, str], int | None] = {}
    trees: dict[str, frozenset[int]] = {}
    for segment in segments:
        for uuid in segment.gpu_uuids:
            gpu = snapshot.gpu(uuid)
            if gpu is None or gpu.error is not None:
                found[segment.run_id, uuid] = None
                continue
            if gpu.used_by_pid and segment.run_id not in trees:
                trees[segment.run_id] = place.pids(segment.run_id, segment.number)
            found[segment.run_id, uuid] = _use(gpu, trees.get(segment.run_id, frozenset()))
    return found


def _use(gpu: Gpu, tree: frozenset[int]) -> int | None:
    mine = [mib for pid, mib in gpu.used_by_pid if pid in tree]
    if mine:
        return None if None in mine else sum(mib for mib in mine if mib is not None)
    if not gpu.used_by_pid:
        used = None if gpu.total_mib is None or gpu.free_mib is None else gpu.total_mib - gpu.free_mib
        return 0 if used is not None and used - (gpu.reserved_mib or 0) < IDLE_USE_MIB else None
    # Pids that do not exist here are another namespace's: ours may be among them under other numbers.
    return 0 if all(Path(f"/proc/{pid}").exists() for pid, _ in gpu.used_by_pid) else None
