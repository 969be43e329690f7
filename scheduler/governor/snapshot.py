"""Holds one frozen reading of the machine, for the governor.

Memory is in MiB, temperatures in °C, utilisation in percent. None means "cannot say", never 0. Nothing here reads the
machine: `backprop.worker.probes` does.
"""

from typing import Final

import msgspec

from backprop.scheduler.governor.disk import Disks

NO_SOURCE: Final = "none"


class Host(msgspec.Struct, frozen=True):
    """The machine around the GPUs.

    `ram_free_mib`: what is available without swapping (MemAvailable). `load_1m`: the one-minute load average of
    the whole machine. `cores`: its logical cores. `disk_free_mib`: on the file system of the queue's folder. `disks`:
    all of them.
    """

    ram_free_mib: int | None
    ram_total_mib: int | None
    load_1m: float | None
    cores: int
    disk_free_mib: int | None
    disks: Disks = ()


class Gpu(msgspec.Struct, frozen=True):
    """One GPU, or one MIG instance of a GPU.

    `uuid`: as CUDA_VISIBLE_DEVICES takes it; the only name kept anywhere. `index`: for people, and for ties.
    `total_mib`, `free_mib`: as the driver counts; None for a unified GPU, whose memory is the host's RAM.
    `reserved_mib`: the part of `total_mib` that the driver never hands out.
    `slowdown_c`: where the driver starts to slow it down. `throttled`: it reports a thermal slowdown now.
    `error`: why it cannot be used, in words; None if it can. `used_by_pid`: (pid, MiB or None) as the driver
    reports it, for display and attribution only: in a container the pids are the host's, and on some systems the
    amounts are missing. `power_w`: what it draws, in watts. `busy_by_pid`: (pid, percent of the last seconds in which
    it kept the GPU busy), of those of which the driver tells; for display only.
    """

    uuid: str
    index: int
    name: str
    total_mib: int | None
    free_mib: int | None
    temp_c: int | None
    slowdown_c: int | None
    throttled: bool | None
    utilisation_pct: int | None
    unified: bool = False
    error: str | None = None
    used_by_pid: tuple[tuple[int, int | None], ...] = ()
    reserved_mib: int | None = None
    power_w: float | None = None
    busy_by_pid: tuple[tuple[int, int], ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """The machine at one moment.

    `gpus` empty and `problem` None: the machine has no GPU, and no rule about GPUs applies. `problem`: why
    no GPU could be read although there seems to be one; the GPUs last known are then in `gpus`, each with
    its `error`.
    `source`: what was read: nvml, nvidia-smi, amd-smi, rocm-smi, sysfs or none. `taken_s`: monotonic seconds.
    `driver`: the version of the NVIDIA driver; None where it is not told.
    """

    host: Host
    gpus: tuple[Gpu, ...]
    source: str
    problem: str | None
    taken_s: float
    driver: str | None = None

    def gpu(self, uuid: str) -> Gpu | None:
        """Return the GPU of that UUID; None if it is not in the reading."""
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)
