"""Reads what has just happened, for a live screen: how busy GPUs were, curves of losses, segments that ended."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from backprop.scheduler.store.connection import Database

CURVE_POINTS: Final = 200
"""Newest values read of each run: a curve has a few cells."""
_BUSY: Final = """
    SELECT gpu_uuid, utilisation_pct FROM samples
    WHERE at_s >= ? AND gpu_uuid IS NOT NULL AND utilisation_pct IS NOT NULL ORDER BY at_s"""
_CURVE: Final = """
    SELECT value FROM metrics WHERE run_id = ? AND name = 'loss' ORDER BY serial DESC LIMIT ?"""
_ENDED: Final = """
    SELECT segments.ended_at_s, runs.name, segments.number, segments.outcome, segments.running_s, runs.last_step
    FROM segments JOIN runs ON runs.id = segments.run_id
    WHERE segments.ended_at_s IS NOT NULL AND segments.serial > (SELECT MAX(serial) FROM segments) - 500
    ORDER BY segments.ended_at_s DESC LIMIT ?"""


class EndedSegment(msgspec.Struct, frozen=True):
    """A segment that ended lately. `outcome`: a value of `SegmentOutcome`."""

    at_s: float
    name: str
    number: int
    outcome: str
    running_s: float | None
    last_step: int | None


def busy(database: Database, since_s: float) -> dict[str, list[int]]:
    """Return how busy each GPU was since then, in percent, oldest first, by UUID."""
    found: dict[str, list[int]] = {}
    for uuid, share in database.rows(_BUSY, since_s):
        found.setdefault(uuid, []).append(share)
    return found


def curves(database: Database, run_ids: Sequence[str]) -> Mapping[str, list[float]]:
    """Return the newest losses of runs, oldest first."""
    return {
        run_id: [value for (value,) in reversed(database.rows(_CURVE, run_id, CURVE_POINTS))]
        for run_id in run_ids
    }


def ended(database: Database, limit: int) -> list[EndedSegment]:
    """Return the segments that ended last, the newest first."""
    rows: list[Any] = database.rows(_ENDED, limit)
    return [EndedSegment(*row) for row in rows]
