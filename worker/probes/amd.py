"""Reads AMD GPUs: from the kernel's own files, else through `amd-smi` or `rocm-smi`.

The files under /sys/class/drm need no tool, cost next to nothing and do not change between releases.
"""

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.amd_card import amd_gpu
from backprop.worker.probes.amd_tools import read_amd_smi, read_rocm_smi
from backprop.worker.probes.hardware import ROOT, read_text
from backprop.worker.probes.host import MIB
from backprop.worker.probes.reading import Reading
from backprop.worker.probes.vendor_tool import ToolError, find_tool

_AMD: Final = "0x1002"
_CARD: Final = re.compile(r"card\d+$")
_SENSORS: Final = ("edge", "junction")


def read_amd(
    deadline_s: float, *, root: Path = ROOT, folders: Sequence[Path] | None = None
) -> Reading | None:
    """Read all AMD GPUs within `deadline_s`; None if there is none. Raises ToolError.

    `root`, `folders`: used instead of the machine's root and of the tools' usual folders.
    """
    if gpus := tuple(read_sysfs(root)):
        return Reading(gpus, "sysfs")
    complaint: ToolError | None = None
    end_s = time.monotonic() + deadline_s
    for name, read in (("amd-smi", read_amd_smi), ("rocm-smi", read_rocm_smi)):
        tool = find_tool(name, folders)
        if tool is None:
            continue
        try:
            if gpus := tuple(read(tool, end_s)):
                return Reading(gpus, name)
        except ToolError as error:
            complaint = error
    if complaint is not None and (root / "dev/kfd").exists():
        raise complaint
    return None


def read_sysfs(root: Path = ROOT) -> Iterator[Gpu]:
    """Yield the cards with amdgpu's memory counters, in the order of their PCI addresses."""
    cards = (card for card in root.glob("sys/class/drm/card*") if _CARD.search(card.name))
    devices = {(card / "device").resolve() for card in cards if read_text(card / "device/vendor") == _AMD}
    counted = (device for device in devices if (device / "mem_info_vram_total").exists())
    for index, device in enumerate(sorted(counted, key=lambda device: device.name)):
        total, used = _file(device / "mem_info_vram_total"), _file(device / "mem_info_vram_used")
        temp_c, slowdown_c = _hwmon(device)
        unique = read_text(device / "unique_id")
        yield amd_gpu(
            uuid=f"GPU-{unique}" if unique else f"amd-{device.name}",
            index=index,
            name=read_text(device / "product_name") or "AMD GPU",
            total_mib=None if total is None else total // MIB,
            used_mib=None if used is None else used // MIB,
            temp_c=temp_c,
            slowdown_c=slowdown_c,
            utilisation_pct=_file(device / "gpu_busy_percent"),
        )


def _file(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text.isdigit() else None


def _hwmon(device: Path) -> tuple[int | None, int | None]:
    """Return (temperature, critical temperature) of the edge sensor, or of the hottest spot on cards without one."""
    labelled = {read_text(path): path for path in sorted(device.glob("hwmon/hwmon*/temp*_label"))}
    for sensor in _SENSORS:
        if sensor in labelled:
            stem = labelled[sensor].name.removesuffix("_label")
            temp, critical = (_file(labelled[sensor].with_name(f"{stem}_{end}")) for end in ("input", "crit"))
            return None if temp is None else temp // 1000, None if not critical else critical // 1000
    first = next(iter(sorted(device.glob("hwmon/hwmon*/temp1_input"))), None)
    temp = None if first is None else _file(first)
    return None if temp is None else temp // 1000, None
