"""What happens to real runs when something happens to a GPU: real workers and processes, a driver made of files.

Each scene ends in the right decision, and in the right words in `why`, `status` or the worker's output.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.support.fake_gpus import (
    HOST_IS_FINE,
    QUICK,
    allocated,
    beats,
    given,
    impatient,
    peak_mib,
    queue,
    reason,
    status,
    wait_for_reason,
    wait_for_state,
)
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.gpu_scenes import HOLD, A, B, cpu_run, wait_for_output
from tests.support.harness import Bench, stays_true, wait_until

FULL = FakeGpu("GPU-cccc", used=20_000)


def states(pids: list[int]) -> set[str]:
    """The kernel's state letters of these processes."""
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids}


def tree(leader: int) -> list[int]:
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    return [leader, *(int(pid) for pid in children)]


@contextmanager
def stranger() -> Iterator[int]:
    """The pid of a process that is nothing of ours."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_heat_pauses_the_whole_tree_and_its_timebox(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A)
    run = queue(bench, "--", "--mib", "5000", "--child", "--until", "go")
    tracker = queue(bench, "--gpu-max-temp", "60", *HOLD)
    bench.worker("-p", "4", command=impatient(*QUICK))
    for one in (run, tracker):
        bench.wait_for_log(one, "beat 3")
    processes = tree(bench.leader(run))
    assert len(processes) == 2

    driver.show(replace(A, temp=66))
    wait_for_state(bench, tracker, "paused")
    assert bench.state(run) == "running"
    driver.show(replace(A, temp=90))
    begun_s = time.monotonic()
    wait_for_state(bench, run, "paused")
    paused_s = time.monotonic()
    wait_until(lambda: states(processes) == {"T"}, saw=lambda: states(processes))
    stopped_at = beats(bench, run)
    assert reason(bench, run) == "paused: GPU 0 at 90 °C, limit 85 °C"
    assert reason(bench, tracker) == "paused: GPU 0 at 66 °C, limit 60 °C"
    late = queue(bench, *HOLD)
    assert "GPU 0: too hot (90 °C); a run starts at 80 °C or less" in wait_for_reason(bench, late, "too hot")
    shown = bench.backprop("status").stdout
    assert re.search(rf"{run} .* paused .* paused: GPU 0 at 90 °C, limit 85 °C", shown)
    assert "90 °C  85 °C" in shown

    # A little cooler is not cool: it would be at the limit again in a moment.
    driver.show(replace(A, temp=83))
    wait_until(lambda: status(bench)["gpus"][0]["temp_c"] == 83)
    assert states(processes) == {"T"}
    assert beats(bench, run) == stopped_at
    least_paused_s = time.monotonic() - paused_s
    driver.show(replace(A, temp=70))
    wait_for_state(bench, run, "running")
    wait_until(lambda: beats(bench, run) > stopped_at)
    most_paused_s = time.monotonic() - begun_s
    assert bench.state(tracker) == "paused"
    driver.show(replace(A, temp=50))
    wait_for_state(bench, tracker, "running")
    (bench.project / "go").touch()
    wait_for_state(bench, run, "completed")
    assert not bench.folder(run, 2).exists()
    ended = bench.exit_record(run)
    assert least_paused_s - 1 < ended["paused_s"] < most_paused_s + 1
    assert "cool again: GPU 0 at 70 °C" in bench.output()


def test_several_gpus_and_too_long_a_pause_yield_and_resume_when_cool(
    bench: Bench, driver: FakeDriver
) -> None:
    driver.show(A, B, FULL)
    both = queue(bench, "--gpus", "2", "--grace-seconds", "20", *HOLD)
    single = queue(bench, "--grace-seconds", "20", *HOLD)
    bench.worker("-p", "4", command=impatient(*QUICK, "scheduler.governor.runtime.PAUSE_LIMIT_S=1"))
    bench.wait_for_log(both, "beat 3")
    bench.wait_for_log(single, "beat 3")
    assert sorted(given(bench, both)) == ["GPU-aaaa", "GPU-bbbb"]

    driver.show(replace(A, temp=91), replace(B, temp=91), FULL)
    for run in (both, single):
        wait_until(lambda run=run: bench.folder(run).joinpath("exit.json").exists(), timeout_s=60)
        wait_for_reason(bench, run, "too hot (91 °C); a run starts at 80 °C or less")
    told = bench.output()
    assert "paused for now: cooling: GPU 0 at 91 °C, limit 85 °C; not paused: it runs on several GPUs" in told
    assert re.search(
        rf"\({single}\) +requeued .* paused for now: cooling: GPU . at 91 °C, limit 85 °C; paused for", told
    )
    assert not any(bench.folder(run, 2).exists() for run in (both, single))
    assert [bench.show(run)["segments"][0]["outcome"] for run in (both, single)] == ["yielded"] * 2

    driver.show(A, B, FULL)
    for run in (both, single):
        bench.wait_for_log(run, "allocated", 2, timeout_s=60)
        begun = int(bench.log(run, 2).partition("begins at beat ")[2].split()[0])
        assert begun == beats(bench, run)


def test_a_strangers_pause_is_no_free_space_but_its_end_is(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A)
    with stranger() as pid:
        driver.occupy("GPU-aaaa", 20_000, pid)
        run = queue(bench, "--gpu-min-vram", "6000", *HOLD)
        bench.worker(command=impatient(*QUICK, "scheduler.governor.vram.PEAK_CONFIRM_S=0.5"))
        bench.script("other.py", "print(1)")
        told = wait_for_reason(bench, run, "4.5 of 24 GiB free")
        assert "needs 5.9 GiB; 4.5 of 24 GiB free (19.5 used by other programs)" in told
        assert status(bench)["gpus"][0]["foreign_mib"] == 20_000
        assert "idle: " + run in bench.backprop("status").stdout
        time.sleep(2)  # looks enough to see that its use lasts
        driver.occupy("GPU-aaaa", 576, pid)
        wait_until(lambda: status(bench)["gpus"][0]["free_mib"] == 24_000)
        # Looks enough to start the run, were this free space.
        stays_true(lambda: bench.state(run) == "queued", for_s=2.0)
        # Commands have read the machine once, and know it as well as the worker that has watched it.
        assert status(bench)["gpus"][0]["foreign_mib"] == 20_000
        for command in (("run", "--gpu-min-vram", "6000", *HOST_IS_FINE, "other.py"), ("worker",)):
            forecast = bench.backprop("--dry-run", *command).stdout
            assert "would wait: GPU 0: needs 5.9 GiB; 4.5 of 24 GiB free" in forecast
    bench.wait_for_log(run, "beat 1", timeout_s=60)


def test_what_fits_nowhere_is_held_at_once(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A, FakeGpu("GPU-bbbb", total=16_384))
    large = queue(bench, "-g", "100", *HOLD)
    many = queue(bench, "--gpus", "3", *HOLD)
    both = queue(bench, "--gpus", "2", "-g", "20", *HOLD)
    share = queue(bench, "-g", "80%", *HOLD)
    bench.worker(command=impatient(*QUICK))
    for run, why in (
        (large, "needs 100 GiB of VRAM, the largest GPU has 24 GiB"),
        (many, "needs 3 GPUs, this machine has 2"),
        (both, "needs 20 GiB of VRAM on each of 2 GPUs, the GPUs here have 24 GiB, 16 GiB"),
    ):
        wait_for_state(bench, run, "held")
        assert reason(bench, run) == f"can't run here: {why}"
        assert why in bench.backprop("why", run).stdout
    assert given(bench, share) == ["GPU-aaaa"]
    assert bench.show(share)["segments"][0]["promised_mib"] == 24_576 * 80 // 100
    # What was held can be asked for anew with less.
    assert bench.backprop("resume", large, "-g", "2").returncode == 0
    assert given(bench, large)


def test_exclusive_runs_share_with_nobody_and_cpu_runs_wait_for_nobody(
    bench: Bench, driver: FakeDriver
) -> None:
    driver.show(A)
    alone = queue(bench, "--exclusive", "--", "--mib", "5000", "--until", "go")
    bench.worker("-p", "8", command=impatient(*QUICK))
    bench.wait_for_log(alone, "allocated")
    small = queue(bench, *HOLD)
    assert f"GPU 0: run {alone} has it exclusively" in wait_for_reason(bench, small, "exclusively")
    wait_for_state(bench, cpu_run(bench), "completed")
    (bench.project / "go").touch()
    bench.wait_for_log(small, "allocated")
    also = queue(bench, "--exclusive", *HOLD)
    told = wait_for_reason(bench, also, "needed exclusively")
    assert f"GPU 0: needed exclusively; {small} is running there" in told
    driver.show(replace(A, temp=99, used=24_000))
    wait_for_state(bench, cpu_run(bench), "completed")


def test_growing_beyond_its_limit_ends_a_run_before_its_neighbours_suffer(
    bench: Bench, driver: FakeDriver
) -> None:
    driver.show(A)
    greedy = queue(bench, "-g", "6", "--", "--mib", "6000", "--grow-when", "grow", "--grow-mib", "3000")
    modest = queue(bench, "-g", "6", "--", "--mib", "6000", "--until", "go")
    bench.worker("-p", "4", command=impatient(*QUICK))
    for run in (greedy, modest):
        bench.wait_for_log(run, "allocated")
    stays_true(lambda: {bench.state(run) for run in (greedy, modest)} == {"running"}, for_s=2.0)
    (bench.project / "grow").touch()
    shown = bench.wait_for(greedy, "failed")
    assert reason(bench, greedy) == "over its limit: uses 8.8 GiB on GPU 0, its limit is 6 GiB"
    assert shown["segments"][0]["outcome"] == "over its limit"
    assert "stopping" in bench.output()
    (bench.project / "go").touch()
    wait_for_state(bench, modest, "completed")


def test_out_of_gpu_memory_is_named_and_tried_once_more_with_a_larger_need(
    bench: Bench, driver: FakeDriver
) -> None:
    driver.show(A)
    once = queue(bench, "--", "--mib", "2000", "--oom-segments", "1", "--until", "go")
    always = queue(bench, "--", "--mib", "2000", "--oom-segments", "9")
    bench.worker("-p", "4", command=impatient(*QUICK, "scheduler.outcome.failures.BACKOFF_BASE_S=0.5"))
    shown = bench.wait_for(always, "failed")
    assert [one["outcome"] for one in shown["segments"]] == ["out of GPU memory"] * 2
    assert "out of GPU memory: " in reason(bench, always)
    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in reason(bench, always)
    assert "requeued" in bench.output()
    bench.wait_for_log(once, "allocated", 2)
    assert "begins at beat 19" in bench.log(once, 2)
    (bench.project / "go").touch()
    first, second = bench.wait_for(once, "completed")["segments"]
    assert first["outcome"] == "out of GPU memory"
    assert second["promised_mib"] >= first["promised_mib"] * 3 // 2


def test_memory_that_does_not_come_back_after_a_kill_quarantines_its_gpu(
    bench: Bench, driver: FakeDriver
) -> None:
    driver.show(A, FULL)
    run = queue(bench, "--", "--mib", "8000")
    worker = bench.worker(
        "-p", "4", command=impatient(*QUICK, "scheduler.governor.gpu_quarantine.PATIENCE_S=1")
    )
    bench.wait_for_log(run, "allocated")
    wait_until(lambda: peak_mib(bench, run) == 8000)
    # At the very moment of the kill: the worker must not see the memory come back in between.
    worker.send_signal(signal.SIGSTOP)
    os.kill(bench.leader(run), signal.SIGKILL)
    bench.exit_record(run)
    wait_until(lambda: not allocated(driver))
    driver.show(replace(A, used=8000), FULL)
    worker.send_signal(signal.SIGCONT)
    wait_for_state(bench, run, "failed")
    lost = f"run {run} has not returned 7.8 GiB (its processes have ended)"
    wait_for_output(bench, f"quarantine  GPU 0 (Fake GPU): {lost}")
    waiting = queue(bench, "--gpu-min-vram", "6000", *HOLD)
    assert f"GPU 0: quarantined: {lost}" in wait_for_reason(bench, waiting, "quarantined")
    assert f"GPU 0: quarantined: {lost}" in bench.backprop("status").stdout
    assert status(bench)["gpus"][0]["quarantine"] == lost
    wait_for_state(bench, cpu_run(bench), "completed")
    driver.show(A, FULL)
    assert given(bench, waiting) == ["GPU-aaaa"]
    wait_for_output(bench, "recovered   GPU 0 (Fake GPU) is used again")
    assert status(bench)["gpus"][0]["quarantine"] is None
