"""Reads AMD GPUs through `amd-smi` or `rocm-smi`, where the kernel's own files are hidden.

Their JSON changes between releases and is trusted accordingly: a key that is missing, or holds prose, means "cannot
say".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.amd_card import amd_gpu
from backprop.worker.probes.host import MIB
from backprop.worker.probes.vendor_tool import ToolError, ask_tool

_CARD: Final = re.compile(r"card[0-9]{1,9}$")
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_IN_MIB: Final = {"B": 1 / MIB, "KB": 1 / 1024, "MB": 1.0, "GB": 1024.0}


def read_amd_smi(tool: Path, end_s: float) -> Iterator[Gpu]:
    """Yield the GPUs that `amd-smi` reports until the monotonic time `end_s`. Raises ToolError."""
    listed = {_index(row): row for row in _listed(_json(tool, ["list", "--json"], end_s))}
    for row in _listed(_json(tool, ["metric", "--mem-usage", "--temperature", "--usage", "--json"], end_s)):
        index = _index(row)
        memory, temperature = _dict(row.get("mem_usage")), _dict(row.get("temperature"))
        ids = listed.get(index, {})
        temps = (_quantity(temperature.get(sensor)) for sensor in ("edge", "hotspot"))
        yield amd_gpu(
            uuid=_uuid(ids.get("uuid"), ids.get("bdf"), index),
            index=index,
            name="AMD GPU",
            total_mib=_quantity(memory.get("total_vram"), in_mib=True),
            used_mib=_quantity(memory.get("used_vram"), in_mib=True),
            temp_c=next((temp for temp in temps if temp is not None), None),
            slowdown_c=None,
            utilisation_pct=_quantity(_dict(row.get("usage")).get("gfx_activity")),
        )


def read_rocm_smi(tool: Path, end_s: float) -> Iterator[Gpu]:
    """Yield the GPUs that `rocm-smi` reports until the monotonic time `end_s`. Raises ToolError."""
    arguments = [
        "--showmeminfo",
        "vram",
        "--showtemp",
        "--showuse",
        "--showuniqueid",
        "--showproductname",
        "--json",
    ]
    for card, fields in _dict(_json(tool, arguments, end_s)).items():
        if not _CARD.match(card):
            continue
        values, index = _dict(fields), int(card.removeprefix("card"))
        total, used = (_quantity(_find(values, rf"vram total {word}memory \(b\)")) for word in ("", "used "))
        temps = (_quantity(_find(values, rf"sensor {sensor}")) for sensor in ("edge", "junction"))
        yield amd_gpu(
            uuid=_uuid(_find(values, r"unique id"), None, index),
            index=index,
            name=str(_find(values, r"card series") or "AMD GPU"),
            total_mib=None if total is None else total // MIB,
            used_mib=None if used is None else used // MIB,
            temp_c=next((temp for temp in temps if temp is not None), None),
            slowdown_c=None,
            utilisation_pct=_quantity(_find(values, r"gpu use")),
        )


def _json(tool: Path, arguments: Sequence[str], end_s: float) -> Any:
    result = ask_tool(tool, arguments, end_s)
    if result.code != 0:
        raise ToolError(f"{tool} failed with exit code {result.code}: {result.complaint()}")
    # Both tools print warnings before their JSON.
    start = min((at for mark in "[{" if (at := result.out.find(mark)) >= 0), default=0)
    try:
        return json.loads(result.out[start:])
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{tool} printed nothing that can be read: {result.complaint()!r}") from error


def _listed(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return amd-smi's list of GPUs; newer versions wrap it in an object."""
    if isinstance(value, dict):
        value = _dict(value).get("gpu_data")
    rows = cast("list[Any]", value) if isinstance(value, list) else []
    return tuple(_dict(row) for row in rows if "gpu" in _dict(row))


def _index(row: Mapping[str, Any]) -> int:
    return _quantity(row.get("gpu")) or 0


def _dict(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _find(values: Mapping[str, Any], pattern: str) -> Any | None:
    """Find a value by a pattern: rocm-smi's keys are prose, and their case changes between releases."""
    return next((value for key, value in values.items() if re.search(pattern, key, re.IGNORECASE)), None)


def _quantity(value: Any, *, in_mib: bool = False) -> int | None:
    """Read a number: 12, "12", "12.0", or {"value": 12, "unit": "MB"}. None for anything else, such as "N/A"."""
    unit = "MB"
    if isinstance(value, dict):
        unit = str(_dict(value).get("unit", unit))
        value = _dict(value).get("value")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if _NUMBER.fullmatch(str(value).strip()) is None:
        return None
    return int(float(value) * (_IN_MIB.get(unit, 1.0) if in_mib else 1.0))


def _uuid(value: Any, bdf: Any, index: int) -> str:
    """Return the UUID as ROCR_VISIBLE_DEVICES takes it if the card has a unique id, else a name of our own."""
    if isinstance(value, str) and value not in ("", "N/A"):
        return value if value.startswith("GPU-") else f"GPU-{value.removeprefix('0x')}"
    return f"amd-{bdf}" if isinstance(bdf, str) else f"amd-card{index}"
