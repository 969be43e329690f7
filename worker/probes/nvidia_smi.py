"""Reads NVIDIA GPUs through the `nvidia-smi` program, where NVML cannot be used.

Its values can be `[N/A]`, `[Not Supported]`, `[Unknown Error]`, `[GPU is lost]`, `[GPU requires reset]`: all
mean "cannot say", the last two that the GPU is gone. With one lost GPU of several the whole command may fail
though the others work; they are then asked one by one.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.nvml_device import INTEGRATED, UNKNOWN_UUID
from backprop.worker.probes.reading import Reading
from backprop.worker.probes.vendor_tool import ToolError, ToolResult, ask_tool

SOURCE: Final = "nvidia-smi"

_BASE: Final = ("index", "uuid", "name", "memory.total", "memory.free", "temperature.gpu", "utilization.gpu")
_EXTRA: Final = (
    "clocks_throttle_reasons.sw_thermal_slowdown",
    "clocks_throttle_reasons.hw_thermal_slowdown",
    "mig.mode.current",
)
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_LISTED: Final = re.compile(r"^GPU ([0-9]{1,9}): (.+) \(UUID: (GPU-[0-9A-Za-z-]+)\)")
_GONE: Final = re.compile(r"lost|requires reset|fallen off", re.IGNORECASE)
_NO_FIELD: Final = re.compile(r"not a valid field", re.IGNORECASE)
_NO_DEVICES: Final = re.compile(r"no devices were found", re.IGNORECASE)


def read_nvidia_smi(tool: Path, deadline_s: float) -> Reading:
    """Read all GPUs within `deadline_s`. Raises ToolError."""
    end_s = time.monotonic() + deadline_s
    result = _query(tool, (), end_s)
    gpus = _parse(result.out)
    if (result.code == 0 and gpus) or _NO_DEVICES.search(result.out + result.err):
        return Reading(gpus, SOURCE)
    if result.code == 0:
        raise ToolError(f"{tool} printed nothing that can be read: {result.complaint()!r}")
    gpus = _one_by_one(tool, {gpu.uuid: gpu for gpu in gpus}, end_s)
    if not gpus:
        raise ToolError(f"{tool} failed with exit code {result.code}: {result.complaint()}")
    return Reading(gpus, SOURCE)


def _query(tool: Path, which: Sequence[str], end_s: float) -> ToolResult:
    """Ask for all fields, or for the old ones if this version does not know the rest."""
    result = ask_tool(tool, [*_fields((*_BASE, *_EXTRA)), *which], end_s)
    if result.code != 0 and _NO_FIELD.search(result.out + result.err):
        result = ask_tool(tool, [*_fields(_BASE), *which], end_s)
    return result


def _fields(names: Sequence[str]) -> list[str]:
    return [f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]


def _one_by_one(tool: Path, known: dict[str, Gpu], end_s: float) -> tuple[Gpu, ...]:
    """Ask each GPU that `-L` lists. One that fails is kept with its complaint."""
    listing = ask_tool(tool, ["-L"], end_s)
    gpus: list[Gpu] = []
    for line in listing.out.splitlines():
        listed = _LISTED.match(line.strip())
        if listed is None:
            continue
        index, name, uuid = int(listed[1]), listed[2], listed[3]
        if uuid not in known:
            result = _query(tool, ["-i", uuid], end_s)
            parsed = _parse(result.out) if result.code == 0 else ()
            known[uuid] = parsed[0] if parsed else _unreadable(uuid, index, name, result.complaint())
        gpus.append(known[uuid])
    return tuple(gpus)


def _parse(text: str) -> tuple[Gpu, ...]:
    rows = (tuple(field.strip() for field in line.split(",")) for line in text.splitlines())
    return tuple(gpu for row in rows if (gpu := _gpu(row)) is not None)


def _gpu(row: Sequence[str]) -> Gpu | None:
    """Read one CSV line; None for anything else, such as a warning between the lines."""
    if len(row) not in (len(_BASE), len(_BASE) + len(_EXTRA)) or not _DIGITS.fullmatch(row[0]):
        return None
    index, uuid, name = int(row[0]), row[1], row[2]
    if gone := next((field for field in row[1:] if _GONE.search(field)), None):
        known_uuid = uuid if uuid.startswith("GPU-") else f"{UNKNOWN_UUID}{index}"
        return _unreadable(known_uuid, index, name, gone.strip("[]"))
    if not uuid.startswith("GPU-"):
        return None
    if row[len(_BASE) + 2 :] == ("Enabled",):
        return _unreadable(uuid, index, name, "MIG is on: its instances can only be read through NVML")
    total_mib, free_mib = _number(row[3]), _number(row[4])
    unified = INTEGRATED.search(name) is not None
    broken = not unified and (total_mib is None or free_mib is None or free_mib > total_mib)
    return Gpu(
        uuid=uuid,
        index=index,
        name=name,
        total_mib=None if unified or broken else total_mib,
        free_mib=None if unified or broken else free_mib,
        temp_c=_number(row[5]),
        slowdown_c=None,
        throttled=_throttled(row[len(_BASE) : len(_BASE) + 2]),
        utilisation_pct=_number(row[6]),
        unified=unified,
        error=f"its memory cannot be read: total {row[3]}, free {row[4]}" if broken else None,
    )


def _number(field: str) -> int | None:
    return int(field) if _DIGITS.fullmatch(field) else None


def _throttled(fields: Sequence[str]) -> bool | None:
    if "Active" in fields:
        return True
    return False if "Not Active" in fields else None


def _unreadable(uuid: str, index: int, name: str, why: str) -> Gpu:
    return Gpu(uuid, index, name, None, None, None, None, None, None, error=why)
