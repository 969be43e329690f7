"""Chooses the GPUs for a run, and names the rules that refuse the others.

A GPU whose memory cannot be read is not used, nor one whose temperature cannot be read unless the user allows that:
what cannot be read never counts as good. If the driver does not say whether it throttles, the temperature alone counts.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from backprop.scheduler.governor.model import Denial, Limits, Need, Rule, amount, gib, heat_limit_c
from backprop.scheduler.governor.snapshot import Gpu, Snapshot
from backprop.scheduler.governor.vram import ForeignPeak, Reservation, Room, room


class Placement(msgspec.Struct, frozen=True):
    """`gpu_uuids`: as many as needed, or none; then `denials` name the rule that fails on each GPU."""

    gpu_uuids: tuple[str, ...]
    denials: tuple[Denial, ...]


def place(
    need: Need,
    limits: Limits,
    snapshot: Snapshot,
    reservations: Sequence[Reservation],
    quarantined: Mapping[str, str],
    peaks: Mapping[str, ForeignPeak],
) -> Placement:
    """Choose the GPUs with the most memory left to reserve, the lower index among equals."""
    fitting: list[tuple[Gpu, Room]] = []
    denials: list[Denial] = []
    for gpu in snapshot.gpus:
        memory = room(gpu, snapshot, reservations, peaks, limits.min_free_ram_mib)
        own = [reservation for reservation in reservations if reservation.gpu_uuid == gpu.uuid]
        failing = [
            *condition(limits, gpu, quarantined),
            *_memory(need, gpu, memory),
            *_exclusive(need, gpu, own),
        ]
        denials.extend(failing)
        if memory is not None and not failing:
            fitting.append((gpu, memory))
    chosen = _most_room(fitting)[: need.gpus]
    if len(chosen) == need.gpus:
        return Placement(chosen, ())
    if not snapshot.gpus:
        text = f"no GPU can be used: {snapshot.problem}"
        denials.append(Denial(Rule.GPU_READABLE, need.gpus, None, text))
    elif need.gpus > 1:
        verb = "is" if len(chosen) == 1 else "are"
        text = f"needs {need.gpus} GPUs, {len(chosen)} {verb} free enough"
        denials.append(Denial(Rule.GPU_COUNT, need.gpus, len(chosen), text))
    return Placement((), tuple(denials))


def _most_room(fitting: Sequence[tuple[Gpu, Room]]) -> tuple[str, ...]:
    """Return UUIDs, best first. At most one unified GPU: they share one memory, and each was judged as if alone."""
    ranked = sorted(fitting, key=lambda pair: (-pair[1].available_mib, pair[0].index, pair[0].uuid))
    unified = [gpu.uuid for gpu, _ in ranked if gpu.unified]
    return tuple(gpu.uuid for gpu, _ in ranked if gpu.uuid not in unified[1:])


def condition(limits: Limits, gpu: Gpu, quarantined: Mapping[str, str]) -> Iterator[Denial]:
    """Yield each rule about a GPU itself, rather than its memory, that refuses a start."""
    if why := quarantined.get(gpu.uuid):
        yield _denial(gpu, Rule.QUARANTINE, f"quarantined: {why}")
    if gpu.error is not None:
        yield _denial(gpu, Rule.GPU_READABLE, f"not used: {gpu.error}")
        return
    start_c = heat_limit_c(limits, gpu) - limits.temp_headroom_c
    if gpu.temp_c is None:
        if not limits.allow_unknown_temp:
            yield _denial(gpu, Rule.TEMPERATURE, "not used: its temperature cannot be read", start_c)
    elif gpu.temp_c > start_c:
        text = f"too hot ({gpu.temp_c} °C); a run starts at {start_c} °C or less (--gpu-max-temp)"
        yield _denial(gpu, Rule.TEMPERATURE, text, start_c, gpu.temp_c)
    if gpu.throttled:
        yield _denial(gpu, Rule.SLOWDOWN, "the driver is throttling it (too hot)")


def _memory(need: Need, gpu: Gpu, memory: Room | None) -> Iterator[Denial]:
    if memory is None:
        if gpu.error is None:
            yield _denial(gpu, Rule.VRAM, "not used: its memory cannot be read", need.vram_mib)
    elif memory.available_mib < need.vram_mib:
        source = "" if need.source == "declared" else f" ({need.source})"
        text = f"needs {amount(need.vram_mib)}{source}; {_free(gpu, memory)}"
        yield _denial(gpu, Rule.VRAM, text, need.vram_mib, memory.available_mib)


def _free(gpu: Gpu, memory: Room) -> str:
    """Say how much of the GPU's memory is free to reserve, and where the rest is."""
    taken: list[str] = []
    if own_mib := memory.promised_mib - memory.elsewhere_mib:
        taken.append(f"{gib(own_mib)} reserved by runs")
    if memory.elsewhere_mib:
        taken.append(f"{gib(memory.elsewhere_mib)} promised by another home")
    if memory.foreign_mib:
        lately = "" if memory.foreign_mib <= memory.usable_mib - memory.free_mib else "lately "
        taken.append(f"{gib(memory.foreign_mib)} {lately}used by other programs")
    shared = ", shared with RAM" if gpu.unified else ""
    rest = f" ({', '.join(taken)})" if taken else ""
    return f"{gib(max(0, memory.available_mib))} of {gib(memory.usable_mib)} GiB free{shared}{rest}"


def _exclusive(need: Need, gpu: Gpu, reservations: Sequence[Reservation]) -> Iterator[Denial]:
    owner = next((reservation for reservation in reservations if reservation.exclusive), None)
    if owner is not None:
        whose = "taken; another home" if owner.elsewhere else f"run {owner.run_id}"
        yield _denial(gpu, Rule.EXCLUSIVE, f"{whose} has it exclusively")
    elif need.exclusive and reservations:
        names = ("another home's run" if one.elsewhere else one.run_id for one in reservations)
        text = f"needed exclusively; {', '.join(dict.fromkeys(names))} is running there (--exclusive)"
        yield _denial(gpu, Rule.EXCLUSIVE, text, 0, len(reservations))


def _denial(
    gpu: Gpu, rule: Rule, text: str, needed: float | None = None, present: float | None = None
) -> Denial:
    return Denial(rule, needed, present, text, gpu.uuid, gpu.index)
