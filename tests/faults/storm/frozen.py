"""Tells which segments of a storm are on their way into a suspension, in one, or on their way out of it."""

import contextlib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from backprop.worker.executor import suspend_files
from tests.faults.storm.lateness import Segment, watched


class Stage(Enum):
    """How far the order to suspend a segment has come."""

    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    THAWING = "thawing"


def stage_of(folder: Path) -> Stage | None:
    """Return the stage of the segment in `folder`; None for one that is in none of them."""
    with contextlib.suppress(OSError):
        order = suspend_files.read(folder)
        if order is None:
            return None
        if order.suspends or order.leaves:
            answer = suspend_files.answer(folder, order.number)
            if answer is None:
                return Stage.SUSPENDING
            return Stage.SUSPENDED if answer.refused is None else None
        return Stage.THAWING if suspend_files.is_paused(folder) else None
    return None


def segments_in(home: Path, stage: Stage) -> Iterator[tuple[Segment, int]]:
    """Yield the segments in that stage, each with the pid of its supervisor."""
    for (run, number), noted in sorted(watched(home).items()):
        if stage_of(home / "runs" / run / str(number)) is stage:
            yield (run, number), noted["supervisor"][0]


def orders(folder: Path) -> int:
    """Return how often the segment in `folder` was ordered to be suspended."""
    order = suspend_files.read(folder)
    return order.number if order is not None else 0
