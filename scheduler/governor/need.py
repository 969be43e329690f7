"""Turns a run's specification into what the governor judges: its need, its limits, and its reservations."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from backprop.scheduler.config.settings import Settings, parse_gpu_memory_limit
from backprop.scheduler.governor.decide import Limits, Need, NeedSource, Reservation
from backprop.scheduler.governor.disk import Growth
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.governor.vram import allocation_has_shown, usable_mib
from backprop.scheduler.records import SegmentRecord
from backprop.scheduler.spec import RunSpec

LEARNED_MARGIN: Final = 1.1
"""On top of the highest reading: readings come every two seconds, and allocators round up."""
NOMINAL_SIZE: Final = 1.1
"""A GPU's size on its box is at most this much above what its driver hands out."""


def need_of(
    spec: RunSpec, snapshot: Snapshot, learned_mib: int | None = None, raised_mib: int | None = None
) -> Need:
    """Return what to reserve on each GPU: declared (`-g`, else `--gpu-min-vram`), else learned, else the default.

    `--gpu-probe none` and `--gpus 0` make it a CPU run for the governor. A share of a GPU is a share of the largest one
    here, so that the run gets no less on the others. `learned_mib`: the most that earlier segments used. `raised_mib`:
    the need after the run ran out of GPU memory; capped at the largest GPU, so that it can be tried.
    """
    if spec.gpu_probe == "none" or spec.gpus == 0:
        return Need(vram_mib=0, gpus=0)
    limit_mib = memory_limit_mib(spec, snapshot)
    if limit_mib is not None:
        return Need(vram_mib=limit_mib, gpus=spec.gpus, source="declared", exclusive=spec.exclusive)
    vram_mib, source = spec.gpu_min_vram_mib, _default_or_declared(spec)
    if source == "default" and learned_mib:
        vram_mib, source = math.ceil(learned_mib * LEARNED_MARGIN), "learned"
    if raised_mib is not None and raised_mib > vram_mib:
        vram_mib, source = raised_mib, "learned"
    if source == "learned":
        vram_mib = min(vram_mib, _largest_mib(snapshot) or vram_mib)
    return Need(vram_mib=vram_mib, gpus=spec.gpus, source=source, exclusive=spec.exclusive)


def limits_of(spec: RunSpec, worker: Settings, growth: Growth | None = None) -> Limits:
    """Return the run's limits. Running runs and free disk are the worker's limits; a run may only tighten the first.
    `growth`: of its disk, where that is known."""
    return Limits(
        max_parallel=min(worker.max_parallel, spec.max_parallel or worker.max_parallel),
        min_free_ram_mib=spec.min_free_ram_mib,
        max_cpu_load=spec.max_cpu_load,
        min_free_disk_mib=worker.min_free_disk_mib,
        gpu_max_temp_c=spec.gpu_max_temp_c,
        growth=growth,
    )


def reservations_of(
    alive: Sequence[SegmentRecord],
    usage: Mapping[tuple[str, str], int | None],
    since_s: Callable[[float], float],
) -> list[Reservation]:
    """Return the reservations of the live segments, one per GPU of each; none of those whose VRAM is in RAM.

    `usage`: what they use, by (run id, GPU UUID), in the reading that is decided on. `since_s`: how long ago a stored
    Unix time was, seconds.
    """
    return [
        Reservation(
            run_id=segment.run_id,
            gpu_uuid=uuid,
            promised_mib=segment.promised_mib,
            seen_mib=usage.get((segment.run_id, uuid)),
            started_s=segment.started_at_s,
            settled=allocation_has_shown(usage.get((segment.run_id, uuid)), since_s(segment.started_at_s)),
            exclusive=segment.exclusive,
        )
        for segment in alive
        if segment.vram_out_mib is None
        for uuid in segment.gpu_uuids
    ]


def promises_of(run_id: str, gpu_uuids: Sequence[str], need: Need, now_s: float) -> list[Reservation]:
    """Return the reservations of a run that is about to be claimed. `now_s`: wall clock."""
    return [
        Reservation(
            run_id=run_id,
            gpu_uuid=uuid,
            promised_mib=need.vram_mib,
            seen_mib=0,
            started_s=now_s,
            settled=False,
            exclusive=need.exclusive,
        )
        for uuid in gpu_uuids
    ]


def memory_limit_mib(spec: RunSpec, snapshot: Snapshot) -> int | None:
    """Return `-g` in MiB; None when it is not given, or there is no GPU to take a share of.

    A size barely above what the largest GPU hands out means all of it: "24" on a card sold as one of 24 GB.
    """
    total_mib = _largest_mib(snapshot)
    if spec.gpu_memory_limit is None or total_mib is None:
        return None
    limit = parse_gpu_memory_limit(spec.gpu_memory_limit)
    if limit.mib is not None and limit.mib > total_mib * NOMINAL_SIZE:
        return limit.mib
    return limit.of(total_mib)


def _largest_mib(snapshot: Snapshot) -> int | None:
    sizes = (usable_mib(gpu, snapshot) for gpu in snapshot.gpus)
    return max((size for size in sizes if size is not None), default=None)


def _default_or_declared(spec: RunSpec) -> NeedSource:
    return "declared" if spec.gpu_min_vram_declared else "default"
