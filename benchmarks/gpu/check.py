"""The tests' scenes for real, on a machine with an NVIDIA GPU and PyTorch: `python -m benchmarks.gpu.check`.

Compares what the tests can only simulate, and prints a table. Where there is no such GPU or no PyTorch it says so and
ends with 0. Takes about six minutes a GPU, and most of its memory: leave it alone meanwhile. Exit code 1: something
is not as it should be. Needs an installed `backprop`, and torch in the interpreter it is run with.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.client import read_once
from benchmarks.gpu import device, runs
from benchmarks.gpu.finding import CannotCheck, Check, Finding
from benchmarks.run import machine

MOST_USED_MIB = 1024
"""What desktop and driver may hold; more is somebody at work, whom the checks would disturb."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Check on real GPUs what the tests simulate.")
    parser.add_argument("--gpu", type=int, metavar="INDEX", help="this GPU alone")
    only: int | None = parser.parse_args().gpu
    reading = read_once()
    why = why_not(reading.source, reading.problem, reading.gpus)
    if why is not None:
        print(f"skipped: {why}")
        return 0
    print(machine(), end="\n\n")
    failed = False
    for gpu in reading.gpus:
        if only is None or gpu.index == only:
            failed |= _check(gpu)
    return 1 if failed else 0


def why_not(source: str, problem: str | None, gpus: tuple[Gpu, ...]) -> str | None:
    """Why nothing can be checked here; None if it can."""
    if not gpus:
        return f"no GPU can be read here: {problem}" if problem else "this machine has no GPU"
    if source != "nvml":
        return f"the GPUs here are read by {source}; these checks are for NVML"
    asked = "import torch; assert torch.cuda.is_available(), f'torch {torch.__version__} finds no CUDA'"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"no PyTorch with CUDA here: {' '.join(done.stderr.strip().splitlines()[-1:])}"
    return None


def _check(gpu: Gpu) -> bool:
    """Print the table of one GPU; whether anything in it is not as it should be."""
    print(f"GPU {gpu.index}: {gpu.name}, {gpu.total_mib} MiB, {gpu.uuid}\n")
    if gpu.total_mib is None or gpu.free_mib is None or gpu.error is not None:
        print(f"skipped: {gpu.error or 'its memory cannot be read'}\n")
        return False
    if gpu.total_mib - (gpu.reserved_mib or 0) - gpu.free_mib > MOST_USED_MIB:
        print(f"skipped: somebody uses it; {gpu.free_mib} MiB are free\n")
        return False
    print("| what | found | as it should be |\n| --- | --- | --- |")
    failed = False
    for check in (*device.CHECKS, *runs.CHECKS):
        for found in _guarded(check, gpu):
            print(found.row(), flush=True)
            failed |= found.agrees is False
    print()
    return failed


def _guarded(check: Check, gpu: Gpu) -> Iterator[Finding]:
    try:
        yield from check(gpu)
    except (CannotCheck, TimeoutError, OSError, subprocess.CalledProcessError) as error:
        yield Finding(check.__name__.replace("_", " "), f"could not be carried out: {error}", agrees=False)


if __name__ == "__main__":
    sys.exit(main())
