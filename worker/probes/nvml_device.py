"""Reads one NVIDIA GPU, or its MIG instances, through pynvml. Only for `backprop.worker.probes.nvml`."""

import re
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.host import MIB
from backprop.worker.probes.nvml_codes import DRIVER_GONE, GPU_GONE, error_code, nvml_errors

INTEGRATED: Final = re.compile(r"\b(GB10|Tegra|Jetson|Orin|Xavier|Thor|nvgpu)\b", re.IGNORECASE)
"""GPUs that share the host's RAM. A strict list: "not supported" on any other card means "cannot say"."""

BUSY_WITHIN_S: Final = 5.0

UNKNOWN_UUID: Final = "unknown-"

_GPU_SENSOR, _SLOWDOWN_THRESHOLD = 0, 1
_HW_SLOWDOWN, _SW_THERMAL, _HW_THERMAL, _POWER_BRAKE = 0x08, 0x20, 0x40, 0x80


class NvmlDevice:
    """One physical GPU during one reading. `gone`: it is lost, or needs a reset."""

    def __init__(self, nvml: ModuleType, index: int) -> None:
        self._nvml, self._index = nvml, index
        self.gone = False

    def read(self) -> Iterator[Gpu]:
        """Yield the GPU, or its instances if MIG is on. Raises pynvml's errors that concern the whole driver."""
        uuid, name = f"{UNKNOWN_UUID}{self._index}", "GPU"
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(self._index)
            uuid = self._ask("nvmlDeviceGetUUID", handle) or uuid
            name = self._ask("nvmlDeviceGetName", handle) or name
            gpus = tuple(
                self._read_instances(handle, name) if self._mig(handle) else (self._read(handle, name),)
            )
        except nvml_errors(self._nvml) as error:
            if error_code(error) in DRIVER_GONE:
                raise
            self.gone = True
            gpus = (_unreadable(uuid, self._index, name, str(error)),)
        yield from gpus

    def _read(self, handle: Any, name: str, parent: Any | None = None) -> Gpu:
        uuid = self._ask("nvmlDeviceGetUUID", handle) or f"{UNKNOWN_UUID}{self._index}"
        whole = handle if parent is None else parent
        temp_c = self._temp_c(whole)
        unified = INTEGRATED.search(name) is not None
        users = self._processes(handle)
        total, free, reserved, error = (None, None, None, None) if unified else self._memory(handle)
        return Gpu(
            uuid=uuid,
            index=self._index,
            name=name,
            total_mib=total,
            free_mib=free,
            temp_c=temp_c,
            slowdown_c=self._slowdown_c(whole, temp_c),
            throttled=self._throttled(whole),
            utilisation_pct=None if parent is not None else self._utilisation(handle),
            unified=unified,
            error=error if not uuid.startswith(UNKNOWN_UUID) else "its UUID cannot be read",
            used_by_pid=users,
            reserved_mib=reserved,
            power_w=None if parent is not None else self._power_w(handle),
            busy_by_pid=self._busy(handle) if users and parent is None else (),
        )

    def _mig(self, handle: Any) -> bool:
        mode = self._ask("nvmlDeviceGetMigMode", handle)
        return bool(mode and mode[0] == 1)

    def _read_instances(self, parent: Any, name: str) -> Iterator[Gpu]:
        any_instance = False
        for number in range(self._ask("nvmlDeviceGetMaxMigDeviceCount", parent) or 0):
            instance = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", parent, number)
            if instance is not None:
                any_instance = True
                yield self._read(instance, self._ask("nvmlDeviceGetName", instance) or f"{name} MIG", parent)
        if not any_instance:
            uuid = self._ask("nvmlDeviceGetUUID", parent) or f"{UNKNOWN_UUID}{self._index}"
            yield _unreadable(uuid, self._index, name, "MIG is on, but no instance was made")

    def _memory(self, handle: Any) -> tuple[int | None, int | None, int | None, str | None]:
        """Return (total, free, reserved) in MiB and why they cannot be read, or None."""
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle, version) if version is not None else None
        reserved_mib = None if memory is None else int(memory.reserved) // MIB
        memory = memory or self._ask("nvmlDeviceGetMemoryInfo", handle)
        if memory is None:
            return None, None, None, "its memory cannot be read (not supported by its driver)"
        total, free = int(memory.total), int(memory.free)
        if not 0 <= free <= total or total == 0:
            return None, None, None, f"its driver reports {free} bytes free of {total}"
        return total // MIB, free // MIB, reserved_mib, None

    def _temp_c(self, handle: Any) -> int | None:
        temp_c = self._ask("nvmlDeviceGetTemperature", handle, _GPU_SENSOR)
        if temp_c is None:
            temp_c = self._ask("nvmlDeviceGetTemperatureV", handle, _GPU_SENSOR)
        return None if temp_c is None else int(temp_c)

    def _slowdown_c(self, handle: Any, temp_c: int | None) -> int | None:
        """Return the threshold; newer cards report the margin left to it instead."""
        threshold_c = self._ask("nvmlDeviceGetTemperatureThreshold", handle, _SLOWDOWN_THRESHOLD)
        if threshold_c:
            return int(threshold_c)
        margin_c = None if temp_c is None else self._ask("nvmlDeviceGetMarginTemperature", handle)
        return None if temp_c is None or margin_c is None else temp_c + int(margin_c)

    def _throttled(self, handle: Any) -> bool | None:
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if reasons is None:
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        if reasons is None:
            return None
        # The general hardware slowdown is also set by an external power brake, which is not heat.
        by_hardware = bool(reasons & _HW_SLOWDOWN) and not reasons & _POWER_BRAKE
        return by_hardware or bool(reasons & (_SW_THERMAL | _HW_THERMAL))

    def _utilisation(self, handle: Any) -> int | None:
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        return None if rates is None else int(rates.gpu)

    def _power_w(self, handle: Any) -> float | None:
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", handle)
        return None if milliwatts is None else int(milliwatts) / 1000

    def _processes(self, handle: Any) -> tuple[tuple[int, int | None], ...]:
        """Merge both lists: a process with both compute and graphics is in both, with the same amount."""
        used_mib: dict[int, int | None] = {}
        for kind in ("Graphics", "Compute"):
            listed = self._ask(f"nvmlDeviceGet{kind}RunningProcesses", handle)
            if listed is None:
                listed = self._ask(f"nvmlDeviceGet{kind}RunningProcesses_v2", handle)
            for process in listed or ():
                used = process.usedGpuMemory
                used_mib[int(process.pid)] = None if used is None else int(used) // MIB
        return tuple(used_mib.items())

    def _busy(self, handle: Any) -> tuple[tuple[int, int], ...]:
        """Return how busy each process kept it lately; those that the driver has not sampled are missing."""
        since_us = int((time.time() - BUSY_WITHIN_S) * 1e6)
        samples = self._ask("nvmlDeviceGetProcessUtilization", handle, since_us)
        busiest: dict[int, int] = {}
        for sample in samples or ():
            pid, percent = int(sample.pid), int(sample.smUtil)
            if pid and 0 <= percent <= 100:
                busiest[pid] = max(busiest.get(pid, 0), percent)
        return tuple(busiest.items())

    def _ask(self, name: str, *args: Any) -> Any | None:
        """Call one function; return None if this driver, module or card has no answer. Raises only what concerns the
        whole GPU or the whole driver."""
        function: Callable[..., Any] | None = getattr(self._nvml, name, None)
        if function is None:
            return None
        try:
            return function(*args)
        except UnicodeDecodeError:
            return None  # a name that is not UTF-8
        except nvml_errors(self._nvml) as error:
            if error_code(error) in GPU_GONE | DRIVER_GONE:
                raise
            return None


def _unreadable(uuid: str, index: int, name: str, why: str) -> Gpu:
    return Gpu(uuid, index, name, None, None, None, None, None, None, error=why)
