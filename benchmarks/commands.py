"""How long does a person wait for a command, in multiples of an interpreter that does nothing?"""

import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.sample import Row, Sample
from benchmarks.workbench import COMMAND, Workbench

RUNS_IN_QUEUE = 50
FLOOR = (sys.executable, "-c", "pass")


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
        floors: list[float] = []
        for what, words in commands.items():
            _paired(words, 2)
            ours, floor = _paired(words, pairs)
            floors += floor.values
            rows.append(Row(what, "ms", ours, times_python=ours.median / floor.median))
        return [Row("`python -c pass`", "ms", Sample(tuple(floors)), times_python=1.0), *rows]


def _paired(words: Sequence[str], pairs: int) -> tuple[Sample, Sample]:
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(pairs):
        floor.append(_spent_ms(FLOOR))
        ours.append(_spent_ms((str(COMMAND), *words)))
    return Sample(tuple(ours)), Sample(tuple(floor))


def _spent_ms(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1000
