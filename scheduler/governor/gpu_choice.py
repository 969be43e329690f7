"""Which GPUs can take a run now, and why can the others not?

A GPU without a readable memory is not used, nor one without a readable temperature unless the user allows
that: what cannot be read never counts as good. A driver that does not say whether it throttles is believed
on the temperature alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backprop.scheduler.governor.model import Denial, Limits, Need, Rule, amount, heat_limit_c
from backprop.scheduler.governor.snapshot import Gpu, Snapshot
from backprop.scheduler.governor.vram import ForeignPeak, Reservation, Room, room


@dataclass(frozen=True, slots=True)
class Placement:
    """`gpu_uuids`: as many as needed, or none; then `denials` say which rule fails on which GPU."""

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
    """Choose the GPUs with the most memory left to promise, the lower index among equals."""
    fitting: list[tuple[Gpu, Room]] = []
    denials: list[Denial] = []
    for gpu in snapshot.gpus:
        memory = room(gpu, snapshot, reservations, peaks, limits.min_free_ram_mib)
        here = [one for one in reservations if one.gpu_uuid == gpu.uuid]
        failing = [
            *_condition(limits, gpu, quarantined),
            *_memory(need, gpu, memory),
            *_company(need, gpu, here),
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
        text = f"GPUs that fit {len(chosen)}, needs {need.gpus}"
        denials.append(Denial(Rule.GPU_COUNT, need.gpus, len(chosen), text))
    return Placement((), tuple(denials))


def _most_room(fitting: Sequence[tuple[Gpu, Room]]) -> tuple[str, ...]:
    """Best first. At most one unified GPU: they share one memory, and each was judged as if alone."""
    ranked = sorted(fitting, key=lambda pair: (-pair[1].available_mib, pair[0].index, pair[0].uuid))
    unified = [gpu.uuid for gpu, _ in ranked if gpu.unified]
    return tuple(gpu.uuid for gpu, _ in ranked if gpu.uuid not in unified[1:])


def _condition(limits: Limits, gpu: Gpu, quarantined: Mapping[str, str]) -> Iterator[Denial]:
    if why := quarantined.get(gpu.uuid):
        yield _denial(gpu, Rule.QUARANTINE, f"kept aside: {why}")
    if gpu.error is not None:
        yield _denial(gpu, Rule.GPU_READABLE, f"not used: {gpu.error}")
        return
    start_c = heat_limit_c(limits, gpu) - limits.temp_headroom_c
    if gpu.temp_c is None:
        if not limits.allow_unknown_temp:
            yield _denial(gpu, Rule.TEMPERATURE, "not used: its temperature cannot be read", start_c)
    elif gpu.temp_c > start_c:
        text = f"temperature {gpu.temp_c} °C, starts at {start_c} °C or less"
        yield _denial(gpu, Rule.TEMPERATURE, text, start_c, gpu.temp_c)
    if gpu.throttled:
        yield _denial(gpu, Rule.SLOWDOWN, "its driver slows it down because of heat")


def _memory(need: Need, gpu: Gpu, memory: Room | None) -> Iterator[Denial]:
    if memory is None:
        if gpu.error is None:
            yield _denial(gpu, Rule.VRAM, "not used: its memory cannot be read", need.vram_mib)
    elif memory.available_mib < need.vram_mib:
        text = f"{_what_is_left(gpu, memory)}, needs {amount(need.vram_mib)} ({need.source})"
        yield _denial(gpu, Rule.VRAM, text, need.vram_mib, memory.available_mib)


def _what_is_left(gpu: Gpu, memory: Room) -> str:
    what = "memory left, shared with RAM," if gpu.unified else "VRAM left"
    gone: list[str] = []
    if memory.promised_mib:
        gone.append(f"{amount(memory.promised_mib)} promised to runs")
    if memory.foreign_mib:
        gone.append(f"{amount(memory.foreign_mib)} used by others now or lately")
    return f"{what} {amount(max(0, memory.available_mib))} of {amount(memory.usable_mib)}" + (
        f" ({', '.join(gone)})" if gone else ""
    )


def _company(need: Need, gpu: Gpu, here: Sequence[Reservation]) -> Iterator[Denial]:
    owner = next((one.run_id for one in here if one.exclusive), None)
    if owner is not None:
        yield _denial(gpu, Rule.EXCLUSIVE, f"run {owner} has it for itself")
    elif need.exclusive and here:
        runs = ", ".join(one.run_id for one in here)
        yield _denial(gpu, Rule.EXCLUSIVE, f"asked for it alone, but there runs {runs}", 0, len(here))


def _denial(
    gpu: Gpu, rule: Rule, text: str, needed: float | None = None, present: float | None = None
) -> Denial:
    return Denial(rule, needed, present, text, gpu.uuid, gpu.index)
