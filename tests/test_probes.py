"""Readings of GPUs: through the real pynvml and a fake driver, through fake tools, from a fake /sys."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backprop.scheduler.snapshot import Gpu
from backprop.worker.probes import client
from backprop.worker.probes.amd import read_amd
from backprop.worker.probes.client import GpuProbe, read_once
from backprop.worker.probes.host import read_host
from backprop.worker.probes.nvidia_smi import read_nvidia_smi
from backprop.worker.probes.reader import Kind, Reader
from backprop.worker.probes.reading import Reading
from backprop.worker.probes.tools import ToolError, find_tool, run_tool
from backprop.worker.probes.visible import only_visible
from tests.fakes import ALLOCATE, FakeDriver, FakeGpu, FakeMig, build_driver, fake_files, fake_tool

A = FakeGpu("GPU-aaaa", used=1000, reserved=500, temp=45, util=7)
B = FakeGpu("GPU-bbbb", used=20_000, temp=81)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("old-driver"), old=True)


@pytest.fixture
def driver(tmp_path: Path, library: Path) -> FakeDriver:
    return FakeDriver(tmp_path / "driver", library)


class Machine:
    """A folder that stands for a machine without a GPU, and the probes that look at it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tools = root / "tools"
        self.tools.mkdir()
        self._probes: list[GpuProbe] = []

    def probe(self, driver: FakeDriver | None = None, kind: str = "auto", **options: object) -> GpuProbe:
        environment = options.pop("environment", None) or (
            driver.environment() if driver else dict(os.environ)
        )
        defaults = {"deadline_s": 10.0, "interval_s": 0.0, "retry_s": 0.01, "back_off_s": 0.01} | options
        where = ("--root", str(self.root), "--tool-folder", str(self.tools))
        probe = GpuProbe(kind, environment=environment, helper_options=where, **defaults)
        self._probes.append(probe)
        return probe

    def close(self) -> None:
        for probe in self._probes:
            probe.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "machine").mkdir()
    machine = Machine(tmp_path / "machine")
    yield machine
    machine.close()


