"""Did a GPU's memory come back after a segment ended there? If not, the GPU is kept aside until it has.

Pure. A driver may hold memory after a kill for minutes, or until a reset; whoever starts into that dies of it. The
memory that must be free again is what was free while the segment ran plus what it used, less what was taken
since by runs of ours and by processes that were not there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backprop.scheduler.rules import amount
from backprop.scheduler.snapshot import Gpu, Snapshot
from backprop.scheduler.vram import Reservation

PATIENCE_S: Final = 30.0
"""Drivers give memory back within a second or two of a process's end; judged, not measured."""
FORGOTTEN_S: Final = 3600.0
TOLERANCE_MIB: Final = 512
TOLERANCE_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What a segment left on one GPU: `used_mib` when it was last seen, with `free_mib` free beside it and `pids`
    on the device. `ended_s`: on the clock the caller goes by. `survivors`: it left processes that even SIGKILL
    did not end."""

    run_id: str
    gpu_uuid: str
    used_mib: int
    free_mib: int
    pids: frozenset[int]
    ended_s: float
    survivors: bool = False


def judge(
    left: Iterable[Aftermath], snapshot: Snapshot, reservations: Sequence[Reservation], now_s: float
) -> tuple[list[Aftermath], dict[str, str]]:
    """(what is still open, GPU UUID → why it is kept aside). Call with each reading."""
    open_still: list[Aftermath] = []
    reasons: dict[str, str] = {}
    for one in left:
        gpu = snapshot.gpu(one.gpu_uuid)
        if now_s - one.ended_s > FORGOTTEN_S:
            continue
        missing_mib = None if gpu is None else _missing_mib(one, gpu, reservations)
        if missing_mib is not None and missing_mib <= max(TOLERANCE_MIB, one.used_mib * TOLERANCE_SHARE):
            continue
        open_still.append(one)
        if missing_mib is not None and (one.survivors or now_s - one.ended_s >= PATIENCE_S):
            whose = "with processes that survive SIGKILL" if one.survivors else "after its processes ended"
            reasons[one.gpu_uuid] = f"{amount(missing_mib)} of run {one.run_id} have not come back {whose}"
    return open_still, reasons


def _missing_mib(one: Aftermath, gpu: Gpu, reservations: Sequence[Reservation]) -> int | None:
    if gpu.free_mib is None:
        return None
    newcomers = sum(mib or 0 for pid, mib in gpu.used_by_pid if pid not in one.pids)
    ours = sum(
        max(each.promised_mib, each.seen_mib or 0)
        for each in reservations
        if each.gpu_uuid == one.gpu_uuid and each.started_s >= one.ended_s
    )
    expected_mib = one.free_mib + one.used_mib - max(newcomers, ours)
    return expected_mib - gpu.free_mib


def merged(*reasons: Mapping[str, str]) -> dict[str, str]:
    """Several maps of kept-aside GPUs as one; the first that names a GPU gives the reason."""
    found: dict[str, str] = {}
    for one in reasons:
        for uuid, why in one.items():
            found.setdefault(uuid, why)
    return found
