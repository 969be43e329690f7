"""Reads how fast the disks fill: what was sampled of them, and what the segments of a run have saved."""

import posixpath
from collections import defaultdict
from typing import Final

import msgspec

from backprop.scheduler.governor.disk import Growth, full_in_s
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database

WITHIN_S: Final = 2 * 3600.0
SEGMENTS: Final = 3
"""So many of a run's last segments tell what the next one will add."""
_MIB: Final = 1024 * 1024
_SAMPLED: Final = (
    "SELECT at_s, disks FROM samples WHERE at_s >= ? AND at_s <= ? AND disks IS NOT NULL ORDER BY at_s"
)
_SAVED: Final = """
    SELECT path, segment, size_bytes FROM checkpoints WHERE run_id = ? AND refused IS NULL ORDER BY serial
"""


def full_at(database: Database, now_s: float) -> dict[str, float]:
    """Return when (Unix seconds) each disk that fills steadily will be full, by the folder on which it is mounted."""
    readings: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for at_s, text in database.rows(_SAMPLED, now_s - WITHIN_S, now_s):
        for folder, free_mib in msgspec.json.decode(text, type=dict[str, int]).items():
            readings[folder].append((at_s, free_mib))
    found: dict[str, float] = {}
    for folder, taken in readings.items():
        left_s = full_in_s(taken)
        if left_s is not None and taken[-1][0] + left_s > now_s:
            found[folder] = taken[-1][0] + left_s
    return dict(sorted(found.items()))


def usual_growth(database: Database, run: RunRecord) -> Growth | None:
    """Return what one more segment of a run adds to its disk, by what its last ones have saved: each path once, since
    one that is overwritten adds nothing. Where older ones are removed, one checkpoint is all. None where it is not
    known."""
    first_in: dict[str, tuple[int, int]] = {}
    for path, segment, size_bytes in database.rows(_SAVED, run.id):
        first_in[path] = (first_in.get(path, (segment, 0))[0], size_bytes)
    numbers = range(max(run.segment - SEGMENTS, 0) + 1, run.segment + 1)
    new = [(path, size) for path, (number, size) in first_in.items() if number in numbers]
    if not new:
        return None
    added_bytes = sum(size for _, size in new) / len(numbers)
    if run.spec.keep_checkpoints is not None:
        added_bytes = min(added_bytes, max(size for _, size in new))
    return Growth(posixpath.dirname(new[-1][0]), int(added_bytes // _MIB))
