"""A checklist for a machine with an NVIDIA GPU: `python -m benchmarks.gpu.check`.

Measures and compares what the tests can only simulate; where there is no GPU it says so and ends with 0. Takes about
1 GiB of VRAM for about a minute; leave the GPU alone meanwhile. Exit code 1: something did not agree.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backprop.scheduler.snapshot import Gpu
from backprop.worker.probes.client import GpuProbe, read_once
from backprop.worker.probes.nvml import Nvml
from benchmarks.gpu.user import USED_MIB, gpu_user
from benchmarks.sample import Sample
from benchmarks.workbench import wait_until

AGREE_MIB = 64
"""How far two readings may lie apart: others' small allocations between them."""
STOPPED_S = 10.0
READINGS = 30


@dataclass(frozen=True)
class Finding:
    """`agrees` None: a number to know, with nothing to compare it to."""

    text: str
    agrees: bool | None = None


Check = Callable[[Gpu], Iterator[Finding]]


def main() -> int:
    reading = read_once()
    why = _why_not(reading.source, reading.problem, reading.gpus)
    if why is not None:
        print(f"skipped: {why}")
        return 0
    findings: list[Finding] = []
    for gpu in reading.gpus:
        print(f"GPU {gpu.index}: {gpu.name}, {gpu.uuid}")
        for check in CHECKS:
            for finding in _guarded(check, gpu):
                mark = {True: "ok  ", False: "BAD ", None: "    "}[finding.agrees]
                print(f"  {mark}{check.__name__}: {finding.text}", flush=True)
                findings.append(finding)
    return 1 if any(finding.agrees is False for finding in findings) else 0


def _why_not(source: str, problem: str | None, gpus: tuple[Gpu, ...]) -> str | None:
    if not gpus:
        return f"no GPU can be read here: {problem}" if problem else "this machine has no GPU"
    if source != "nvml":
        return f"the GPUs here are read by {source}; this checklist is for NVML"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no CUDA driver library: {error}"
    return None


def _guarded(check: Check, gpu: Gpu) -> Iterator[Finding]:
    try:
        yield from check(gpu)
    except (RuntimeError, TimeoutError, OSError) as error:
        yield Finding(f"could not be carried out: {error}", agrees=False)


def free_memory(gpu: Gpu) -> Iterator[Finding]:
    """Our free VRAM against nvidia-smi's, idle and in use."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Finding("skipped: nvidia-smi is not on PATH")
        return
    yield _compare(tool, gpu, "idle")
    with gpu_user(gpu.uuid):
        yield _compare(tool, gpu, f"{USED_MIB} MiB taken")


def _compare(tool: str, gpu: Gpu, when: str) -> Finding:
    command = [tool, f"--id={gpu.uuid}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    theirs = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    ours = _free_mib(Nvml(), gpu.uuid)
    return Finding(f"{when}: NVML {ours} MiB, nvidia-smi {theirs} MiB", abs(ours - theirs) <= AGREE_MIB)


def uuid_mask(gpu: Gpu) -> Iterator[Finding]:
    """CUDA_VISIBLE_DEVICES with our UUID leaves one device, and that one."""
    with gpu_user(gpu.uuid) as user:
        said = user.lines()[0]
    wanted = gpu.uuid.partition("-")[2].replace("-", "")
    yield Finding(said, said == f"device 1 of 1, uuid {wanted}")


def stop_and_continue(gpu: Gpu) -> Iterator[Finding]:
    """A frozen CUDA process stands still, keeps its VRAM, and goes on."""
    nvml = Nvml()
    with gpu_user(gpu.uuid) as user:
        used_mib = _free_mib(nvml, gpu.uuid)
        user.process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        before = user.beats()
        time.sleep(STOPPED_S)
        frozen = user.beats()
        kept = abs(_free_mib(nvml, gpu.uuid) - used_mib) <= AGREE_MIB
        yield Finding(f"{frozen - before} beats in {STOPPED_S:g} s of SIGSTOP", frozen == before)
        yield Finding(f"its VRAM is {'still' if kept else 'no longer'} taken", kept)
        begun = time.monotonic()
        user.process.send_signal(signal.SIGCONT)
        wait_until(lambda: user.beats() > frozen)
        yield Finding(f"beats again {(time.monotonic() - begun) * 1000:.0f} ms after SIGCONT", agrees=True)


def memory_after_kill(gpu: Gpu) -> Iterator[Finding]:
    """How long after kill -9 the VRAM is back."""
    nvml = Nvml()
    before_mib = _free_mib(nvml, gpu.uuid)
    with gpu_user(gpu.uuid) as user:
        begun = time.monotonic()
        os.kill(user.process.pid, signal.SIGKILL)
        while _free_mib(nvml, gpu.uuid) < before_mib - AGREE_MIB:
            if time.monotonic() - begun > 60:
                raise TimeoutError("its VRAM is not back after 60 s")
        yield Finding(f"VRAM back {(time.monotonic() - begun) * 1000:.0f} ms after kill -9")


def helper_latency(gpu: Gpu) -> Iterator[Finding]:
    """What a reading through the helper process takes: the first, with its start, and the following ones."""
    first, later = _readings_ms()
    yield Finding(f"first reading {first:.0f} ms, then {_told(later)}")
    with gpu_user(gpu.uuid):
        first, later = _readings_ms()
    yield Finding(f"GPU busy: first reading {first:.0f} ms, then {_told(later)}")


def _readings_ms() -> tuple[float, Sample]:
    probe = GpuProbe(interval_s=0.0)
    taken: list[float] = []
    try:
        for _ in range(READINGS + 1):
            begun = time.monotonic()
            probe.request(begun)
            while probe.poll(time.monotonic()) is None:
                fd = probe.fileno()
                select.select([] if fd is None else [fd], [], [], 1.0)
            taken.append((time.monotonic() - begun) * 1000)
    finally:
        probe.close()
    return taken[0], Sample(tuple(taken[1:]))


def _told(sample: Sample) -> str:
    median, spread, count = sample.told(digits=2)
    return f"median {median} ms ({spread}, n {count})"


def _free_mib(nvml: Nvml, uuid: str) -> int:
    free_mib = next((gpu.free_mib for gpu in nvml.read().gpus if gpu.uuid == uuid), None)
    if free_mib is None:
        raise RuntimeError("NVML does not tell its free memory")
    return free_mib


CHECKS: tuple[Check, ...] = (free_memory, uuid_mask, stop_and_continue, memory_after_kill, helper_latency)


if __name__ == "__main__":
    sys.exit(main())
