"""The helper that reads the GPUs, and its client: one that hangs or dies holds up nobody. And the host."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backprop.scheduler.config.choices import ProbeKind
from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes import client
from backprop.worker.probes.client import read_once
from backprop.worker.probes.host import read_host
from backprop.worker.probes.reading import Reading
from backprop.worker.probes.visible_devices import only_visible
from tests.support.fakes import FakeDriver, fake_files
from tests.support.probe_cases import A, B, Machine, has_ended, read, read_until


@pytest.fixture
def driver(tmp_path: Path, nvml_library: Path) -> FakeDriver:
    """Of a machine without a bench."""
    return FakeDriver(tmp_path / "driver", nvml_library)


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
    assert slowest_s < 10, "not the minute the driver takes"
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
    assert time.monotonic() - before_s < 30, "not the minute the driver takes"
    assert has_ended(pid)


def test_read_once(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> None:
    driver.show(A)
    for name, value in driver.environment().items():
        monkeypatch.setenv(name, value)
    assert read_once(ProbeKind.AUTO).gpus[0].uuid == "GPU-aaaa"
    driver.show(replace(A, hang_ms=60_000))
    problem = read_once(ProbeKind.AUTO, deadline_s=1.5).problem
    assert problem is not None
    assert "has not answered" in problem


# nvidia-smi


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
