"""Attributes VRAM to our runs: matches the driver's list of processes with their process trees.

None means "cannot be told": in a container the driver lists the host's pids, on WSL2 and some vGPUs it gives no
amounts. A run that is merely not on the list yet uses nothing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from backprop.scheduler.governor.snapshot import Gpu, Snapshot
from backprop.scheduler.records import SegmentRecord
from backprop.worker.executor.base import Executor
from backprop.worker.supervisor import process_tree

IDLE_USE_MIB: Final = 1024
"""Below this an empty list is believed: drivers and desktops hold some memory without a compute process."""

Usage = Mapping[tuple[str, str], int | None]
"""(run id, GPU UUID) → MiB, or None."""

Processes = Mapping[str, frozenset[int]]
"""Run id → the pids of its live segment."""


def processes_of(segments: Iterable[SegmentRecord], snapshot: Snapshot, executor: Executor) -> Processes:
    """Return the processes of the segments. Reads /proc only for those on a GPU whose driver lists processes."""
    listing = {gpu.uuid for gpu in snapshot.gpus if gpu.used_by_pid}
    return {
        segment.run_id: executor.pids(segment.run_id, segment.number)
        for segment in segments
        if listing.intersection(segment.gpu_uuids)
    }


def usage_of(segments: Iterable[SegmentRecord], snapshot: Snapshot, processes: Processes) -> Usage:
    """Return what every live segment uses on each GPU it was given."""
    usage: dict[tuple[str, str], int | None] = {}
    for segment in segments:
        pids = processes.get(segment.run_id, frozenset[int]())
        for uuid in segment.gpu_uuids:
            gpu = snapshot.gpu(uuid)
            usage[segment.run_id, uuid] = None if gpu is None else use_of(gpu, pids)
    return usage


def use_below(gpu: Gpu, supervisor: process_tree.Process | None) -> int | None:
    """Return what another home's segment uses of one GPU. `supervisor`: None when it is not known."""
    if not gpu.used_by_pid:
        return use_of(gpu, frozenset())
    if supervisor is None or not process_tree.alive(supervisor):
        return None
    return use_of(gpu, frozenset(process.pid for process in process_tree.descendants(supervisor.pid)))


def use_of(gpu: Gpu, pids: frozenset[int]) -> int | None:
    """Return what these processes, all of a run's, use of one GPU."""
    if gpu.error is not None:
        return None
    own = [mib for pid, mib in gpu.used_by_pid if pid in pids]
    if own:
        return None if None in own else sum(mib for mib in own if mib is not None)
    if not gpu.used_by_pid:
        used = None if gpu.total_mib is None or gpu.free_mib is None else gpu.total_mib - gpu.free_mib
        return 0 if used is not None and used - (gpu.reserved_mib or 0) < IDLE_USE_MIB else None
    # Pids that do not exist here belong to another namespace: ours may be among them under other numbers.
    return 0 if all(Path(f"/proc/{pid}").exists() for pid, _ in gpu.used_by_pid) else None
