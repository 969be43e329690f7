"""Quarantines a GPU until the memory of a segment that ended there has come back.

A driver may hold memory after a kill for minutes, or until a reset; a run that starts there then dies of it. Unreturned
memory is memory in use that no living process accounts for, beyond what was so already while the segment ran: desktops
and drivers hold some. So neither a neighbour that grows nor a newcomer is taken for it. Where the driver does not tell
each process's amount, this cannot be judged, and no GPU is quarantined. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from backprop.scheduler.governor.model import amount
from backprop.scheduler.governor.snapshot import Gpu, Snapshot

PATIENCE_S: Final = 30.0
"""Drivers give memory back within a second or two of a process's end; judged, not measured."""
FORGOTTEN_S: Final = 3600.0
TOLERANCE_MIB: Final = 512
TOLERANCE_SHARE: Final = 0.25


class UnreturnedMemory(msgspec.Struct, frozen=True):
    """What an ended segment has to return on one GPU. `used_mib`: in its last reading, by its processes `pids`, beside
    `unexplained_mib` that no process accounted for. `ended_s`: on the caller's clock. `survivors`: processes of it
    outlived SIGKILL."""

    run_id: str
    gpu_uuid: str
    used_mib: int
    unexplained_mib: int
    pids: frozenset[int]
    ended_s: float
    survivors: bool = False


def judge(
    unreturned: Iterable[UnreturnedMemory], snapshot: Snapshot, now_s: float
) -> tuple[list[UnreturnedMemory], dict[str, str]]:
    """Return (what is still unreturned, GPU UUID → why it is quarantined). Call it with each reading."""
    still: list[UnreturnedMemory] = []
    reasons: dict[str, str] = {}
    for memory in unreturned:
        gpu = snapshot.gpu(memory.gpu_uuid)
        if now_s - memory.ended_s > FORGOTTEN_S:
            continue
        rest_mib = None if gpu is None else unexplained_mib(gpu, memory.pids)
        missing_mib = None if rest_mib is None else rest_mib - memory.unexplained_mib
        tolerated_mib = max(TOLERANCE_MIB, memory.used_mib * TOLERANCE_SHARE)
        if missing_mib is not None and missing_mib <= tolerated_mib:
            continue
        still.append(memory)
        if missing_mib is not None and (memory.survivors or now_s - memory.ended_s >= PATIENCE_S):
            why = "its processes survive SIGKILL" if memory.survivors else "its processes have ended"
            reasons[memory.gpu_uuid] = f"run {memory.run_id} has not returned {amount(missing_mib)} ({why})"
    return still, reasons


def unexplained_mib(gpu: Gpu, without: frozenset[int] = frozenset()) -> int | None:
    """Return the VRAM in use that the driver ascribes to no process but those of `without`; None if it cannot tell."""
    if gpu.error is not None or gpu.total_mib is None or gpu.free_mib is None:
        return None
    explained = 0
    for pid, mib in gpu.used_by_pid:
        if mib is None:
            return None
        explained += 0 if pid in without else mib
    return gpu.total_mib - (gpu.reserved_mib or 0) - gpu.free_mib - explained


def merged(*reasons: Mapping[str, str]) -> dict[str, str]:
    """Combine several maps of quarantined GPUs; the first that names a GPU gives the reason."""
    combined: dict[str, str] = {}
    for source in reasons:
        for uuid, why in source.items():
            combined.setdefault(uuid, why)
    return combined
