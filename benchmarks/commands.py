"""Measures how long commands take, beside an interpreter that imports what all of them need."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.sample import Row, Sample, ours
from benchmarks.workbench import COMMAND, Workbench

RUNS_IN_QUEUE = 50
FLOOR = (sys.executable, "-c", "import click, peewee")
FLOOR_SAID = "`python -c 'import click, peewee'`"


def measure(pairs: int) -> list[Row]:
    """Measure `run` in turn with the floor, so that other load hits both; then the other commands."""
    with Workbench() as bench:
        bench.script("train.py", "print('hello')\n")
        for _ in range(RUNS_IN_QUEUE):
            bench.backprop("run", "-q", "train.py")
        floor: list[tuple[float, float]] = []
        run: list[tuple[float, float]] = []
        for _ in range(pairs):
            floor.append(spent_by(FLOOR))
            run.append(spent_by((str(COMMAND), "run", "train.py")))
        ratio = median_cpu(run) / median_cpu(floor)
        rows = [
            ours(FLOOR_SAID, "ms", walls(floor)),
            ours("`backprop run train.py`", "ms", walls(run)),
            ours(f"the same, CPU time, times {FLOOR_SAID}", "", Sample((ratio,)), "1.5", digits=2),
        ]
        for words in ("list", "status"):
            spent = [spent_by((str(COMMAND), words)) for _ in range(pairs // 2 + 1)]
            rows.append(ours(f"`backprop {words}`, {RUNS_IN_QUEUE} runs", "ms", walls(spent)))
    return rows


def walls(spent: Sequence[tuple[float, float]]) -> Sample:
    return Sample(tuple(wall for wall, _ in spent))


def cpus(spent: Sequence[tuple[float, float]]) -> Sample:
    return Sample(tuple(cpu for _, cpu in spent))


def median_cpu(spent: Sequence[tuple[float, float]]) -> float:
    """Return the median CPU time in ms, which a busy machine changes less than the wall clock."""
    return cpus(spent).median


def spent_by(command: Sequence[str]) -> tuple[float, float]:
    """Run one command; return (wall, CPU) in ms. Raises CalledProcessError."""
    nowhere = [(os.POSIX_SPAWN_OPEN, out, os.devnull, os.O_WRONLY, 0) for out in (1, 2)]
    begun = time.perf_counter()
    pid = os.posix_spawn(command[0], tuple(command), os.environ, file_actions=nowhere)
    _, status, usage = os.wait4(pid, 0)
    wall_ms = (time.perf_counter() - begun) * 1000
    if status != 0:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return wall_ms, (usage.ru_utime + usage.ru_stime) * 1000
