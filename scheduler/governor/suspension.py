"""Decides whether a run may be suspended, and whether a suspended one may go on. Pure.

Freezing gives no memory back: a suspended run keeps its RAM, and the VRAM that it was promised, unless that is moved to
RAM first. So RAM is counted as VRAM is: what is frozen, what runs and may still grow, and what starts in its place have
to fit together, beside the RAM that is to stay free. A thaw takes no RAM that is not held already. Where nothing else
runs it is therefore never refused for that: what waits frozen would wait for ever. VRAM that was moved needs room on
the GPU that it came from, as a start does.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.governor.decide import host_denials
from backprop.scheduler.governor.gpu_choice import condition, place
from backprop.scheduler.governor.model import Decision, Denial, Limits, Need, Rule, amount
from backprop.scheduler.governor.snapshot import Gpu, Snapshot
from backprop.scheduler.governor.vram import ForeignPeak, Reservation, usable_mib

RESTORE_MARGIN: Final = 1.05
PROMISED_RAM_MIB: Final = 2048
"""What a run is taken to need that nobody has seen running yet; one that runs may still grow to so much."""


class RamRoom(msgspec.Struct, frozen=True, kw_only=True):
    """The RAM of this machine, in MiB; None for what cannot be read. `free_mib`: available now. `least_mib`: is to stay
    free. `suspended_mib`: kept by each suspended run. `most_mib`: they may keep together. `most`: how many there may
    be. `running_mib`: used by each other run that holds a slot."""

    free_mib: int | None
    least_mib: int
    suspended_mib: Sequence[int]
    most_mib: int | None
    most: int
    running_mib: Sequence[int] = ()


def why_no_room(own_mib: int, room: RamRoom, newcomer: bool, swaps: bool, vram_mib: int = 0) -> str | None:
    """Return why one more run may not be suspended, for want of RAM or because there are enough; None where it may.

    `own_mib`: the RAM that it uses. `newcomer`: another run starts in its place. `swaps`: one that is suspended goes on
    in its place instead, so that there are not more of them than before. `vram_mib`: so much VRAM is to be moved there.
    """
    left = len(room.suspended_mib) - swaps
    if left >= room.most:
        return f"{len(room.suspended_mib)} runs are suspended, at most {room.most} may be (maxSuspended)"
    if room.free_mib is None:
        return "free RAM cannot be read"
    kept_mib = (
        sum(room.suspended_mib) + own_mib + vram_mib - (min(room.suspended_mib, default=0) if swaps else 0)
    )
    if room.most_mib is not None and kept_mib > room.most_mib:
        return (
            f"suspended runs would keep {amount(kept_mib)} of RAM, at most {amount(room.most_mib)} may be kept"
            " (maxSuspendedRamGB)"
        )
    growth_mib = sum(max(PROMISED_RAM_MIB - used_mib, 0) for used_mib in room.running_mib)
    needed_mib = room.least_mib + growth_mib + (PROMISED_RAM_MIB if newcomer and not swaps else 0) + vram_mib
    if needed_mib > room.free_mib:
        return f"it keeps its RAM: {amount(needed_mib)} would have to be free, {amount(room.free_mib)} are"
    return None


def need_to_thaw(promised_mib: int, peak_mib: int | None, out_mib: int, exclusive: bool) -> Need:
    """Return what is promised to a run whose VRAM comes back: what it had at its most, not what it left with."""
    most_mib = max(promised_mib, peak_mib or 0, least_free_mib(out_mib))
    return Need(vram_mib=most_mib, gpus=1, source="learned", exclusive=exclusive)


def least_free_mib(out_mib: int) -> int:
    """Return what has to be free on a GPU before so much VRAM comes back: a restore that meets a full GPU may never
    succeed again."""
    return math.ceil(out_mib * RESTORE_MARGIN)


def could_return(vram_mib: int, gpu: Gpu) -> bool:
    """Return whether so much VRAM fits on its GPU once that is empty, with the margin that is asked for at a return."""
    return gpu.total_mib is not None and least_free_mib(vram_mib) <= gpu.total_mib - (gpu.reserved_mib or 0)


def may_return(
    need: Need,
    limits: Limits,
    snapshot: Snapshot,
    reservations: Sequence[Reservation],
    gpu_uuid: str,
    quarantined: Mapping[str, str],
    peaks: Mapping[str, ForeignPeak],
) -> tuple[Denial, ...]:
    """Return the rules that keep VRAM from coming back to the GPU that it came from; empty where none does."""
    gpu = snapshot.gpu(gpu_uuid)
    size_mib = usable_mib(gpu, snapshot) if gpu is not None else None
    if gpu is None or size_mib is None:
        return (Denial(Rule.GPU_READABLE, None, None, "the GPU that its VRAM came from cannot be read"),)
    need = msgspec.structs.replace(need, vram_mib=min(need.vram_mib, size_mib))
    return place(
        need, limits, msgspec.structs.replace(snapshot, gpus=(gpu,)), reservations, quarantined, peaks
    ).denials


def may_thaw(limits: Limits, snapshot: Snapshot, running_count: int, gpu_uuids: Sequence[str]) -> Decision:
    """Judge whether a suspended run may go on. `running_count`: as for `decide`. `gpu_uuids`: those that it keeps."""
    alone = running_count == 0
    denials = [
        denial
        for denial in host_denials(limits, snapshot, running_count)
        if not (alone and denial.rule in (Rule.RAM, Rule.LOAD))
    ]
    for uuid in gpu_uuids:
        if (gpu := snapshot.gpu(uuid)) is not None:
            denials += [one for one in condition(limits, gpu, {}) if one.rule in _HEAT]
    return Decision(tuple(denials), () if denials else tuple(gpu_uuids))


def comes_first(suspended_waiting: int, suspended: int, most: int) -> Denial | None:
    """Return why a run that may have to be suspended in its turn does not start before those that are, or None.

    `suspended_waiting`: of at least its priority, that wait for a slot. Else a long queue would be begun from its front
    to its end, each run for one box, and all of them would be kept in RAM.
    """
    if not suspended_waiting or suspended < most:
        return None
    text = f"behind suspended runs; {suspended} are kept, at most {most} may be (maxSuspended)"
    return Denial(Rule.SUSPENDED, most, suspended, text)


_HEAT: Final = (Rule.TEMPERATURE, Rule.SLOWDOWN)
