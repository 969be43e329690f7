"""How long does a person wait for a command, in multiples of an interpreter that does nothing?"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.sample import Row, Sample
from benchmarks.workbench import COMMAND, Workbench

RUNS_IN_QUEUE = 50
FLOOR = (sys.executable, "-c", "pass")


@dataclass(frozen=True)
class Spent:
    """What one command takes. `cpu_ms`: of it and its children, which a busy machine changes least."""

    wall_ms: Sample
    cpu_ms: Sample


def measure(pairs: int) -> list[Row]:
    """Each command in turn with the empty interpreter beside it, so that what else the machine does hits both."""
    with Workbench() as bench:
        bench.script("train.py", "print('hello')\n")
        for _ in range(RUNS_IN_QUEUE):
            bench.backprop("run", "-q", "train.py")
        commands = {
            "`backprop run train.py`": ("run", "train.py"),
            f"`backprop list`, {RUNS_IN_QUEUE} runs": ("list",),
            "`backprop status`": ("status",),
        }
        rows: list[Row] = []
        floors: list[Spent] = []
        for what, words in commands.items():
            _paired(words, 2)
            ours, floor = _paired(words, pairs)
            floors.append(floor)
            rows += _rows(what, ours, floor)
        every = Spent(
            Sample(tuple(value for one in floors for value in one.wall_ms.values)),
            Sample(tuple(value for one in floors for value in one.cpu_ms.values)),
        )
        return _rows("`python -c pass`", every, every) + rows


def _rows(what: str, ours: Spent, floor: Spent) -> list[Row]:
    return [
        Row(what, "ms", ours.wall_ms, times_python=ours.wall_ms.median / floor.wall_ms.median),
        Row(f"{what}, CPU time", "ms", ours.cpu_ms, times_python=ours.cpu_ms.median / floor.cpu_ms.median),
    ]


def _paired(words: Sequence[str], pairs: int) -> tuple[Spent, Spent]:
    ours: list[tuple[float, float]] = []
    floor: list[tuple[float, float]] = []
    for _ in range(pairs):
        floor.append(spent_by(FLOOR))
        ours.append(spent_by((str(COMMAND), *words)))
    return _spent(ours), _spent(floor)


def _spent(pairs: Sequence[tuple[float, float]]) -> Spent:
    return Spent(Sample(tuple(wall for wall, _ in pairs)), Sample(tuple(cpu for _, cpu in pairs)))


def spent_by(command: Sequence[str]) -> tuple[float, float]:
    """(wall, CPU) of one command in ms. Raises CalledProcessError."""
    nowhere = [(os.POSIX_SPAWN_OPEN, out, os.devnull, os.O_WRONLY, 0) for out in (1, 2)]
    begun = time.perf_counter()
    pid = os.posix_spawn(command[0], tuple(command), os.environ, file_actions=nowhere)
    _, status, usage = os.wait4(pid, 0)
    wall_ms = (time.perf_counter() - begun) * 1000
    if status != 0:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return wall_ms, (usage.ru_utime + usage.ru_stime) * 1000
