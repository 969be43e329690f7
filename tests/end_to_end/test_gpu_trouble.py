"""What runs meet where a driver or a GPU is in trouble, or is of another kind."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from backprop.worker.machine.reader import FRESH_S
from tests.support.fake_gpus import (
    QUICK,
    given,
    impatient,
    queue,
    reason,
    status,
    wait_for_reason,
    wait_for_state,
)
from tests.support.fakes import FakeDriver, FakeGpu, FakeMig, fake_tool
from tests.support.gpu_scenes import HOLD, A, B, cpu_run, wait_for_output
from tests.support.harness import Bench, alive, wait_until

SOON_AGAIN = ("GpuProbe.retry_s=0.2", "worker.probes.client.MAX_RETRY_S=1")
"""For `impatient`: a driver that failed is asked again every second."""


def test_one_gpu_of_two_is_lost_and_comes_back(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A, B)
    words = ("--gpu-min-vram", "20000", "--", "--mib", "5000")
    first, second = queue(bench, *words), queue(bench, *words)
    bench.worker("-p", "4", command=impatient(*QUICK))
    on = {given(bench, run)[0]: run for run in (first, second)}
    for run in on.values():
        bench.wait_for_log(run, "allocated")
    assert on.keys() == {"GPU-aaaa", "GPU-bbbb"}
    driver.show(A, replace(B, handle_rc=15))
    third = queue(bench, *words)
    told = wait_for_reason(bench, third, "GPU 1: not used: GPU is lost")
    assert "GPU 0: needs 19.5 GiB; 4.5 of 24 GiB free (19.5 reserved by runs)" in told
    wait_for_output(bench, "trouble     GPU 1 (Fake GPU) cannot be used: GPU is lost")
    shown = bench.backprop("status").stdout
    assert "not used: GPU is lost" in shown
    assert bench.backprop("stop", on["GPU-bbbb"]).returncode == 0
    wait_for_state(bench, on["GPU-bbbb"], "stopped")
    assert bench.state(on["GPU-aaaa"]) == "running"
    assert bench.state(third) == "queued"
    driver.show(A, B)
    assert given(bench, third) == ["GPU-bbbb"]
    wait_for_output(bench, "recovered   GPU 1 (Fake GPU) can be used again")


def test_a_driver_that_hangs_keeps_back_only_what_needs_a_gpu(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A)
    running = queue(bench, *HOLD)
    waiting = queue(bench, "--gpu-min-vram", "24000", *HOLD)
    bench.worker(
        "-p", "8", command=impatient("GpuProbe.back_off_s=1", "worker.probes.client.MAX_BACK_OFF_S=2")
    )
    bench.wait_for_log(running, "beat 3")
    wait_for_reason(bench, waiting, "GiB free")
    driver.show(A, hang_ms=60_000)
    hung_s = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        shown = pool.submit(bench.backprop, "status")
        wait_for_reason(bench, waiting, "GPU 0: not used: the GPU driver has not answered for ", timeout_s=9)
        # The answer is awaited all the while; nothing else is.
        asked_s = time.monotonic()
        wait_for_state(bench, cpu_run(bench), "completed", timeout_s=6)
        leader = bench.leader(running)
        assert bench.backprop("stop", running).returncode == 0
        wait_until(lambda: not alive(leader), timeout_s=6)
        wait_for_state(bench, running, "stopped", timeout_s=6)
        assert time.monotonic() - asked_s < 8
        wait_for_output(bench, "trouble     the GPUs cannot be used: the GPU driver has not answered for 1")
        assert time.monotonic() - hung_s > 8
        assert "none can be read: the GPU driver has not answered for 1" in shown.result().stdout
    assert bench.state(waiting) == "queued"
    driver.show(A)
    bench.wait_for_log(waiting, "allocated", timeout_s=60)
    wait_for_output(bench, "recovered   the GPUs can be used again")


TROUBLES = [
    ((A,), 18, "the NVIDIA driver was upgraded underneath; reboot, or reload its kernel modules"),
    ((replace(A, handle_rc=15), replace(B, handle_rc=15)), 0, "GPU 1: not used: "),
    ((replace(A, mem_rc=3),), 0, "GPU 0: not used: its memory cannot be read"),
    ((replace(A, temp_rc=3),), 0, "GPU 0: not used: its temperature cannot be read"),
    ((replace(A, reasons=0x40),), 0, "GPU 0: the driver is throttling it (too hot)"),
]


def test_a_driver_in_trouble_keeps_runs_back_until_it_recovers(bench: Bench, driver: FakeDriver) -> None:
    script = bench.script("where.py", "import os; print('takes ' + os.environ['CUDA_VISIBLE_DEVICES'])")
    driver.show(A, B)
    bench.worker(command=impatient(*QUICK, *SOON_AGAIN))
    for gpus, init_rc, words in TROUBLES:
        driver.show(*gpus, init_rc=init_rc)
        time.sleep(
            FRESH_S + 0.5
        )  # an idle worker may decide on a reading this old: until then all looks well
        run = queue(bench, script=script)
        assert words in wait_for_reason(bench, run, words)
        if init_rc:
            assert f"none can be read: {words}" in bench.backprop("status").stdout
            wait_for_state(bench, cpu_run(bench), "completed")
        driver.show(A, B)
        wait_for_state(bench, run, "completed")
        assert bench.log(run).strip() in ("takes GPU-aaaa", "takes GPU-bbbb")


GARBAGE = "printf 'Segmentation fault \\033[31m\\377\\n0, what?\\n'"
GOOD = """
case "$*" in *--query-gpu*)
  for field in $(printf %s "$*" | sed 's/.*--query-gpu=\\([^ ]*\\).*/\\1/; s/,/ /g'); do
    case $field in
      index) v=0;; uuid) v=GPU-tool;; name) v=Tool;; memory.total) v=24576;; memory.free) v=24000;;
      memory.used) v=576;; temperature.gpu) v=40;; utilization.gpu) v=0;; *) v='[N/A]';;
    esac
    out="$out${out:+, }$v"
  done; echo "$out";;
