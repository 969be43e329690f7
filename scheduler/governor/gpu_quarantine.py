"""Did a GPU's memory come back after a segment ended there? If not, the GPU is kept aside until it has.

Pure. A driver may hold memory after a kill for minutes, or until a reset; whoever starts into that dies of it.
What has not come back is memory in use that no living process accounts for, beyond what was so already while the
segment ran (desktops and drivers hold some). So neither a neighbour that grows nor a newcomer is taken for it.
Where the driver does not tell each process's amount, this cannot be judged, and nothing is kept aside.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from backprop.scheduler.governor.model import amount
from backprop.scheduler.governor.snapshot import Gpu, Snapshot

PATIENCE_S: Final = 30.0
"""Drivers give memory back within a second or two of a process's end; judged, not measured."""
FORGOTTEN_S: Final = 3600.0
TOLERANCE_MIB: Final = 512
TOLERANCE_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class UnreturnedMemory:
    """What a segment left on one GPU: `used_mib` when it was last seen, by its processes `pids`, beside
    `unexplained_mib` that nobody accounted for. `ended_s`: on the clock the caller goes by. `survivors`: it left
    processes that even SIGKILL did not end."""

    run_id: str
    gpu_uuid: str
    used_mib: int
    unexplained_mib: int
    pids: frozenset[int]
    ended_s: float
    survivors: bool = False


def judge(
    left: Iterable[UnreturnedMemory], snapshot: Snapshot, now_s: float
) -> tuple[list[UnreturnedMemory], dict[str, str]]:
    """(what is still open, GPU UUID → why it is kept aside). Call with each reading."""
    open_still: list[UnreturnedMemory] = []
    reasons: dict[str, str] = {}
    for one in left:
        gpu = snapshot.gpu(one.gpu_uuid)
        if now_s - one.ended_s > FORGOTTEN_S:
            continue
        told_mib = None if gpu is None else unexplained_mib(gpu, one.pids)
        missing_mib = None if told_mib is None else told_mib - one.unexplained_mib
        if missing_mib is not None and missing_mib <= max(TOLERANCE_MIB, one.used_mib * TOLERANCE_SHARE):
            continue
        open_still.append(one)
        if missing_mib is not None and (one.survivors or now_s - one.ended_s >= PATIENCE_S):
            whose = "with processes that survive SIGKILL" if one.survivors else "after its processes ended"
            reasons[one.gpu_uuid] = f"{amount(missing_mib)} of run {one.run_id} have not come back {whose}"
    return open_still, reasons


def unexplained_mib(gpu: Gpu, without: frozenset[int] = frozenset()) -> int | None:
    """VRAM in use that the driver ascribes to no process but those of `without`; None if that cannot be told."""
    if gpu.error is not None or gpu.total_mib is None or gpu.free_mib is None:
        return None
    explained = 0
    for pid, mib in gpu.used_by_pid:
        if mib is None:
            return None
        explained += 0 if pid in without else mib
    return gpu.total_mib - (gpu.reserved_mib or 0) - gpu.free_mib - explained


def merged(*reasons: Mapping[str, str]) -> dict[str, str]:
    """Several maps of kept-aside GPUs as one; the first that names a GPU gives the reason."""
    found: dict[str, str] = {}
    for one in reasons:
        for uuid, why in one.items():
            found.setdefault(uuid, why)
    return found
