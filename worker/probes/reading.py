"""Holds one reading of the GPUs, and makes a snapshot of it."""

import msgspec

from backprop.scheduler.governor.snapshot import NO_SOURCE, Gpu, Host, Snapshot


class Reading(msgspec.Struct, frozen=True):
    """The `gpus`, `source`, `problem` and `driver` of a `governor.snapshot.Snapshot`."""

    gpus: tuple[Gpu, ...]
    source: str
    problem: str | None = None
    driver: str | None = None

    def with_host(self, host: Host, taken_s: float) -> Snapshot:
        """Complete the snapshot. `taken_s`: monotonic seconds."""
        return Snapshot(host, self.gpus, self.source, self.problem, taken_s, self.driver)

    @property
    def empty_machine(self) -> bool:
        """Whether there is no GPU and nothing suggests one."""
        return not self.gpus and self.problem is None


NO_GPU = Reading((), NO_SOURCE)


def unknown(gpus: tuple[Gpu, ...], problem: str) -> Reading:
    """Return the GPUs last known, none of them usable because of `problem`."""
    return Reading(tuple(lost(gpu, problem) for gpu in gpus), NO_SOURCE, problem)


def lost(gpu: Gpu, why: str) -> Gpu:
    """Return `gpu` without what changes from moment to moment. Its size stays known."""
    return msgspec.structs.replace(
        gpu,
        free_mib=None,
        temp_c=None,
        throttled=None,
        utilisation_pct=None,
        power_w=None,
        used_by_pid=(),
        busy_by_pid=(),
        error=why,
    )
