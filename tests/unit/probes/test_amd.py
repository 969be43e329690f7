"""AMD cards: from the kernel's files in a fake /sys, and through fake tools."""

import json
from pathlib import Path

import pytest

from backprop.scheduler.config.choices import ProbeKind
from backprop.worker.probes.amd import read_amd
from backprop.worker.probes.reader import Reader
from backprop.worker.probes.vendor_tool import ToolError
from tests.support.fakes import fake_files, fake_tool


def amd_card(root: Path, card: str, address: str, **values: str) -> None:
    device = f"sys/devices/{address}"
    names = {
        "vendor": "0x1002",
        "mem_info_vram_total": str(16 << 30),
        "mem_info_vram_used": str(1 << 30),
    } | values
    fake_files(root, {f"{device}/{name.replace('__', '/')}": value for name, value in names.items()})
    (root / f"sys/class/drm/{card}").mkdir(parents=True)
    (root / f"sys/class/drm/{card}/device").symlink_to(root / device)


def test_amd_from_the_kernels_files(tmp_path: Path) -> None:
    amd_card(
        tmp_path,
        "card1",
        "0000:03:00.0",
        unique_id="b1a2",
        product_name="Radeon PRO W7800",
        gpu_busy_percent="12",
        hwmon__hwmon4__temp1_label="edge",
        hwmon__hwmon4__temp1_input="51000",
        hwmon__hwmon4__temp1_crit="100000",
        hwmon__hwmon4__temp2_label="junction",
        hwmon__hwmon4__temp2_input="60000",
    )
    amd_card(tmp_path, "card0", "0000:83:00.0", mem_info_vram_used="broken")
    (tmp_path / "sys/class/drm/card1-DP-1").mkdir()
    reading = read_amd(1.0, root=tmp_path, folders=())
    assert reading is not None
    first, second = reading.gpus
    assert reading.source == "sysfs"
    assert (first.uuid, first.index, first.free_mib) == ("GPU-b1a2", 0, 15 * 1024)
    assert (first.temp_c, first.slowdown_c, first.utilisation_pct) == (51, 100, 12)
    assert (second.uuid, second.free_mib, second.error) == (
        "amd-0000:83:00.0",
        None,
        "its memory cannot be read",
    )


def test_a_display_controller_inside_a_cpu_is_no_training_gpu(tmp_path: Path) -> None:
    amd_card(tmp_path, "card0", "0000:05:00.0", mem_info_vram_total=str(512 << 20), mem_info_vram_used="0")
    environment: dict[str, str] = {}
    auto = Reader(ProbeKind.AUTO, root=tmp_path, folders=[], environment=environment)
    assert auto._amd(least_mib=2048).empty_machine
    assert len(Reader(ProbeKind.ROCM, root=tmp_path, folders=[], environment=environment).read().gpus) == 1


AMD_LIST = [{"gpu": 0, "bdf": "0000:03:00.0", "uuid": "4aff74a0-0000-1000-80b1-000000000000"}]
AMD_METRIC = [
    {
        "gpu": 0,
        "usage": {"gfx_activity": {"value": 40, "unit": "%"}},
        "temperature": {"edge": "N/A", "hotspot": {"value": 55, "unit": "C"}},
        "mem_usage": {"total_vram": {"value": 192, "unit": "GB"}, "used_vram": {"value": 1024, "unit": "MB"}},
    }
]


@pytest.mark.parametrize("wrapped", [False, True])
def test_amd_smi(tmp_path: Path, wrapped: bool) -> None:
    listed, metric = (json.dumps({"gpu_data": one} if wrapped else one) for one in (AMD_LIST, AMD_METRIC))
    script = f"""echo 'WARNING: user is not in the group render'
case "$1" in list) echo '{listed}' ;; *) echo '{metric}' ;; esac"""
    fake_tool(tmp_path / "tools", "amd-smi", script)
    reading = read_amd(5.0, root=tmp_path, folders=[tmp_path / "tools"])
    assert reading is not None
    (gpu,) = reading.gpus
    assert (reading.source, gpu.uuid[:12], gpu.temp_c, gpu.utilisation_pct) == (
        "amd-smi",
        "GPU-4aff74a0",
        55,
        40,
    )
    assert (gpu.total_mib, gpu.free_mib) == (192 * 1024, 191 * 1024)


def test_rocm_smi_where_amd_smi_fails(tmp_path: Path) -> None:
    told = {
        "card0": {
            "Unique ID": "0x9246",
            "Temperature (Sensor edge) (C)": "35.0",
            "GPU use (%)": "0",
            "VRAM Total Memory (B)": str(16 << 30),
            "VRAM Total Used Memory (B)": str(2 << 30),
            "Card Series": "Radeon RX 7900",
        },
        "system": {"Driver version": "6.2"},
    }
    fake_tool(tmp_path / "tools", "amd-smi", "exit 1")
    fake_tool(tmp_path / "tools", "rocm-smi", f"echo '{json.dumps(told)}'")
    reading = read_amd(5.0, root=tmp_path, folders=[tmp_path / "tools"])
    assert reading is not None
    (gpu,) = reading.gpus
    assert (reading.source, gpu.uuid, gpu.temp_c, gpu.free_mib) == ("rocm-smi", "GPU-9246", 35, 14 * 1024)


def test_amd_tools_in_trouble_count_only_beside_the_compute_driver(tmp_path: Path) -> None:
    fake_tool(tmp_path / "tools", "rocm-smi", "echo garbage")
    assert read_amd(5.0, root=tmp_path, folders=[tmp_path / "tools"]) is None
    fake_files(tmp_path, {"dev/kfd": ""})
    with pytest.raises(ToolError, match="nothing that can be read"):
        read_amd(5.0, root=tmp_path, folders=[tmp_path / "tools"])