def read(probe: GpuProbe, within_s: float = 30.0) -> Reading:
    """One more reading, as a worker's loop gets it."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        now_s = time.monotonic()
        probe.request(now_s)
        if (reading := probe.poll(now_s)) is not None:
            return reading
        fd = probe.fileno()
        select.select([] if fd is None else [fd], [], [], 0.02)
    pytest.fail(f"no reading in {within_s} s; last: {probe.latest}")


def read_until(probe: GpuProbe, right: Callable[[Reading], bool], within_s: float = 30.0) -> Reading:
    end_s = time.monotonic() + within_s
    while not right(reading := read(probe)):
        assert time.monotonic() < end_s, f"never came; last: {reading}"
        time.sleep(0.02)
    return reading


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# NVML


def test_two_good_gpus(driver: FakeDriver, machine: Machine) -> None:
    driver.show(A, B)
    driver.occupy("GPU-aaaa", 600)
    reading = read(machine.probe(driver))
    assert reading.source == "nvml"
    assert reading.problem is None
    assert reading.gpus[0] == Gpu(
        uuid="GPU-aaaa",
        index=0,
        name="Fake GPU",
        total_mib=24_576,
        free_mib=24_576 - 500 - 1000 - 600,
        temp_c=45,
        slowdown_c=90,
        throttled=False,
        utilisation_pct=7,
        used_by_pid=((os.getpid(), 600),),
        reserved_mib=500,
    )
    assert (reading.gpus[1].uuid, reading.gpus[1].temp_c) == ("GPU-bbbb", 81)


def test_changes_show_in_the_next_reading(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver)
    driver.show(A)
    assert read(probe).gpus[0].temp_c == 45
    driver.show(replace(A, temp=88, used=5000))
    again = read(probe).gpus[0]
    assert (again.temp_c, again.free_mib) == (88, 24_576 - 500 - 5000)


def test_a_lost_gpu_does_not_hide_the_other_and_comes_back(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver)
    driver.show(A, B)
    read(probe)
    driver.show(replace(A, handle_rc=15), B)
    first, second = read(probe).gpus
    assert first.error is not None
    assert "GPU is lost" in first.error
    assert (first.uuid, first.free_mib, first.temp_c) == ("GPU-aaaa", None, None)
    assert second.free_mib == 24_576 - 20_000
    driver.show(A, B)
    assert read(probe).gpus[0].error is None


def test_a_gpu_lost_in_the_middle_of_a_reading(driver: FakeDriver, machine: Machine) -> None:
    driver.show(replace(A, mem_rc=15), B)
    first, second = read(machine.probe(driver)).gpus
    assert first.error is not None
    assert second.error is None


def test_a_gpu_that_is_no_longer_listed_is_not_forgotten(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver)
    driver.show(A, B)
    read(probe)
    driver.show(A)
    gone = read(probe).gpus[1]
    assert (gone.uuid, gone.error) == ("GPU-bbbb", "its driver no longer lists it")


def test_all_gpus_gone_is_a_problem_not_a_machine_without_gpus(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver)
    driver.show(A)
    read(probe)
    driver.show()
    reading = read(probe)
    assert reading.problem == "the GPUs seen before are gone"
    assert [gpu.error for gpu in reading.gpus] == [reading.problem]
    assert probe.stale


def test_not_supported_is_none_never_zero(driver: FakeDriver, machine: Machine) -> None:
    driver.show(replace(A, temp_rc=3, slowdown=0), replace(B, mem_rc=3))
    cool, blind = read(machine.probe(driver)).gpus
    assert (cool.temp_c, cool.slowdown_c, cool.error) == (None, None, None)
    assert (blind.free_mib, blind.total_mib) == (None, None)
    assert blind.error is not None
    assert "memory cannot be read" in blind.error


def test_unified_memory_is_known_by_name_only(driver: FakeDriver, machine: Machine) -> None:
    driver.show(replace(A, name="NVIDIA GB10", mem_rc=3))
    gpu = read(machine.probe(driver)).gpus[0]
    assert (gpu.unified, gpu.free_mib, gpu.error, gpu.temp_c) == (True, None, None, 45)


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [(0x00, False), (0x04, False), (0x20, True), (0x40, True), (0x08, True), (0x88, False), (0xC8, True)],
)
def test_thermal_slowdown_is_told_from_power(
    driver: FakeDriver, machine: Machine, reasons: int, throttled: bool
) -> None:
    driver.show(replace(A, reasons=reasons))
    assert read(machine.probe(driver)).gpus[0].throttled is throttled


def test_slowdown_from_the_margin_where_the_threshold_is_missing(
    driver: FakeDriver, machine: Machine
) -> None:
    driver.show(replace(A, temp=60, slowdown=0, margin=31))
    assert read(machine.probe(driver)).gpus[0].slowdown_c == 91


def test_mig_instances_stand_for_their_gpu(driver: FakeDriver, machine: Machine) -> None:
    slices = (FakeMig("MIG-1", 10_000, used=1000), FakeMig("MIG-2", 20_000))
    driver.show(replace(A, mig=slices), replace(B, mig=()))
    first, second, bare = read(machine.probe(driver)).gpus
    assert (first.uuid, first.total_mib, first.free_mib) == ("MIG-1", 10_000, 9000)
    assert (second.uuid, second.index, second.temp_c, second.utilisation_pct) == ("MIG-2", 0, 45, None)
    assert bare.error == "MIG is on, but no instance was made"


def test_the_instances_of_a_lost_gpu_are_lost_with_it(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver)
    partitioned = replace(A, mig=(FakeMig("MIG-1", 10_000), FakeMig("MIG-2", 10_000)))
    driver.show(partitioned, B)
    read(probe)
    driver.show(replace(partitioned, handle_rc=15), B)
    assert [(gpu.uuid, gpu.error) for gpu in read(probe).gpus] == [
        ("MIG-1", "GPU is lost"),
        ("MIG-2", "GPU is lost"),
        ("GPU-bbbb", None),
    ]
    driver.show(replace(A, mig=(FakeMig("MIG-3", 20_000),)), B)
    assert [gpu.uuid for gpu in read(probe).gpus] == ["MIG-3", "GPU-bbbb"]


def test_an_old_driver_lacks_functions(tmp_path: Path, old_library: Path, machine: Machine) -> None:
    driver = FakeDriver(tmp_path / "old", old_library)
    driver.show(replace(A, reasons=0x20))
    driver.occupy("GPU-aaaa", 300)
    gpu = read(machine.probe(driver)).gpus[0]
    assert gpu.error is None
    assert gpu.free_mib == 24_576 - 500 - 1000 - 300
    assert gpu.reserved_mib is None
    assert gpu.throttled is True
    assert gpu.used_by_pid == ((os.getpid(), 300),)


def test_amounts_of_processes_may_be_untold(driver: FakeDriver, machine: Machine) -> None:
    driver.show(A)
    driver.occupy("GPU-aaaa", -1)
    assert read(machine.probe(driver)).gpus[0].used_by_pid == ((os.getpid(), None),)


def test_a_driver_upgraded_underneath_says_so_and_recovers(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver)
    driver.show(A)
    read(probe)
    driver.show(A, init_rc=18)
    reading = read(probe)
    assert reading.problem is not None
    assert "upgraded underneath; reboot" in reading.problem
    assert reading.gpus[0].error == reading.problem
    driver.show(A)
    assert read_until(probe, lambda one: one.problem is None).gpus[0].error is None
    assert not probe.stale


def test_a_driver_not_loaded_counts_only_beside_a_gpu(driver: FakeDriver, machine: Machine) -> None:
    driver.show(init_rc=9)
    assert read(machine.probe(driver)) == Reading((), "none", None)
    fake_files(
        machine.root, {"sys/bus/pci/devices/0/vendor": "0x10de", "sys/bus/pci/devices/0/class": "0x030000"}
    )
    problem = read(machine.probe(driver)).problem
    assert problem is not None
    assert "the NVIDIA driver is not loaded" in problem


def test_a_driver_that_lists_no_gpu_beside_one(driver: FakeDriver, machine: Machine) -> None:
    fake_files(machine.root, {"dev/nvidia0": ""})
    driver.show()
    assert read(machine.probe(driver)).problem == "the NVIDIA driver lists no GPU"


def test_cuda_visible_devices_of_the_worker(driver: FakeDriver, machine: Machine) -> None:
    driver.show(A, B)
    for value, expected in {
        "1": ["GPU-bbbb"],
        "GPU-a": ["GPU-aaaa"],
        "GPU-b,0": ["GPU-aaaa", "GPU-bbbb"],
    }.items():
        probe = machine.probe(driver, environment=driver.environment(CUDA_VISIBLE_DEVICES=value))
        assert [gpu.uuid for gpu in read(probe).gpus] == expected
    hidden = machine.probe(driver, environment=driver.environment(CUDA_VISIBLE_DEVICES=""))
    assert read(hidden).empty_machine
    wrong = machine.probe(driver, environment=driver.environment(CUDA_VISIBLE_DEVICES="7"))
    assert read(wrong).problem == "CUDA_VISIBLE_DEVICES=7 names no GPU of this machine"


def test_memory_of_a_process_is_taken_once_and_comes_back_at_its_death(
    driver: FakeDriver, machine: Machine
) -> None:
    """The fakes themselves: what other tests start on the fake card behaves as on a card."""
    driver.show(FakeGpu("GPU-aaaa", total=10_000))
    probe = machine.probe(driver)
    environment = driver.environment(CUDA_VISIBLE_DEVICES="GPU-aaaa")

    def start(mib: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(ALLOCATE), "--mib", str(mib), "--hold-s", "60"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    with start(6000) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "allocated\n"
            assert read(probe).gpus[0].used_by_pid == ((first.pid, 6000),)
            with start(6000) as second:
                assert "CUDA out of memory" in second.communicate(timeout=20)[1]
                assert second.returncode == 1
        finally:
            first.kill()
    assert read(probe).gpus[0].free_mib == 10_000


# The helper and its client


def test_a_hanging_driver_blocks_nobody(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver, deadline_s=2.0, back_off_s=0.3)
    driver.show(A, B)
    read(probe)
    driver.show(replace(A, hang_ms=60_000), B)
    slowest_s, unknown, end_s = 0.0, None, time.monotonic() + 20
    while unknown is None:
        assert time.monotonic() < end_s, probe.latest
        before_s = time.monotonic()
        probe.request(before_s)
        unknown = probe.poll(before_s)
        slowest_s = max(slowest_s, time.monotonic() - before_s)
        time.sleep(0.01)
    assert slowest_s < 1.0
    assert unknown.problem is not None
    assert "has not answered" in unknown.problem
    assert [(gpu.uuid, gpu.free_mib, gpu.error) for gpu in unknown.gpus] == [
        ("GPU-aaaa", None, unknown.problem),
        ("GPU-bbbb", None, unknown.problem),
    ]
    assert probe.stale
    driver.show(A, B)
    assert read_until(probe, lambda one: one.problem is None).gpus[0].free_mib is not None
    assert not probe.stale


def test_stuck_helpers_are_left_behind_and_not_replaced_for_ever(
    driver: FakeDriver, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test can make a process that survives SIGKILL in the kernel; so the kill is taken away."""
    stuck: list[int] = []
    monkeypatch.setattr(client.HelperProcess, "kill", lambda self: stuck.append(self._process.pid))
    driver.show(replace(A, hang_ms=60_000))
    probe = machine.probe(driver, deadline_s=0.5, back_off_s=0.01)
    last = read_until(probe, lambda one: "stuck" in (one.problem or ""))
    assert last.problem == "2 GPU probes are stuck in the driver"
    assert len(stuck) == 2
    monkeypatch.undo()
    for helper in probe._left_behind:
        helper.kill()
    driver.show(A)
    assert read_until(probe, lambda one: one.problem is None).gpus[0].error is None
    assert all(has_ended(pid) for pid in stuck)


