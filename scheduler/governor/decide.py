"""Decides whether a run may start now and on which GPUs, and names every rule that refuses it.

`decide` is pure: from a frozen snapshot and the reservations it names *every* rule that fails, with the amounts. The
same `Decision` feeds the log, `status` and `why`.

    model        what the governor works with: Limits, Need, Denial, Decision
    vram         how much of a GPU may still be reserved
    gpu_choice   which GPUs can take a run
    runtime      the counterpart for running runs: go on, pause, continue, yield, stop

RAM, load or disk that cannot be read refuse a start: "cannot say" never counts as good.
"""

from collections.abc import Iterator, Mapping, Sequence

from backprop.scheduler.governor.disk import disk_of
from backprop.scheduler.governor.gpu_choice import place
from backprop.scheduler.governor.model import Decision, Denial, Limits, Need, NeedSource, Rule, amount
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.governor.vram import ForeignPeak, Reservation, usable_mib

__all__ = [
    "Decision",
    "Denial",
    "Limits",
    "Need",
    "NeedSource",
    "Reservation",
    "Rule",
    "decide",
    "infeasible",
]


def decide(
    need: Need,
    limits: Limits,
    snapshot: Snapshot,
    reservations: Sequence[Reservation],
    running_count: int,
    quarantined: Mapping[str, str] | None = None,
    peaks: Mapping[str, ForeignPeak] | None = None,
) -> Decision:
    """Judge one start.

    `reservations`: of every run on this machine, whichever worker owns it. `running_count`: the runs that count
    against `max_parallel`. `quarantined`: GPU UUID → why. `peaks`: other programs' recent use, see `vram.hold_peaks`.
    """
    denials = list(host_denials(limits, snapshot, running_count))
    gpu_uuids: tuple[str, ...] = ()
    if need.gpus > 0 and (snapshot.gpus or snapshot.problem is not None):
        placement = place(need, limits, snapshot, reservations, quarantined or {}, peaks or {})
        denials.extend(placement.denials)
        gpu_uuids = placement.gpu_uuids
    never = infeasible(need, limits, snapshot)
    return Decision(tuple(denials), () if denials or never else gpu_uuids, never)


def infeasible(need: Need, limits: Limits, snapshot: Snapshot) -> str | None:
    """Return why the run could not start even if nothing else ran here, with the numbers; None if it could.

    A GPU that cannot be read might be large enough, so it never makes a run infeasible. Neither does the lack of any
    GPU for a run on one, which then runs on the CPU; a run that asks for several means it.
    """
    ram_mib = snapshot.host.ram_total_mib
    if ram_mib is not None and ram_mib < limits.min_free_ram_mib:
        return (
            f"needs {amount(limits.min_free_ram_mib)} of free RAM, this machine has {amount(ram_mib)} in all"
            " (--min-free-ram)"
        )
    if need.gpus < 1 or snapshot.problem is not None or (need.gpus == 1 and not snapshot.gpus):
        return None
    sizes = [usable_mib(gpu, snapshot, limits.min_free_ram_mib) for gpu in snapshot.gpus]
    if sum(size is None or size >= need.vram_mib for size in sizes) >= need.gpus:
        return None
    if len(sizes) < need.gpus:
        return f"needs {need.gpus} GPUs, this machine has {len(sizes)}"
    known = sorted((size for size in sizes if size is not None), reverse=True)
    if need.gpus == 1:
        return f"needs {amount(need.vram_mib)} of VRAM, the largest GPU has {amount(known[0])}"
    has = ", ".join(amount(size) for size in known)
    return f"needs {amount(need.vram_mib)} of VRAM on each of {need.gpus} GPUs, the GPUs here have {has}"


def host_denials(limits: Limits, snapshot: Snapshot, running_count: int) -> Iterator[Denial]:
    """Yield each rule about the machine, rather than its GPUs, that refuses a start."""
    host = snapshot.host
    if running_count >= limits.max_parallel:
        text = f"waiting for a slot ({_busy(running_count, limits.max_parallel)})"
        yield Denial(Rule.PARALLEL, limits.max_parallel, running_count, text)
    yield from _floor(Rule.RAM, host.ram_free_mib, limits.min_free_ram_mib, " (--min-free-ram)")
    yield from _load(host.load_1m, host.cores, limits.max_cpu_load)
    yield from _floor(Rule.DISK, host.disk_free_mib, limits.min_free_disk_mib, " (minFreeDiskGB)")
    yield from _growth(limits, snapshot)


def _busy(running_count: int, most: int) -> str:
    """A run's own limit may be lower than the number of runs that its worker has running already."""
    return (
        f"{running_count} of {most} busy"
        if running_count <= most
        else f"{running_count} busy, at most {most}"
    )


def _floor(rule: Rule, present_mib: int | None, needed_mib: int, hint: str) -> Iterator[Denial]:
    head = f"needs {amount(needed_mib)} of {rule}"
    if present_mib is None:
        yield Denial(rule, needed_mib, None, f"{head}; it cannot be read{hint}")
    elif present_mib < needed_mib:
        yield Denial(rule, needed_mib, present_mib, f"{head}; has {amount(present_mib)}{hint}")


def _growth(limits: Limits, snapshot: Snapshot) -> Iterator[Denial]:
    """Refuse a run whose next segment would fill the disk that it saves to, as its last ones have grown. Nothing is
    said of a disk that is not read."""
    growth = limits.growth
    disk = disk_of(growth.folder, snapshot.host.disks) if growth is not None else None
    if growth is None or disk is None or disk[1] is None:
        return
    needed_mib = growth.mib + limits.min_free_disk_mib
    if growth.mib and disk[1] < needed_mib:
        yield Denial(
            Rule.DISK,
            needed_mib,
            disk[1],
            f"would fill {disk[0]}; {amount(growth.mib)} a segment so far, {amount(disk[1])} free and"
            f" {amount(limits.min_free_disk_mib)} to be left (minFreeDiskGB); free some, or keep fewer"
            " (--keep-checkpoints)",
        )


def _load(load_1m: float | None, cores: int, most: float) -> Iterator[Denial]:
    if load_1m is None:
        text = f"CPU load cannot be read; at most {most:.2f} per core (--max-cpu-load)"
        yield Denial(Rule.LOAD, most, None, text)
        return
    per_core = load_1m / max(1, cores)
    if per_core > most:
        text = f"CPU load is too high; {per_core:.2f} per core, at most {most:.2f} (--max-cpu-load)"
        yield Denial(Rule.LOAD, most, per_core, text)
