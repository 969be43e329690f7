"""What is read through the real pynvml from a fake driver, and what is made of its troubles."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.reading import Reading
from tests.support.fakes import ALLOCATE, FakeDriver, FakeGpu, FakeMig, build_driver, fake_files
from tests.support.probe_cases import A, B, Machine, read, read_until


@pytest.fixture
def driver(tmp_path: Path, nvml_library: Path) -> FakeDriver:
    """Of a machine without a bench."""
    return FakeDriver(tmp_path / "driver", nvml_library)


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("old-driver"), old=True)


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
        busy_by_pid=((os.getpid(), 7),),
        reserved_mib=500,
    )
    assert (reading.gpus[1].uuid, reading.gpus[1].temp_c) == ("GPU-bbbb", 81)


def test_power_is_read_where_the_card_tells_it(driver: FakeDriver, machine: Machine) -> None:
    driver.show(replace(A, power=312_500), B)
    assert [gpu.power_w for gpu in read(machine.probe(driver)).gpus] == [312.5, None]


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