def test_back_off_grows_to_minutes(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver, deadline_s=1.0, back_off_s=30.0)
    driver.show(replace(A, hang_ms=60_000))
    waits: list[float] = []
    now_s = 0.0
    for _ in range(5):
        probe.request(now_s)
        assert probe.fileno() is not None
        assert probe.poll(now_s + 1.1) is not None
        waits.append(probe._not_before_s - (now_s + 1.1))
        while probe._left_behind:  # it dies of the kill, in its own time
            probe.poll(now_s)
            time.sleep(0.01)
        now_s = probe._not_before_s
    assert waits == pytest.approx([30, 60, 120, 240, 300])


def test_a_helper_that_died_is_replaced(driver: FakeDriver, machine: Machine) -> None:
    probe = machine.probe(driver)
    driver.show(A)
    read(probe)
    assert probe._helper is not None
    pid = probe._helper._process.pid
    os.kill(pid, signal.SIGKILL)
    while not has_ended(pid):
        time.sleep(0.01)
    assert read(probe).gpus[0].error is None
    assert probe._helper._process.pid != pid


def test_a_helper_that_cannot_work_says_why(driver: FakeDriver, machine: Machine, tmp_path: Path) -> None:
    fake_files(tmp_path / "broken", {"msgspec/__init__.py": "raise ImportError('no msgspec here')"})
    environment = driver.environment(PYTHONPATH=str(tmp_path / "broken"))
    reading = read_until(machine.probe(environment=environment), lambda one: "exit" in (one.problem or ""))
    assert reading.problem is not None
    assert reading.problem.endswith("exit code 1: ImportError: no msgspec here")


