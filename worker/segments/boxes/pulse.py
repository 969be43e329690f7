"""Looks for signs of life in a segment: output, files written, steps, processor time.

A process that shows none for a whole box is dead for our purposes: it waits for something that does not come.
"""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

BUSY_SHARE: Final = 0.005
"""Less processor time than this share of one core is what a process takes that only waits."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Pulse(msgspec.Struct, frozen=True):
    """The counters of one moment. `at_s`: running time. `printed`: bytes of its log and events. `reported`: steps and
    saves so far. `wrote`: bytes that its processes have passed to write calls. `cpu_s`: their processor time."""

    at_s: float
    printed: int
    reported: tuple[object, ...]
    pids: frozenset[int]
    wrote: int
    cpu_s: float


def take_pulse(at_s: float, folder: Path, reported: tuple[object, ...], pids: Collection[int]) -> Pulse:
    """Read the counters now. Raises nothing: what cannot be read counts as 0."""
    wrote, cpu_s = 0, 0.0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            wrote += _written(pid)
            cpu_s += _cpu_s(pid)
    printed = sum(_size(folder / name) for name in ("log", "events.jsonl"))
    return Pulse(at_s, printed, reported, frozenset(pids), wrote, cpu_s)


def is_alive(before: Pulse, now: Pulse) -> bool:
    """Return whether anything shows that the segment did something between two moments."""
    if (before.printed, before.reported, before.pids, before.wrote) != (
        now.printed,
        now.reported,
        now.pids,
        now.wrote,
    ):
        return True
    # No process at all: they cannot be seen, so nothing is known of them.
    return not now.pids or now.cpu_s - before.cpu_s > BUSY_SHARE * (now.at_s - before.at_s)


def _written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("wchar:", "write_bytes:")))


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process and of the children that it has collected."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS_PER_S


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
