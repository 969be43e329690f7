"""Says when a disk will be full at its pace, and whether a run's usual growth still fits on it.

Pure: no clock, no file. What cannot be known is None, and never a bad number.
"""

import posixpath
from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

Disks = tuple[tuple[str, int | None], ...]
"""The folder on which each disk is mounted, with MiB free; None for one that is not asked, such as a network mount."""

LEAST_SPAN_S: Final = 1200.0
LEAST_READINGS: Final = 12
MOST_READINGS: Final = 60
FARTHEST: Final = 12.0
"""Spans that a pace is trusted for beyond the one in which it was measured."""


class Growth(msgspec.Struct, frozen=True):
    """What one more segment of a run usually adds to the disk of `folder`, where it saves."""

    folder: str
    mib: int


def full_in_s(readings: Sequence[tuple[float, int]]) -> float | None:
    """Return in how many seconds after the last reading a disk will be full.

    `readings`: (Unix seconds, MiB free), oldest first. None where it does not fall steadily: in each half of the span.
    A pace is the median over all pairs (Theil and Sen's), which neither one large file nor one removal moves.
    """
    step = -(-len(readings) // MOST_READINGS) or 1
    taken = readings[::-1][::step][::-1]
    if len(taken) < LEAST_READINGS:
        return None
    span_s, half = taken[-1][0] - taken[0][0], len(taken) // 2
    pace = _pace(taken)
    if span_s < LEAST_SPAN_S or max(pace, _pace(taken[:half]), _pace(taken[half:])) >= 0:
        return None
    left_s = taken[-1][1] / -pace
    return left_s if left_s <= FARTHEST * span_s else None


def disk_of(path: str, disks: Disks) -> tuple[str, int | None] | None:
    """Return the disk on which a path lies: the one whose folder is the nearest above it."""
    above = [disk for disk in disks if posixpath.join(path, "").startswith(posixpath.join(disk[0], ""))]
    return max(above, key=lambda disk: len(disk[0]), default=None)


def _pace(readings: Sequence[tuple[float, int]]) -> float:
    """Return MiB per second by which the free space grows."""
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for at, later in enumerate(readings)
        for earlier in readings[:at]
        if later[0] > earlier[0]
    ]
    return median(slopes) if slopes else 0.0
