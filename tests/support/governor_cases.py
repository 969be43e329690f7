"""Makes machines, GPUs and reservations for tests of the rules."""

from backprop.scheduler.governor.decide import Decision, Limits, Need, Reservation, Rule, decide
from backprop.scheduler.governor.snapshot import Gpu, Host, Snapshot

GIB = 1024
HOST = Host(ram_free_mib=32 * GIB, ram_total_mib=64 * GIB, load_1m=2.0, cores=8, disk_free_mib=100 * GIB)
LIMITS = Limits(
    max_parallel=8,
    min_free_ram_mib=4 * GIB,
    max_cpu_load=4.0,
    min_free_disk_mib=2 * GIB,
    gpu_max_temp_c=83,
)
NEED = Need(vram_mib=6 * GIB, source="declared")


def gpu(index: int = 0, *, total: int | None = 24 * GIB, free: int | None = None, **values: object) -> Gpu:
    fields: dict[str, object] = {
        "uuid": f"GPU-{index}",
        "index": index,
        "name": "GPU",
        "total_mib": total,
        "free_mib": total if free is None else free,
        "temp_c": 50,
        "slowdown_c": 90,
        "throttled": False,
        "utilisation_pct": 0,
    }
    return Gpu(**(fields | values))


def machine(*gpus: Gpu, host: Host = HOST, problem: str | None = None) -> Snapshot:
    return Snapshot(host, gpus, "nvml", problem, 0.0)


def promise(
    run_id: str,
    mib: int,
    seen: int | None = 0,
    *,
    on: int = 0,
    settled: bool = False,
    exclusive: bool = False,
    elsewhere: bool = False,
) -> Reservation:
    return Reservation(run_id, f"GPU-{on}", mib, seen, 0.0, settled, exclusive, elsewhere)


def ask(
    snapshot: Snapshot,
    *reservations: Reservation,
    need: Need = NEED,
    limits: Limits = LIMITS,
    running: int = 0,
) -> Decision:
    return decide(need, limits, snapshot, reservations, running)


def rules(decision: Decision) -> list[Rule]:
    return [denial.rule for denial in decision.denials]


class NoReader:
    """Stands in for what reads the machine, where nothing can be read."""

    def snapshot(self) -> Snapshot | None:
        return None
