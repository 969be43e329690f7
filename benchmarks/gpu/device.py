"""Measures what the driver and CUDA do on one GPU, without a worker."""

import os
import select
import signal
import time
from collections.abc import Iterator

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.client import GpuProbe
from backprop.worker.probes.nvml import Nvml
from benchmarks.gpu.child import holder
from benchmarks.gpu.finding import AGREE_MIB, CannotCheck, Check, Effort, Finding
from benchmarks.sample import Sample
from benchmarks.workbench import wait_until

USED_MIB = 1024
GONE_S = 60.0


def free_memory(gpu: Gpu, _effort: Effort) -> Iterator[Finding]:
    """Compare our free VRAM to torch's `mem_get_info` at the same time, beside a process that has taken some."""
    nvml = Nvml()
    idle_mib = free_mib(nvml, gpu.uuid)
    with holder(gpu.uuid, USED_MIB) as child:
        theirs_mib, total_mib = child.next_beat()
        ours_mib = free_mib(nvml, gpu.uuid)
        agrees = abs(ours_mib - theirs_mib) <= AGREE_MIB
        yield Finding(
            "free VRAM, ours and torch's", f"{ours_mib} and {theirs_mib} MiB of {total_mib}", agrees
        )
        taken_mib = idle_mib - ours_mib
        yield Finding(
            f"taken by a process that allocates {USED_MIB} MiB", f"{taken_mib} MiB, with its CUDA context"
        )
        listed = next((mib for pid, mib in now(nvml, gpu.uuid).used_by_pid if pid == child.process.pid), None)
        listed_text = "not told" if listed is None else f"{listed} MiB"
        yield Finding(
            "the same by the driver's list of processes",
            listed_text,
            None if listed is None else abs(listed - taken_mib) <= AGREE_MIB,
        )


def uuid_mask(gpu: Gpu, _effort: Effort) -> Iterator[Finding]:
    """Check that CUDA_VISIBLE_DEVICES with a UUID leaves one device."""
    with holder(gpu.uuid, 16) as child:
        first_line = child.lines()[0]
    yield Finding("CUDA_VISIBLE_DEVICES=UUID", first_line, first_line.endswith(" 1 visible"))


def stop_and_continue(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Check that a frozen CUDA process stands still, keeps its VRAM, and goes on."""
    nvml = Nvml()
    with holder(gpu.uuid, USED_MIB) as child:
        used_mib = free_mib(nvml, gpu.uuid)
        child.process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        before = len(child.beats())
        time.sleep(effort.stopped_s)
        frozen = len(child.beats())
        kept = abs(free_mib(nvml, gpu.uuid) - used_mib) <= AGREE_MIB
        yield Finding(
            f"beats in {effort.stopped_s:g} s of SIGSTOP", str(frozen - before), agrees=frozen == before
        )
        yield Finding("its VRAM meanwhile", "still taken" if kept else "no longer taken", kept)
        begun = time.monotonic()
        child.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(child.beats()) > frozen)
        yield Finding("beats again after SIGCONT", f"{(time.monotonic() - begun) * 1000:.0f} ms", agrees=True)


def memory_after_kill(gpu: Gpu, _effort: Effort) -> Iterator[Finding]:
    """Measure how long after kill -9 the VRAM is back."""
    nvml = Nvml()
    before_mib = free_mib(nvml, gpu.uuid)
    with holder(gpu.uuid, USED_MIB) as child:
        begun = time.monotonic()
        os.kill(child.process.pid, signal.SIGKILL)
        while free_mib(nvml, gpu.uuid) < before_mib - AGREE_MIB:
            if time.monotonic() - begun > GONE_S:
                raise CannotCheck(f"its VRAM is not back after {GONE_S:g} s")
        yield Finding("VRAM back after kill -9", f"{(time.monotonic() - begun) * 1000:.0f} ms", agrees=True)


def probe_cost(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Measure a reading by NVML alone, and through the helper process as a worker reads."""
    nvml = Nvml()
    nvml.read()
    yield Finding("one NVML reading of all GPUs", _summary(_timed(nvml, effort.readings)))
    first_ms, later = _readings_ms(effort.readings)
    yield Finding("through the helper", f"{_summary(later)}; the first, with its start, {first_ms:.0f} ms")
    with holder(gpu.uuid, USED_MIB):
        yield Finding("through the helper, GPU busy", _summary(_readings_ms(effort.readings)[1]))


def now(nvml: Nvml, uuid: str) -> Gpu:
    """Read the GPU. Raises CannotCheck."""
    gpu = next((gpu for gpu in nvml.read().gpus if gpu.uuid == uuid), None)
    if gpu is None:
        raise CannotCheck(f"NVML no longer lists {uuid}")
    return gpu


def free_mib(nvml: Nvml, uuid: str) -> int:
    """Read the free memory. Raises CannotCheck."""
    mib = now(nvml, uuid).free_mib
    if mib is None:
        raise CannotCheck("NVML does not tell its free memory")
    return mib


def _timed(nvml: Nvml, readings: int) -> Sample:
    taken: list[float] = []
    for _ in range(readings):
        begun = time.monotonic()
        nvml.read()
        taken.append((time.monotonic() - begun) * 1000)
    return Sample(tuple(taken))


def _readings_ms(readings: int) -> tuple[float, Sample]:
    probe = GpuProbe(interval_s=0.0)
    taken: list[float] = []
    try:
        for _ in range(readings + 1):
            begun = time.monotonic()
            probe.request(begun)
            while probe.poll(time.monotonic()) is None:
                handle = probe.fileno()
                select.select([] if handle is None else [handle], [], [], 1.0)
            taken.append((time.monotonic() - begun) * 1000)
    finally:
        probe.close()
    return taken[0], Sample(tuple(taken[1:]))


def _summary(sample: Sample) -> str:
    return f"median {sample.text(digits=2)} ms, n {len(sample.values)}"


CHECKS: tuple[Check, ...] = (free_memory, uuid_mask, stop_and_continue, memory_after_kill, probe_cost)
