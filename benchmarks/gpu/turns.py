"""Checks that two runs which do not fit on a GPU together take turns on it, with the VRAM of one in RAM."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.nvml import Nvml
from benchmarks.gpu.child import holder
from benchmarks.gpu.device import free_mib
from benchmarks.gpu.finding import CannotCheck, Check, Effort, Finding
from benchmarks.gpu.runs import CONTEXT_MIB, PATIENCE_S, bench_on, queue_script
from benchmarks.workbench import UNFINISHED, Workbench

TURNER = Path(__file__).with_name("turner.py")
LEFT_MIB = 6144
"""Of the card, for the two runs: what is moved is to take seconds."""
SHARE = 0.6
WORK_SHARE = 0.8
"""Of a box: with the import of PyTorch it is more than one, and less than two."""


def taking_turns(gpu: Gpu, effort: Effort) -> Iterator[Finding]:
    """Let two runs of 60 % of what is left of the card take turns, and run the same two one after the other."""
    nvml = Nvml()
    with holder(gpu.uuid, max(free_mib(nvml, gpu.uuid) - LEFT_MIB - CONTEXT_MIB // 2, 16)):
        left_mib = free_mib(nvml, gpu.uuid)
        share_mib = int(left_mib * SHARE)
        box_s = effort.box_min * 60
        beats = int(box_s * 10 * WORK_SHARE) + 40
        with bench_on(gpu) as bench:
            tested = bench.backprop("doctor", "--suspend-test", "--json")
            passed = all("passed" in line for line in json.loads(tested)["tested"])
            yield Finding("backprop doctor --suspend-test", " ".join(json.loads(tested)["tested"]), passed)
            turns_s, runs, moves = _both(bench, share_mib, beats, ("-m", f"{box_s / 60:g}"))
            digests = {_digest(bench, run["id"]) for run in runs}
        told = ", ".join(f"{run['state']} in {run['segments'][-1]['boxes']} boxes" for run in runs)
        good = all(run["state"] == "completed" and len(run["segments"]) == 1 for run in runs)
        yield Finding(f"two runs of {share_mib} MiB on {left_mib} MiB, in turns", told, good)
        yield Finding("their VRAM went out and came in", f"{moves[0]} and {moves[1]} times", moves[1] > 0)
        same = len(digests) == 1 and next(iter(digests)).endswith(" 1")
        yield Finding("what they held, all the time", "the same" if same else f"ANOTHER: {digests}", same)
        with bench_on(gpu) as bench:
            one_by_one_s, _, _ = _both(bench, share_mib, beats, ("--no-suspend", "-m", "60"))
        yield Finding("time, in turns and one after the other", f"{turns_s:.0f} s and {one_by_one_s:.0f} s")


def _both(
    bench: Workbench, share_mib: int, beats: int, words: tuple[str, ...]
) -> tuple[float, list[dict[str, Any]], tuple[int, int]]:
    """Run both to their ends. Return how long that took, what became of them, and how often VRAM went out and came
    in. Raises CannotCheck."""
    script = (str(max(share_mib - CONTEXT_MIB, 16)), str(beats))
    with bench.worker():
        begun_s = time.monotonic()
        runs = [
            queue_script(bench, TURNER, ("--gpu-min-vram", str(share_mib), *words), script) for _ in range(2)
        ]
        shown = [_ended(bench, run, begun_s) for run in runs]
        taken_s = time.monotonic() - begun_s
        said = bench.worker_output()
    return taken_s, shown, (said.count(" leaving "), said.count(" restored "))


def _ended(bench: Workbench, run: str, begun_s: float) -> dict[str, Any]:
    while time.monotonic() - begun_s < PATIENCE_S:
        shown = json.loads(bench.backprop("show", run, "--json"))
        if shown["state"] not in UNFINISHED:
            return shown
        time.sleep(0.5)
    raise CannotCheck(f"not ended after {PATIENCE_S:g} s: {bench.worker_output()[-2000:]}")


def _digest(bench: Workbench, run: str) -> str:
    lines = bench.backprop("logs", run).splitlines()
    return next((line for line in lines if line.startswith("digest ")), "none")


CHECKS: tuple[Check, ...] = (taking_turns,)
