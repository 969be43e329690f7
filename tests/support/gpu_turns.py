"""Runs that save nothing, take a share of a fake GPU each, and have to share one slot."""

import json
import os
from pathlib import Path

from tests.support.fake_gpus import HOST_IS_FINE, impatient
from tests.support.fakes import HERE, FakeDriver, FakeGpu
from tests.support.harness import Bench, wait_until

GPU = "GPU-aaaa"
DRIVER = "580.159.04"
SHARE_MIB = 600
CARD = FakeGpu(GPU, total=1000)
BOX_MIN = "0.025"
"""A second and a half."""
SCRIPT = f"""
    import os, sys, time
    from pathlib import Path
    sys.path.insert(0, {str(HERE)!r})
    from allocate import allocate
    with open(f"starts-{{os.environ['BACKPROP_RUN_ID']}}", "a") as file:
        file.write("x")
    allocate(Path(os.environ["FAKE_NVML_DIR"]), os.environ["CUDA_VISIBLE_DEVICES"], int(sys.argv[2]))
    moved = Path(os.environ["FAKE_NVML_DIR"]) / "cuda" / str(os.getpid())
    total = 0
    for step in range(int(sys.argv[1])):
        while moved.exists():  # as every call of CUDA waits then
            time.sleep(0.01)
        total += step
        print("at", step, flush=True)
        time.sleep(0.05)
    print("total", total, flush=True)
"""
QUICK = impatient(
    "worker.machine.monitor.CHECK_EVERY_S=0.4",
    "worker.machine.reader.FRESH_S=1",
    "GpuProbe.interval_s=0.2",
    "worker.segments.boxes.vram_return.ROOM_S=2",
    "worker.segments.boxes.vram_return.BACK_OFF_S=1",
    "worker.segments.boxes.vram_return.LEAST_TO_SAVE_S=1",
    "worker.segments.boxes.suspender.LOOK_EVERY_S=1",
)


def prove(bench: Bench) -> None:
    """Write that the fake driver was seen to move VRAM."""
    trial = {"gpu_uuid": GPU, "driver": DRIVER, "uid": os.geteuid(), "passed": True, "told": "", "at_s": 1.0}
    bench.home.mkdir(mode=0o700, exist_ok=True)
    (bench.home / "vram-trials.json").write_text(json.dumps({"ended": [trial]}))


def queue(bench: Bench, name: str, steps: int, *words: str, mib: int = SHARE_MIB) -> str:
    bench.script("turns.py", SCRIPT)
    given = ("-m", BOX_MIN, "-n", name, "--gpu-min-vram", str(mib), *HOST_IS_FINE, *words)
    return bench.queue("turns.py", *given, "--", str(steps), str(mib), quiet_limits=False)


def starts(bench: Bench, run: str) -> int:
    path = Path(bench.project / f"starts-{run}")
    return len(path.read_text()) if path.exists() else 0


def step_of(bench: Bench, run: str) -> int:
    lines = [line for line in bench.log(run).splitlines() if line.startswith("at ")]
    return int(lines[-1].split()[1]) if lines else -1


def wait_for_suspended(bench: Bench, run: str, worker: int = 0) -> None:
    wait_until(lambda: bench.state(run) == "suspended", saw=lambda: bench.output(worker))


def told(bench: Bench, what: str, name: str) -> int:
    """Return how often the first worker has said that of a run."""
    lines = bench.output().splitlines()
    return sum(f" {name} (" in line and f" {what} " in line for line in lines)


def is_out(bench: Bench, driver: FakeDriver, run: str) -> bool:
    return driver.moved_mib(bench.leader(run)) == SHARE_MIB