def test_a_module_in_the_workers_folder_cannot_pose_as_ours(
    driver: FakeDriver, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_files(tmp_path / "project", {"pynvml.py": "raise RuntimeError", "msgspec.py": "raise RuntimeError"})
    monkeypatch.chdir(tmp_path / "project")
    driver.show(A)
    assert read(machine.probe(driver)).problem is None


def test_a_machine_without_gpus_holds_no_helper(driver: FakeDriver, machine: Machine) -> None:
    driver.show(init_rc=9)
    probe = machine.probe(driver)
    assert read(probe).empty_machine
    assert probe._helper is None
    assert not probe.stale
    probe.request(time.monotonic() + client.NO_GPU_PAUSE_S - 60)
    assert probe._helper is None
    probe.request(time.monotonic() + client.NO_GPU_PAUSE_S + 60)
    assert probe._helper is not None


def test_no_probe_starts_no_process(machine: Machine) -> None:
    probe = machine.probe(kind="none")
    assert read(probe) == Reading((), "none", None)
    assert probe._helper is None
    assert not probe.stale


def test_requests_keep_their_distance(driver: FakeDriver, machine: Machine) -> None:
    driver.show(A)
    probe = machine.probe(driver, interval_s=5.0)
    read(probe)
    asked_s = probe._not_before_s - 5.0
    probe.request(asked_s + 4.9)
    assert probe.fileno() is None
    probe.request(asked_s + 5.1)
    assert probe.fileno() is not None


def test_closing_ends_the_helper_even_in_a_hang(driver: FakeDriver, machine: Machine) -> None:
    driver.show(replace(A, hang_ms=60_000))
    probe = machine.probe(driver)
    probe.request(time.monotonic())
    assert probe._helper is not None
    pid = probe._helper._process.pid
    before_s = time.monotonic()
    probe.close()
    assert time.monotonic() - before_s < 1.0
    assert has_ended(pid)


def test_read_once(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> None:
    driver.show(A)
    for name, value in driver.environment().items():
        monkeypatch.setenv(name, value)
    assert read_once(Kind.AUTO).gpus[0].uuid == "GPU-aaaa"
    driver.show(replace(A, hang_ms=60_000))
    problem = read_once(Kind.AUTO, deadline_s=1.5).problem
    assert problem is not None
    assert "has not answered" in problem


# nvidia-smi

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
    probe = machine.probe(kind="nvidia-smi", deadline_s=1.5)
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
    assert time.monotonic() - before_s < 2.0


# AMD


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
    auto = Reader(Kind.AUTO, root=tmp_path, folders=[], environment=environment)
    assert auto._amd(least_mib=2048).empty_machine
    assert len(Reader(Kind.ROCM, root=tmp_path, folders=[], environment=environment).read().gpus) == 1


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


# The rest


def test_the_host(tmp_path: Path) -> None:
    host = read_host(tmp_path)
    assert host.ram_free_mib is not None
    assert host.ram_total_mib is not None
    assert 0 < host.ram_free_mib <= host.ram_total_mib
    assert host.cores == os.cpu_count()
    assert host.load_1m is not None
    assert host.disk_free_mib is not None
    assert read_host(tmp_path / "missing").disk_free_mib is None


def test_visible_mig_instances() -> None:
    slices = tuple(Gpu(f"MIG-{name}", 0, "MIG", 1, 1, 1, None, None, None) for name in "abc")
    reading = Reading(slices, "nvml")
    assert [gpu.uuid for gpu in only_visible(reading, {"CUDA_VISIBLE_DEVICES": "MIG-b"}).gpus] == ["MIG-b"]
    assert len(only_visible(reading, {}).gpus) == 3
