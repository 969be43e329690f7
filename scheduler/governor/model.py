"""Names what the governor works with: what a run asks for, the limits on it, and the rules that refuse it.

Memory is in MiB, temperatures in °C. Data only: the rules themselves are in `decide`, `gpu_choice` and `runtime`.

A sentence that refuses opens with a head of at most 24 columns, since a list of runs shows little more. Then come the
amounts, and the option that changes the limit.
"""

from enum import StrEnum
from typing import Final, Literal

import msgspec

from backprop.scheduler.governor.disk import Growth
from backprop.scheduler.governor.snapshot import Gpu

GIB_IN_MIB: Final = 1024

NeedSource = Literal["declared", "learned", "default"]


class Rule(StrEnum):
    """What can refuse a start. The values are stable: `--json` shows them."""

    PARALLEL = "running runs"
    RAM = "free RAM"
    LOAD = "CPU load"
    DISK = "free disk"
    GPU_COUNT = "GPUs"
    GPU_READABLE = "GPU readable"
    QUARANTINE = "quarantine"
    VRAM = "free VRAM"
    EXCLUSIVE = "exclusive"
    TEMPERATURE = "temperature"
    SLOWDOWN = "thermal slowdown"
    HEAD_OF_LINE = "a longer wait"
    DRAINED = "drained"
    HOURS = "active hours"
    HOST = "host"
    PATH = "missing path"
    PORT = "port in use"
    SUSPENDED = "suspended runs"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that one run has to keep: the stricter of its worker's and its own.

    `max_parallel`: running runs, this one included. `max_cpu_load`: one-minute load per core. `gpu_max_temp_c`: where
    a running run is paused; starting and continuing need `temp_headroom_c` less. `allow_unknown_temp`: a GPU whose
    temperature cannot be read may be used (vGPUs, some laptops). `growth`: of its disk by one more segment.
    """

    max_parallel: int
    min_free_ram_mib: int
    max_cpu_load: float
    min_free_disk_mib: int
    gpu_max_temp_c: int
    temp_headroom_c: int = 5
    allow_unknown_temp: bool = False
    growth: Growth | None = None


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a run asks for. `vram_mib`: on each of its `gpus`. `source`: where the amount comes from.

    `gpus` 0: a CPU run, which no rule about GPUs refuses. `exclusive`: no other run of ours may share its GPUs.
    """

    vram_mib: int
    gpus: int = 1
    source: NeedSource = "default"
    exclusive: bool = False


class Denial(msgspec.Struct, frozen=True):
    """One rule that fails. `needed` and `present` are in the rule's unit: MiB, °C, runs, GPUs, load per
    core; None where there is no amount, or it cannot be read. `gpu_uuid`, `gpu_index`: None for a rule
    of the host. `path`: what is not there."""

    rule: Rule
    needed: float | None
    present: float | None
    text: str
    gpu_uuid: str | None = None
    gpu_index: int | None = None
    path: str | None = None

    def sentence(self) -> str:
        """One line for people, such as "GPU 0: needs 44 GiB; 11 of 23.6 GiB free"."""
        return self.text if self.gpu_index is None else f"GPU {self.gpu_index}: {self.text}"


class Decision(msgspec.Struct, frozen=True):
    """The governor's answer.

    `gpu_uuids`: where to start, best first; empty for a CPU run, on a machine without GPUs, and when refused.
    `infeasible`: why the run would not fit even if nothing else ran here, with the numbers; None if it would, or if
    that cannot be told now."""

    denials: tuple[Denial, ...]
    gpu_uuids: tuple[str, ...]
    infeasible: str | None = None

    @property
    def admitted(self) -> bool:
        return not self.denials and self.infeasible is None

    def sentence(self) -> str:
        """Every reason in one line; empty when admitted."""
        if self.infeasible is not None:
            return f"can't run here: {self.infeasible}"
        return "; ".join(denial.sentence() for denial in self.denials)


def amount(mib: float) -> str:
    """Return MiB for people: "3.1 GiB", "4 GiB", "512 MiB"."""
    return f"{gib(mib)} GiB" if abs(mib) >= GIB_IN_MIB else f"{mib:.0f} MiB"


def gib(mib: float) -> str:
    """Return MiB as a number of GiB with at most one decimal: "3.1", "4"."""
    return f"{mib / GIB_IN_MIB:.1f}".removesuffix(".0")


def heat_limit_c(limits: Limits, gpu: Gpu) -> int:
    """Return where this GPU is too hot: the user's limit, or the driver's slowdown if that comes first."""
    return limits.gpu_max_temp_c if gpu.slowdown_c is None else min(limits.gpu_max_temp_c, gpu.slowdown_c)
