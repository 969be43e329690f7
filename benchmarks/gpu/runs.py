"""Checks what a worker does with PyTorch runs on one GPU: packing, limits, chaining."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backprop.scheduler.governor.snapshot import Gpu
from benchmarks.gpu.child import TRAINER
from benchmarks.gpu.finding import CannotCheck, Check, Effort, Finding
from benchmarks.workbench import ALWAYS, UNFINISHED, Workbench, wait_until

CONTEXT_MIB = 1024
"""More than any CUDA context, so that what a run allocates and its context fit into its reservation."""
PACKED = 4
RUNS = 6
PATIENCE_S = 300.0
CUT = 1.5
"""A training takes at least so many timeboxes without interruption, so that its chain has two segments or more."""


def packing(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Pack six runs of a quarter of the GPU each: up to four run at once, and none lacks memory."""
    need_mib = (gpu.free_mib or 0) // PACKED
    take_mib = need_mib - CONTEXT_MIB
    if take_mib < CONTEXT_MIB:
        raise CannotCheck(f"{gpu.free_mib} MiB free are too few for {PACKED} runs")
    with bench_on(gpu) as bench, bench.worker():
        words = ("--gpu-min-vram", str(need_mib))
        hold = ("hold", "--mib", str(take_mib), "--seconds", f"{effort.hold_s:g}")
        runs = [_queue(bench, words, hold) for _ in range(RUNS)]
        at_once = _most_at_once(bench)
        ended = [_show(bench, run) for run in runs]
    states = [run["state"] for run in ended]
    yield Finding(
        f"{RUNS} runs of {need_mib} MiB each",
        f"{states.count('completed')} completed",
        set(states) == {"completed"},
    )
    yield Finding("the most at once", str(at_once), 1 < at_once <= PACKED)
    peaks = [run["segments"][-1]["peak_mib"] or 0 for run in ended]
    yield Finding("the most one of them used", f"{max(peaks)} MiB", 0 < max(peaks) <= need_mib)


def _most_at_once(bench: Workbench) -> int:
    """Wait until no run is left. Return the most that were running at the same time. Raises CannotCheck."""
    most, end_s = 0, time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        states = [run["state"] for run in json.loads(bench.backprop("list", "--json"))]
        if not UNFINISHED.intersection(states):
            return most
        most = max(most, states.count("running"))
        time.sleep(0.5)
    raise CannotCheck(f"not ended after {PATIENCE_S:g} s")


def limit(gpu: Gpu, _effort: Effort) -> Iterator[Finding]:
    """Grow a run to twice its `-g`: PyTorch stops it where its version can, else the governor does."""
    for framework, by in (("auto", "the framework"), ("tensorflow", "the governor alone")):
        with bench_on(gpu) as bench, bench.worker():
            run = _queue(bench, ("-g", "2", "-f", framework), ("hold", "--mib", "4096", "--grow"))
            shown = _when_ended(bench, run)
        segment = shown["segments"][-1]
        how = f"{segment['outcome']}, seen to use at most {segment['peak_mib']} MiB"
        good = ("over its limit",) if framework == "tensorflow" else ("over its limit", "out of GPU memory")
        yield Finding(f"grows to 4 GiB under -g 2, watched by {by}", how, segment["outcome"] in good)


def chain(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Train in timeboxes and without interruption: compare the results, and tell what each resume costs."""
    with bench_on(gpu) as bench:
        steps, plain, plain_s = _longer_than(effort.box_min * 60 * CUT, _steps_for(effort.plain_s, gpu), gpu)
        with bench.worker():
            begun = time.monotonic()
            run = _queue(
                bench, ("-m", str(effort.box_min), "--at-timebox", "end"), ("train", "--steps", str(steps))
            )
            shown = _when_ended(bench, run)
            chained_s = time.monotonic() - begun
            digest = _digest(bench.backprop("logs", run))
    boxes = len(shown["segments"])
    yield Finding(
        f"{steps} steps in timeboxes of {effort.box_min * 60:g} s",
        shown["reason"],
        shown["state"] == "completed",
    )
    yield Finding("what it learned, uninterrupted and chained", f"{plain} and {digest}", plain == digest)
    cost = f"{plain_s:.1f} s and {chained_s:.1f} s in {boxes} segments"
    if boxes > 1:
        cost += f": {(chained_s - plain_s) / (boxes - 1):.2f} s for each resume"
    yield Finding("time, uninterrupted and chained", cost)


@contextmanager
def bench_on(gpu: Gpu) -> Generator[Workbench]:
    """Open a bench whose worker may use this GPU alone, and start as many runs as fit."""
    with Workbench() as bench:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid
        home = bench.home
        home.mkdir(mode=0o700)
        (home / "config.json").write_text('{"maxParallel": 16}')
        yield bench


def _queue(bench: Workbench, words: Sequence[str], trainer: Sequence[str]) -> str:
    return queue_script(bench, TRAINER, words, trainer)


def queue_script(bench: Workbench, script: Path, words: Sequence[str], its_own: Sequence[str]) -> str:
    """Queue a script with the words of `run` and its own; return the run's id."""
    return bench.backprop(
        "run",
        "-q",
        *ALWAYS,
        "--python",
        sys.executable,
        *words,
        str(script),
        "--",
        *its_own,
    ).strip()


def _show(bench: Workbench, run: str) -> dict[str, Any]:
    return json.loads(bench.backprop("show", run, "--json"))


def _when_ended(bench: Workbench, run: str) -> dict[str, Any]:
    """Wait until the run has ended; what `show` then says. Raises TimeoutError."""
    wait_until(lambda: _show(bench, run)["state"] not in UNFINISHED, timeout_s=PATIENCE_S)
    return _show(bench, run)


def _steps_for(seconds: float, gpu: Gpu) -> int:
    """Return how many steps take about `seconds`, by a short and a longer training: the start-up cancels out."""
    few, more = 200, 2200
    taken: list[float] = []
    for steps in (few, few, more):  # the first one warms the caches
        begun = time.monotonic()
        _train(gpu, steps)
        taken.append(time.monotonic() - begun)
    each_s = max((taken[2] - taken[1]) / (more - few), 1e-5)
    return max(more, int(seconds / each_s))


def _longer_than(at_least_s: float, steps: int, gpu: Gpu) -> tuple[int, str, float]:
    """Train without interruption for at least so long: with more steps where `steps` were too few, since a machine that
    was busy when it was measured is faster later. Return the steps, the digest and the seconds."""
    while True:
        begun = time.monotonic()
        digest = _train(gpu, steps)
        took_s = time.monotonic() - begun
        if took_s >= at_least_s:
            return steps, digest, took_s
        steps = int(steps * 1.2 * at_least_s / took_s)


def _train(gpu: Gpu, steps: int) -> str:
    """Train without interruption; return the digest of the result. Raises CannotCheck."""
    done = subprocess.run(
        [sys.executable, TRAINER, "train", "--steps", str(steps)],
        env=os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu.uuid},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CannotCheck(f"the training failed: {' '.join(done.stderr.splitlines()[-1:])}")
    return _digest(done.stdout)


def _digest(output: str) -> str:
    return next(
        (line.split()[1] for line in reversed(output.splitlines()) if line.startswith("digest ")), "none"
    )


CHECKS: tuple[Check, ...] = (packing, limit, chain)
