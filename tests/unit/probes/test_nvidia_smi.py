"""What fake tools called nvidia-smi say, and how tools are found and left behind."""

import sys
import time
from pathlib import Path

import pytest

from backprop.worker.probes.nvidia_smi import read_nvidia_smi
from backprop.worker.probes.vendor_tool import ToolError, find_tool, run_tool
from tests.support.fakes import FakeDriver, fake_tool
from tests.support.probe_cases import A, Machine, has_ended, read


@pytest.fixture
def driver(tmp_path: Path, nvml_library: Path) -> FakeDriver:
    """Of a machine without a bench."""
    return FakeDriver(tmp_path / "driver", nvml_library)


GOOD_LINES = """\
0, GPU-aaaa, NVIDIA GeForce RTX 4090, 24564, 20000, 45, 3, Not Active, Not Active, [N/A]
1, GPU-bbbb, NVIDIA GeForce RTX 4090, 24564, 900, 83, 99, Active, Not Active, [N/A]"""

LISTING = """\
GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-aaaa)
GPU 1: NVIDIA GeForce RTX 4090 (UUID: GPU-bbbb)"""


def smi(folder: Path, script: str) -> Path:
    return fake_tool(folder, "nvidia-smi", script)


def test_nvidia_smi_reads_all(tmp_path: Path) -> None:
    reading = read_nvidia_smi(smi(tmp_path, f"cat <<'X'\n{GOOD_LINES}\nX"), 5.0)
    first, second = reading.gpus
    assert reading.source == "nvidia-smi"
    assert (first.uuid, first.total_mib, first.free_mib, first.temp_c) == ("GPU-aaaa", 24_564, 20_000, 45)
    assert (first.throttled, second.throttled, second.utilisation_pct) == (False, True, 99)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("0, GPU-a, RTX, [N/A], [N/A], 45, 3", "its memory cannot be read: total [N/A], free [N/A]"),
        ("0, GPU-a, RTX, 24000, [Unknown Error], 45, 3", "total 24000, free [Unknown Error]"),
        ("0, GPU-a, RTX, 24000, [GPU is lost], 45, 3", "GPU is lost"),
        ("0, [GPU requires reset], RTX, 24000, 1, 45, 3", "GPU requires reset"),
        ("0, GPU-a, H100, 80000, 1, 45, 3, Active, Active, Enabled", "MIG is on"),
        ("0, GPU-a, NVIDIA GB10, [N/A], [N/A], 45, 3", None),
        ("0, GPU-a, RTX, 24000, 9000, [N/A], [Not Supported]", None),
    ],
)
def test_nvidia_smi_without_an_answer(tmp_path: Path, line: str, error: str | None) -> None:
    (gpu,) = read_nvidia_smi(smi(tmp_path, f"echo '{line}'"), 5.0).gpus
    if error is None:
        assert gpu.error is None
        assert gpu.unified is ("GB10" in line)
    else:
        assert gpu.error is not None
        assert error in gpu.error
        assert gpu.free_mib is None


def test_nvidia_smi_with_one_gpu_of_two_lost_asks_one_by_one(tmp_path: Path) -> None:
    good = GOOD_LINES.splitlines()[1]
    script = f"""
case "$*" in
  *-L*) cat <<'X'
{LISTING}
X
  ;;
  *"-i GPU-bbbb"*) echo "{good}" ;;
  *) echo "Unable to determine the device handle for GPU0: 0000:01:00.0: GPU is lost."; exit 15 ;;
esac"""
    first, second = read_nvidia_smi(smi(tmp_path, script), 5.0).gpus
    assert first.uuid == "GPU-aaaa"
    assert first.error is not None
    assert "GPU is lost" in first.error
    assert (second.uuid, second.free_mib, second.error) == ("GPU-bbbb", 900, None)


def test_nvidia_smi_of_an_old_version_lacks_fields(tmp_path: Path) -> None:
    script = """
case "$*" in
  *clocks_throttle*) echo 'Field "mig.mode.current" is not a valid field to query.'; exit 2 ;;
  *) echo '0, GPU-a, Tesla K80, 11441, 11000, 30, 0' ;;
esac"""
    (gpu,) = read_nvidia_smi(smi(tmp_path, script), 5.0).gpus
    assert (gpu.free_mib, gpu.throttled) == (11_000, None)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'NVIDIA-SMI has failed because it could not communicate'; exit 9", "exit code 9"),
        ("head -c 5000 /dev/urandom", "nothing that can be read"),
        ("true", "it printed nothing"),
        ("sleep 2 & echo garbage", "nothing that can be read"),
        ("sleep 60", "hangs"),
        ("yes", "prints without end"),
    ],
)
def test_nvidia_smi_in_trouble(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        read_nvidia_smi(smi(tmp_path, f"exec {script}" if script in ("sleep 60", "yes") else script), 0.5)


def test_nvidia_smi_through_the_helper(driver: FakeDriver, machine: Machine) -> None:
    driver.show(init_rc=9)
    smi(machine.tools, f"cat <<'X'\n{GOOD_LINES}\nX")
    reading = read(machine.probe(driver))
    assert (reading.source, len(reading.gpus)) == ("nvidia-smi", 2)
    smi(machine.tools, "echo 'No devices were found'; exit 6")
    assert read(machine.probe(driver)).empty_machine


def test_a_hanging_nvidia_smi_is_killed_with_its_children(machine: Machine, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    smi(machine.tools, f"sleep 60 & echo $! > {pid_file}; wait")
    probe = machine.probe(kind="nvidia-smi", deadline_s=10)
    problem = read(probe).problem
    assert problem is not None
    assert "hangs" in problem
    end_s = time.monotonic() + 5
    while not has_ended(int(pid_file.read_text())):
        assert time.monotonic() < end_s, "the tool's child outlived the helper"
        time.sleep(0.02)


def test_nvml_mismatch_falls_back_to_a_working_nvidia_smi(driver: FakeDriver, machine: Machine) -> None:
    driver.show(A, init_rc=18)
    smi(machine.tools, f"cat <<'X'\n{GOOD_LINES}\nX")
    assert read(machine.probe(driver)).source == "nvidia-smi"
    smi(machine.tools, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    problem = read(machine.probe(driver)).problem
    assert problem is not None
    assert "reboot" in problem
    assert "exit code 18" in problem


def test_tools_are_found_in_absolute_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path / "project", "some-smi", "true")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("PATH", ".:")
    assert find_tool("some-smi") is None
    monkeypatch.setenv("PATH", f".:{tmp_path / 'project'}")
    assert find_tool("some-smi") == tmp_path / "project" / "some-smi"


def test_a_tool_is_left_behind_at_its_deadline() -> None:
    before_s = time.monotonic()
    result = run_tool([sys.executable, "-c", "import time; print('x', flush=True); time.sleep(60)"], 0.5)
    assert result.code is None
    assert time.monotonic() - before_s < 30, "not the minute the tool would have taken"
