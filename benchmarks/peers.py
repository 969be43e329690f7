"""Measures the figures that other tools have too, one tool after another.

The job is `true`, or writes one byte: the queue is measured, not the job. What each tool keeps when something dies is
not measured: task-spooler's queue dies with its server, huey loses running jobs, nq and parallel have no record.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.resting import cpu_ms, memory_mib
from benchmarks.rivals import Gflow, Huey, Nq, TaskSpooler
from benchmarks.sample import Row, Sample
from benchmarks.tools import BLOCKER, Backprop, Parallel, Shell, Tool
from benchmarks.workbench import remove_at_exit, wait_until

TOOLS: Final[tuple[type[Tool], ...]] = (Backprop, TaskSpooler, Nq, Gflow, Huey, Parallel, Shell)
STAMP: Final = "date +%s.%N > stamp.tmp && mv stamp.tmp stamp"
COUNT: Final = "echo >> done"
PATIENCE_S: Final = 120.0

Cell = Sample | str | None


def measure(tools: tuple[type[Tool], ...], repeats: int, jobs: int, rest_s: float) -> list[Row]:
    """Measure each figure of every tool. `jobs`: to drain. `rest_s`: for how long an idle server is watched."""
    figures: dict[tuple[str, str, str, int], Callable[[type[Tool]], Cell]] = {
        ("one job is queued", "ms", "", 1): lambda tool: _one(tool, repeats),
        ("1,000 jobs are queued", "ms", "", 0): lambda tool: _many(tool, 1000, max(repeats // 5, 1)),
        ("10,000 jobs are queued", "ms", "2000", 0): lambda tool: _many(tool, 10_000, max(repeats // 5, 1)),
        ("trivial jobs, 1 slot", "jobs/s", "", 1): lambda tool: _drain(tool, 1, jobs, max(repeats // 3, 1)),
        ("trivial jobs, 2 slots", "jobs/s", "100", 1): lambda tool: _drain(
            tool, 2, jobs, max(repeats // 3, 1)
        ),
        ("from the command that queues a job to the job", "ms", "", 1): lambda tool: _start(tool, repeats),
        ("server at rest: CPU", "% of a core", "0.3", 3): lambda tool: _rest(tool, rest_s, _share),
        ("server at rest: memory, PSS", "MiB", "", 1): lambda tool: _rest(
            tool, 0, lambda pid, _: memory_mib(pid)[0]
        ),
    }
    rows: list[Row] = []
    for (what, unit, target, digits), look in figures.items():
        seen: dict[str, Sample | str] = {}
        for tool in tools:
            print(f"{what}: {tool.name}", file=sys.stderr, flush=True)
            cell = _patiently(look, tool)
            if cell is not None:
                seen[tool.name] = cell
        rows.append(Row(what, unit, seen, target, digits))
    return rows


def _patiently(look: Callable[[type[Tool]], Cell], tool: type[Tool]) -> Cell:
    """Return the measurement, or what went wrong: a rival that fails does not end the benchmark."""
    if tool is Backprop:
        return look(tool)
    try:
        return look(tool)
    except (TimeoutError, subprocess.TimeoutExpired):
        return f"> {PATIENCE_S:.0f} s"
    except subprocess.CalledProcessError as error:
        return f"exited {error.returncode}"


def _one(tool: type[Tool], repeats: int) -> Cell:
    if not tool.queues:
        return None
    with _opened(tool, 1) as queue:
        return Sample(tuple(_timed_ms(lambda: queue.enqueue("true")) for _ in range(repeats)))


def _many(tool: type[Tool], count: int, repeats: int) -> Cell:
    """Measure queueing `count` jobs while the only slot is busy."""
    if not tool.queues:
        return None
    if tool.queues < count:
        return tool.queues_why
    spent: list[float] = []
    for _ in range(repeats):
        with _opened(tool, 1) as queue:
            queue.enqueue(BLOCKER)
            time.sleep(1)
            spent.append(_timed_ms(lambda queue=queue: queue.enqueue_many("true", count)))
            if spent[-1] > 10_000:
                break
    return Sample(tuple(spent))


def _drain(tool: type[Tool], slots: int, jobs: int, repeats: int) -> Cell:
    """Measure jobs per second, from the first command that queues them to the last end."""
    if slots not in tool.slots:
        return None
    return Sample(tuple(_drained_a_s(tool, slots, min(jobs, tool.jobs)) for _ in range(repeats)))


def _drained_a_s(tool: type[Tool], slots: int, jobs: int) -> float:
    with _opened(tool, slots) as queue:
        time.sleep(1)
        counted = queue.folder / "done"
        begun_s = time.monotonic()
        queue.enqueue_many(COUNT, jobs)
        wait_until(lambda: counted.exists() and counted.stat().st_size >= jobs, PATIENCE_S, every_s=0.005)
        return jobs / (time.monotonic() - begun_s)


def _start(tool: type[Tool], repeats: int) -> Cell:
    """Measure the start of a job on an idle server."""
    with _opened(tool, 1) as queue:
        return Sample(tuple(_start_ms(queue) for _ in range(3 if tool is Gflow else repeats)))


def _start_ms(queue: Tool) -> float:
    time.sleep(0.5)
    stamp = queue.folder / "stamp"
    stamp.unlink(missing_ok=True)
    begun_s = time.time()
    queue.enqueue(STAMP)
    wait_until(stamp.exists, PATIENCE_S)
    return (float(stamp.read_text()) - begun_s) * 1000


def _rest(tool: type[Tool], rest_s: float, look: Callable[[int, float], float]) -> Cell:
    with _opened(tool, 1) as queue:
        queue.enqueue("true")
        time.sleep(3)
        pid = queue.server()
        return None if pid is None else Sample((look(pid, rest_s),))


def _share(pid: int, seconds: float) -> float:
    """Return the CPU of a process over `seconds`, % of a core."""
    before, begun_s = cpu_ms(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_ms(pid) - before) / (time.monotonic() - begun_s) / 10


@contextmanager
def _opened(tool: type[Tool], slots: int) -> Generator[Tool]:
    folder = Path(tempfile.mkdtemp(prefix="backprop-peers-"))
    remove_at_exit(folder)
    queue = tool(folder)
    queue.open(slots)
    try:
        yield queue
    finally:
        queue.release()
        queue.close()


def _timed_ms(action: Callable[[], None]) -> float:
    begun_s = time.monotonic()
    action()
    return (time.monotonic() - begun_s) * 1000
