"""Checks on an NVIDIA GPU with PyTorch what the tests can only simulate: `python -m benchmarks.gpu.check`.

Prints a table per GPU. Without such a GPU or without PyTorch it says so and ends with 0. It takes about ten minutes
per GPU and most of the GPU's memory: leave the machine alone meanwhile. Exit code 1: a check has failed. Needs an
installed `backprop`, and torch in the interpreter that runs it.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.client import read_once
from benchmarks.gpu import device, runs, turns, vram
from benchmarks.gpu.finding import QUICK, THOROUGH, CannotCheck, Check, Effort, Finding
from benchmarks.machine import machine

CHECKS: tuple[Check, ...] = (*device.CHECKS, *runs.CHECKS, *vram.CHECKS[:-1], *turns.CHECKS, vram.CHECKS[-1])
MOST_USED_MIB = 1024
"""What desktop and driver may hold. More means that somebody is at work, whom the checks would disturb."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.check", description="Check on real GPUs what the tests simulate."
    )
    parser.add_argument("--gpu", type=int, metavar="INDEX", help="check this GPU alone")
    names = [_name(check) for check in CHECKS]
    parser.add_argument(
        "--check", choices=names, action="append", metavar="NAME", help=f"this one alone: {', '.join(names)}"
    )
    parser.add_argument("--quick", action="store_true", help="short measurements: to see that it works")
    options = parser.parse_args()
    only: int | None = options.gpu
    reading = read_once()
    why = why_not(reading.source, reading.problem, reading.gpus)
    if why is not None:
        print(f"skipped: {why}")
        return 0
    print(machine(), end="\n\n")
    failed = False
    for gpu in reading.gpus:
        if only is None or gpu.index == only:
            checks = [check for check in CHECKS if options.check is None or _name(check) in options.check]
            failed |= _check(gpu, checks, QUICK if options.quick else THOROUGH)
    return 1 if failed else 0


def why_not(source: str, problem: str | None, gpus: tuple[Gpu, ...]) -> str | None:
    """Return why nothing can be checked on this machine; None if something can."""
    if not gpus:
        return f"no GPU can be read here: {problem}" if problem else "this machine has no GPU"
    if source != "nvml":
        return f"the GPUs here are read by {source}; these checks are for NVML"
    program = "import torch; assert torch.cuda.is_available(), f'torch {torch.__version__} finds no CUDA'"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"no PyTorch with CUDA here: {' '.join(done.stderr.strip().splitlines()[-1:])}"
    return None


def _check(gpu: Gpu, checks: Sequence[Check], effort: Effort) -> bool:
    """Print the table of one GPU. Return whether a check has failed."""
    print(f"GPU {gpu.index}: {gpu.name}, {gpu.total_mib} MiB, {gpu.uuid}\n")
    if gpu.total_mib is None or gpu.free_mib is None or gpu.error is not None:
        print(f"skipped: {gpu.error or 'its memory cannot be read'}\n")
        return False
    if gpu.total_mib - (gpu.reserved_mib or 0) - gpu.free_mib > MOST_USED_MIB:
        print(f"skipped: somebody uses it; only {gpu.free_mib} MiB are free\n")
        return False
    print("| what | found | as it should be |\n| --- | --- | --- |")
    failed = False
    for check in checks:
        for finding in _guarded(check, gpu, effort):
            print(finding.row(), flush=True)
            failed |= finding.agrees is False
    print()
    return failed


def _guarded(check: Check, gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Carry out one check. An error ends that check alone, as a failure."""
    try:
        yield from check(gpu, effort)
    except (CannotCheck, TimeoutError, OSError, subprocess.CalledProcessError) as error:
        yield Finding(
            _name(check),
            f"could not be carried out: {error}",
            agrees=False,
        )


def _name(check: Check) -> str:
    return getattr(check, "__name__", "check").replace("_", " ")


if __name__ == "__main__":
    sys.exit(main())
