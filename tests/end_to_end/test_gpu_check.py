"""The checklist for a machine with a GPU (`benchmarks/gpu`) runs to its end on the fake driver and the stub torch.

Nobody has a GPU where the code changes, so nothing else would notice that the checklist no longer fits it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from benchmarks.gpu import device, runs, turns, vram
from benchmarks.gpu.finding import Check
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.harness import ROOT

STUB_TORCH = ROOT / "tests" / "support" / "stub_torch"
ROWS = {
    device.free_memory: ("free VRAM", "taken by a process", "the same by the driver's list"),
    device.uuid_mask: ("CUDA_VISIBLE_DEVICES=UUID",),
    device.stop_and_continue: ("beats in 1 s of SIGSTOP", "its VRAM meanwhile", "beats again"),
    device.memory_after_kill: ("VRAM back after kill -9",),
    device.probe_cost: ("one NVML reading", "through the helper |", "through the helper, GPU busy"),
    runs.packing: ("6 runs of", "the most at once", "the most one of them used"),
    runs.limit: ("watched by the framework", "watched by the governor alone"),
    runs.chain: ("in timeboxes of", "what it learned", "time, uninterrupted and chained"),
    vram.vram_canary: ("canary of the suspend test", "driver, as it is remembered"),
    vram.two_cuda_processes: ("one CUDA process is found", "two are recognised"),
    vram.vram_out_and_in: ("64 MiB of PyTorch out", "128 MiB of PyTorch out"),
    vram.full_gpu: ("64 MiB out", "in again, where", "in once more"),
    vram.ordinary_user: ("canary as an ordinary user",),
    turns.taking_turns: (
        "backprop doctor --suspend-test",
        "on 6",
        "went out and came in",
        "what they held",
        "time, in turns",
    ),
    vram.kill_after_restore: ("VRAM back after kill -9 of a restored",),
}


def check(
    driver: FakeDriver, *words: str, python_path: str = str(STUB_TORCH)
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKPROP_")}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.check", *words],
        env=environment | driver.environment(PYTHONPATH=python_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def agrees(driver: FakeDriver, checks: Sequence[Check]) -> str:
    """Have the checks carried out, and their rows in the table; return that."""
    driver.show(FakeGpu("GPU-aaaa", name="Fake GPU"))
    named = [word for one in checks for word in ("--check", one.__name__.replace("_", " "))]
    done = check(driver, "--quick", *named)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    for row in (row for one in checks for row in ROWS[one]):
        assert any(row in line for line in lines), f"no row {row!r} in\n{done.stdout}"
    assert "could not be carried out" not in done.stdout
    return done.stdout


@pytest.mark.timeout(300)
def test_every_check_runs_and_agrees_with_the_fake_gpu(driver: FakeDriver) -> None:
    """But for the one of the test below, which takes as long as half of the others."""
    assert set(ROWS) == {*device.CHECKS, *runs.CHECKS, *vram.CHECKS, *turns.CHECKS}, "each has its rows"
    table = agrees(driver, (*device.CHECKS, *runs.CHECKS, *vram.CHECKS))
    assert "segments: " in table, f"the chain was never cut:\n{table}"


@pytest.mark.long
def test_two_runs_take_turns_on_the_fake_gpu(driver: FakeDriver) -> None:
    agrees(driver, turns.CHECKS)


def test_it_says_why_it_checks_nothing(driver: FakeDriver) -> None:
    driver.show()
    assert check(driver).stdout == "skipped: this machine has no GPU\n"
    driver.show(FakeGpu("GPU-aaaa", used=4096))
    assert "skipped: somebody uses it" in check(driver).stdout
