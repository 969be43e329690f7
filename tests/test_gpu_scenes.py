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
from pathlib import Path

import pytest

from tests.fakes import FakeDriver, FakeGpu, FakeMig, fake_tool
from tests.gpus import allocated, beats, given, impatient, queue, reason, status, wait_for_reason
from tests.harness import Bench, alive, wait_until

A = FakeGpu("GPU-aaaa")
B = FakeGpu("GPU-bbbb")
HOLD = ("--", "--mib", "5000")


def cpu_run(bench: Bench) -> str:
    """A run that needs no GPU and ends at once."""
    return queue(bench, "--gpus", "0", script=bench.script("cpu.py", "print('done')"))


def wait_for_output(bench: Bench, *texts: str, timeout_s: float = 60.0) -> None:
    wait_until(lambda: all(text in bench.output() for text in texts), timeout_s=timeout_s, saw=bench.output)


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


# Heat


def test_heat_pauses_the_whole_tree_and_its_timebox(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A)
    run = queue(bench, "--", "--mib", "5000", "--child", "--until", "go")
    tender = queue(bench, "--gpu-max-temp", "60", *HOLD)
    bench.worker("-p", "4")
    for one in (run, tender):
        bench.wait_for_log(one, "beat 3")
    processes = tree(bench.leader(run))
    assert len(processes) == 2

    driver.show(FakeGpu("GPU-aaaa", temp=66))
    bench.wait_for(tender, "paused")
    assert bench.state(run) == "running"
    driver.show(FakeGpu("GPU-aaaa", temp=90))
    begun_s = time.monotonic()
    bench.wait_for(run, "paused")
    paused_s = time.monotonic()
    wait_until(lambda: states(processes) == {"T"}, saw=lambda: states(processes))
    stopped_at = beats(bench, run)
    assert reason(bench, run) == "paused: GPU 0 at 90 °C, limit 85 °C"
    assert reason(bench, tender) == "paused: GPU 0 at 66 °C, limit 60 °C"
    late = queue(bench, *HOLD)
    assert "GPU 0: temperature 90 °C, starts at 80 °C or less" in wait_for_reason(bench, late, "temperature")
    shown = bench.backprop("status").stdout
    assert re.search(rf"{run} .* paused .* paused: GPU 0 at 90 °C, limit 85 °C", shown)
    assert "90 °C  85 °C" in shown

    # A little cooler is not cool: it would be at the limit again in a moment.
    driver.show(FakeGpu("GPU-aaaa", temp=83))
    wait_until(lambda: status(bench)["gpus"][0]["temp_c"] == 83)
    assert states(processes) == {"T"}
    assert beats(bench, run) == stopped_at
    least_paused_s = time.monotonic() - paused_s
    driver.show(FakeGpu("GPU-aaaa", temp=70))
    bench.wait_for(run, "running")
    wait_until(lambda: beats(bench, run) > stopped_at)
    most_paused_s = time.monotonic() - begun_s
    assert bench.state(tender) == "paused"
    driver.show(FakeGpu("GPU-aaaa", temp=50))
    bench.wait_for(tender, "running")
    (bench.project / "go").touch()
    assert bench.wait_for(run, "completed")["segment"] == 1
    ended = bench.exit_record(run)
    assert least_paused_s - 1 < ended["paused_s"] < most_paused_s + 1
    assert "cool again: GPU 0 at 70 °C" in bench.output()


def test_several_gpus_and_too_long_a_pause_yield_and_resume_when_cool(
    bench: Bench, driver: FakeDriver
) -> None:
    driver.show(A, B, FakeGpu("GPU-cccc", used=20_000))
    both = queue(bench, "--gpus", "2", "--grace-seconds", "20", *HOLD)
    single = queue(bench, "--grace-seconds", "20", *HOLD)
    bench.worker("-p", "4", command=impatient("scheduler.watch.PAUSE_LIMIT_S=1"))
    bench.wait_for_log(both, "beat 3")
    bench.wait_for_log(single, "beat 3")
    assert sorted(given(bench, both)) == ["GPU-aaaa", "GPU-bbbb"]

    driver.show(*(FakeGpu(gpu.uuid, temp=91) for gpu in (A, B)), FakeGpu("GPU-cccc", used=20_000))
    for run in (both, single):
        wait_until(lambda run=run: bench.folder(run).joinpath("exit.json").exists(), timeout_s=60)
        wait_for_reason(bench, run, "temperature 91 °C, starts at 80 °C or less")
    told = bench.output()
    assert "yielded: cooling: GPU 0 at 91 °C, limit 85 °C; not paused: it runs on several GPUs" in told
    assert re.search(
        rf"requeued .*\({single}\) .* yielded: cooling: GPU . at 91 °C, limit 85 °C; paused for", told
    )
    assert not any(bench.folder(run, 2).exists() for run in (both, single))
    assert [bench.show(run)["segments"][0]["outcome"] for run in (both, single)] == ["yielded"] * 2

    driver.show(A, B, FakeGpu("GPU-cccc", used=20_000))
    for run in (both, single):
        bench.wait_for_log(run, "beat 5", 2, timeout_s=60)
        begun = int(bench.log(run, 2).partition("begins at beat ")[2].split()[0])
        assert begun == beats(bench, run)


# Other people's processes


def test_a_strangers_pause_is_no_free_space_but_its_end_is(bench: Bench, driver: FakeDriver) -> None:
    driver.show(A)
    with stranger() as pid:
        driver.occupy("GPU-aaaa", 20_000, pid)
        run = queue(bench, "--gpu-min-vram", "6000", *HOLD)
        bench.worker(command=impatient("scheduler.vram.PEAK_CONFIRM_S=0.5"))
        told = wait_for_reason(bench, run, "VRAM left 4.5 GiB of 24.0 GiB")
        assert "(19.5 GiB used by others now or lately), needs 5.9 GiB (declared)" in told
        assert status(bench)["gpus"][0]["foreign_mib"] == 20_000
        assert "idle: " + run in bench.backprop("status").stdout
        looked_s = time.monotonic()
        wait_until(lambda: time.monotonic() - looked_s > 4)  # as many looks as confirm a peak
        driver.occupy("GPU-aaaa", 576, pid)
        wait_until(lambda: status(bench)["gpus"][0]["free_mib"] == 24_000)
        looked_s = time.monotonic()
        wait_until(lambda: time.monotonic() - looked_s > 4)
        assert bench.state(run) == "queued"
    bench.wait_for_log(run, "beat 1", timeout_s=60)
