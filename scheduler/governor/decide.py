"""May this run start now, on which GPUs, and if not, why not?

`decide` is pure: it looks at a frozen snapshot and at what was promised, and names *every* rule that fails,
with the amounts. The same `Decision` feeds the log, `status` and `why`.

    rules      the words: Limits, Need, Denial, Decision
    vram       how much of a GPU may still be promised
    placement  which GPUs can take a run
    watch      the running-time counterpart: go on, pause, continue, yield, stop

RAM, load or disk that cannot be read refuse a start: "cannot say" never counts as good.
"""

from collections.abc import Iterator, Mapping, Sequence

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

    `reservations`: of every run on this machine, whichever worker owns it. `running_count`: the runs that
    count against `max_parallel`. `quarantined`: GPU UUID → why it is kept aside. `peaks`: what
    `vram.hold_peaks` remembers of others' use.
    """
    denials = list(_host(limits, snapshot, running_count))
    gpu_uuids: tuple[str, ...] = ()
    if need.gpus > 0 and (snapshot.gpus or snapshot.problem is not None):
        placement = place(need, limits, snapshot, reservations, quarantined or {}, peaks or {})
        denials.extend(placement.denials)
        gpu_uuids = placement.gpu_uuids
    never = infeasible(need, limits, snapshot)
    return Decision(tuple(denials), () if denials or never else gpu_uuids, never)


def infeasible(need: Need, limits: Limits, snapshot: Snapshot) -> str | None:
    """Why the run could not start even if nothing else ran here, with the numbers; None if it could.

    A GPU that cannot be read might be large enough, so it never makes a run infeasible. Neither does the
    lack of any GPU for a run on one (it then runs on the CPU); a run that asks for several means it.
    """
    ram_mib = snapshot.host.ram_total_mib
    if ram_mib is not None and ram_mib < limits.min_free_ram_mib:
        return (
            f"needs {amount(limits.min_free_ram_mib)} of free RAM, this machine has {amount(ram_mib)} in all"
        )
    if need.gpus < 1 or snapshot.problem is not None or (need.gpus == 1 and not snapshot.gpus):
        return None
    sizes = [usable_mib(gpu, snapshot, limits.min_free_ram_mib) for gpu in snapshot.gpus]
    if sum(size is None or size >= need.vram_mib for size in sizes) >= need.gpus:
        return None
    if len(sizes) < need.gpus:
        return f"needs {need.gpus} GPUs, this machine has {len(sizes)}"
    has = ", ".join(
        amount(size) for size in sorted((size for size in sizes if size is not None), reverse=True)
    )
    where = f" on each of {need.gpus} GPUs" if need.gpus > 1 else ""
    return f"needs {amount(need.vram_mib)} of VRAM{where} ({need.source}), the GPUs here have {has}"


def _host(limits: Limits, snapshot: Snapshot, running_count: int) -> Iterator[Denial]:
    host = snapshot.host
    if running_count >= limits.max_parallel:
        text = f"running runs {running_count}, at most {limits.max_parallel}"
        yield Denial(Rule.PARALLEL, limits.max_parallel, running_count, text)
    yield from _floor(Rule.RAM, host.ram_free_mib, limits.min_free_ram_mib)
    yield from _load(host.load_1m, host.cores, limits.max_cpu_load)
    yield from _floor(Rule.DISK, host.disk_free_mib, limits.min_free_disk_mib)


def _floor(rule: Rule, present_mib: int | None, needed_mib: int) -> Iterator[Denial]:
    if present_mib is None:
        yield Denial(rule, needed_mib, None, f"{rule} cannot be read, needs {amount(needed_mib)}")
    elif present_mib < needed_mib:
        yield Denial(
            rule, needed_mib, present_mib, f"{rule} {amount(present_mib)}, needs {amount(needed_mib)}"
        )


def _load(load_1m: float | None, cores: int, most: float) -> Iterator[Denial]:
    if load_1m is None:
        yield Denial(Rule.LOAD, most, None, f"CPU load cannot be read, at most {most:.2f} per core")
        return
    per_core = load_1m / max(1, cores)
    if per_core > most:
        text = f"CPU load {per_core:.2f} per core, at most {most:.2f}"
        yield Denial(Rule.LOAD, most, per_core, text)