esac
"""


def test_nvidia_smi_prints_garbage(bench: Bench, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    fake_tool(tools, "nvidia-smi", GARBAGE)
    bench.environment["PATH"] = f"{tools}:{bench.environment['PATH']}"
    bench.home.mkdir(mode=0o700)
    (bench.home / "config.json").write_text('{"gpu": {"probe": "nvidia-smi"}}')
    run = queue(bench)
    bench.worker("--gpu-probe", "nvidia-smi", command=impatient(*QUICK, *SOON_AGAIN))
    told = wait_for_reason(bench, run, "no GPU can be used: ", "nvidia-smi printed nothing that can be read")
    assert "\033" not in told
    assert "nvidia-smi printed nothing that can be read" in bench.backprop("status").stdout
    wait_for_state(bench, cpu_run(bench), "completed")
    fake_tool(tools, "nvidia-smi", GOOD)
    assert given(bench, run) == ["GPU-tool"]


def test_mig_instances_are_gpus_of_their_own(bench: Bench, driver: FakeDriver) -> None:
    mig = (FakeMig("MIG-aaaa", 10_240), FakeMig("MIG-bbbb", 10_240))
    driver.show(FakeGpu("GPU-aaaa", mig=mig))
    words = ("--gpu-min-vram", "8000")
    runs = [queue(bench, *words) for _ in range(3)]
    bench.worker("-p", "8", command=impatient(*QUICK))
    wait_until(lambda: sorted(bench.state(run) for run in runs) == ["queued", "running", "running"])
    last = next(run for run in runs if bench.state(run) == "queued")
    started = [given(bench, run) for run in runs if run != last]
    assert sorted(started) == [["MIG-aaaa"], ["MIG-bbbb"]]
    assert "2.2 of 10 GiB free (7.8 reserved by runs)" in wait_for_reason(bench, last, "GiB free")
    assert {gpu["uuid"] for gpu in status(bench)["gpus"]} == {"MIG-aaaa", "MIG-bbbb"}


def test_unified_memory_is_the_hosts(bench: Bench, driver: FakeDriver) -> None:
    driver.show(FakeGpu("GPU-gb10", name="NVIDIA GB10", mem_rc=3))
    run = queue(bench, "--gpu-min-vram", "100")
    huge = queue(bench, "--gpu-min-vram", "1048576")
    bench.worker("-p", "4", command=impatient(*QUICK))
    assert given(bench, run) == ["GPU-gb10"]
    wait_for_state(bench, huge, "held")
    assert re.fullmatch(
        r"can't run here: needs 1024 GiB of VRAM, the largest GPU has [\d.]+ GiB",
        reason(bench, huge),
    )
    (gpu,) = status(bench)["gpus"]
    assert gpu["unified"] is True
    assert gpu["free_mib"] is None
    assert gpu["available_mib"] > 0


def test_a_worker_uses_the_gpus_it_was_given_only(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A, B)
    words = ("--gpu-min-vram", "20000", "--", "--mib", "5000")
    first, second = queue(bench, *words), queue(bench, *words)
    bench.worker("-p", "4", env={"CUDA_VISIBLE_DEVICES": "1"}, command=impatient(*QUICK))
    told = wait_for_reason(bench, second, "GPU 1: needs 19.5 GiB; 4.5 of 24 GiB free")
    assert "GPU 0" not in told
    assert given(bench, first) == ["GPU-bbbb"]
    two = queue(bench, "--gpus", "2")
    wait_for_state(bench, two, "held")
    assert reason(bench, two) == "can't run here: needs 2 GPUs, this machine has 1"
