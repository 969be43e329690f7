"""Reads what belongs to one span of time: segments, samples, changes of the clock, and the runs that took part.

Times are Unix seconds. Each statement goes along an index of times, however many runs ended before: the sign + keeps
SQLite from those of states and rows.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import ClockChange, Refusal, SampleRecord, SegmentRecord, SuspensionRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.rows import SEGMENT, listed, segment_from

MOST_SEGMENTS: Final = 50_000
_SEGMENTS: Final = (
    f"SELECT {', '.join(SEGMENT)}, serial FROM segments"
    " WHERE {ended} AND started_at_s <= ?{group} ORDER BY +serial DESC LIMIT ?"
)
_IN_GROUP: Final = " AND run_id IN (SELECT id FROM runs WHERE group_name = ?)"
_SAMPLE: Final = SampleRecord.__struct_fields__
_SAMPLES: Final = f"SELECT {', '.join(_SAMPLE)} FROM samples WHERE at_s >= ? AND at_s <= ? ORDER BY serial"
_CHANGES: Final = "SELECT at_s, by_s, slept_s FROM clock_changes ORDER BY serial"
_ENDS: Final = tuple(sorted(FINAL))
_TOTALS: Final = ", ".join(f"TOTAL(state = '{state.value}')" for state in _ENDS)
_ENDED: Final = f"SELECT {_TOTALS} FROM runs WHERE ended_at_s >= ? AND ended_at_s <= ?{{group}}"
_OTHERS: Final = (
    f"SELECT state, COUNT(*) FROM runs WHERE state IN {listed(set(State) - FINAL)}{{group}} GROUP BY state"
)
_FAILED: Final = (
    "SELECT id FROM runs WHERE ended_at_s >= ? AND ended_at_s <= ?{group} AND +state = 'failed'"
    " ORDER BY ended_at_s DESC LIMIT ?"
)
_SLOTS: Final = (
    "SELECT MAX(max_parallel) FROM workers"
    " WHERE started_at_s <= ? AND (stopped_at_s IS NULL OR stopped_at_s >= ?)"
)
_SUSPENSION: Final = SuspensionRecord.__struct_fields__
_SUSPENSIONS: Final = (
    f"SELECT {', '.join(_SUSPENSION)} FROM suspensions"
    " WHERE (on_at_s >= ? OR on_at_s IS NULL) AND +ordered_at_s <= ? ORDER BY serial"
)
_OF_RUN: Final = f"SELECT {', '.join(_SUSPENSION)} FROM suspensions WHERE run_id = ? ORDER BY serial"
_SAVED: Final = "SELECT MAX(saved_at_s) FROM checkpoints WHERE run_id = ? AND segment = ? AND refused IS NULL"
_MEMBER: Final = "SELECT 1 FROM runs WHERE group_name = ? LIMIT 1"
_OF_GROUP: Final = " AND group_name = ?"


def segments(
    database: Database, since_s: float, until_s: float, group: str | None = None
) -> list[SegmentRecord]:
    """Return the segments that lived at some time of the span, in the order in which they were claimed; the newest
    `MOST_SEGMENTS` of them."""
    in_group = _IN_GROUP if group is not None else ""
    words = (group,) if group is not None else ()
    ended = database.rows(
        _SEGMENTS.format(ended="ended_at_s >= ?", group=in_group), since_s, until_s, *words, MOST_SEGMENTS
    )
    alive = database.rows(
        _SEGMENTS.format(ended="ended_at_s IS NULL", group=in_group), until_s, *words, MOST_SEGMENTS
    )
    rows = sorted((*ended, *alive), key=lambda row: row[-1])
    return [segment_from(row[:-1]) for row in rows]


def samples(database: Database, since_s: float, until_s: float) -> list[SampleRecord]:
    """Return the samples of the span in the order in which they were taken."""
    return [
        _sample(dict(zip(_SAMPLE, row, strict=True))) for row in database.rows(_SAMPLES, since_s, until_s)
    ]


def clock_changes(database: Database) -> list[ClockChange]:
    """Return all changes of the clock that are kept, in the order in which they came."""
    return [ClockChange(*row) for row in database.rows(_CHANGES)]


def counts(database: Database, since_s: float, until_s: float, group: str | None = None) -> dict[State, int]:
    """Return how many runs ended in each final state in the span, and how many are now in each of the others."""
    of_group = _OF_GROUP if group is not None else ""
    words = (group,) if group is not None else ()
    (ended,) = database.rows(_ENDED.format(group=of_group), since_s, until_s, *words)
    found = {state: int(count) for state, count in zip(_ENDS, ended, strict=True) if count}
    others = database.rows(_OTHERS.format(group=of_group), *words)
    return found | {State(state): count for state, count in others}


def failed(database: Database, since_s: float, until_s: float, group: str | None, limit: int) -> list[str]:
    """Return the ids of the runs that failed in the span, the last first."""
    words = (group,) if group is not None else ()
    text = _FAILED.format(group=_OF_GROUP if group is not None else "")
    return [run_id for (run_id,) in database.rows(text, since_s, until_s, *words, limit)]


def has_members(database: Database, group: str) -> bool:
    """Return whether any run is in the group."""
    return bool(database.rows(_MEMBER, group))


def slots(database: Database, since_s: float, until_s: float) -> int:
    """Return how many runs the workers of the span could run at once, at least 1."""
    return database.rows(_SLOTS, until_s, since_s)[0][0] or 1


def last_saves(database: Database, of: Sequence[SegmentRecord]) -> dict[tuple[str, int], float]:
    """Return when each of these segments saved for the last time; those that never did are missing."""
    found: dict[tuple[str, int], float] = {}
    for segment in of:
        saved_s: float | None = database.rows(_SAVED, segment.run_id, segment.number)[0][0]
        if saved_s is not None:
            found[segment.run_id, segment.number] = saved_s
    return found


def suspensions(
    database: Database, since_s: float, until_s: float
) -> dict[tuple[str, int], list[SuspensionRecord]]:
    """Return by segment the suspensions of the span, and those of ended segments that never went on, in their order."""
    found: dict[tuple[str, int], list[SuspensionRecord]] = {}
    for row in database.rows(_SUSPENSIONS, since_s, until_s):
        one = SuspensionRecord(*row)
        found.setdefault((one.run_id, one.segment), []).append(one)
    return found


def suspensions_of(database: Database, run_id: str) -> list[SuspensionRecord]:
    """Return a run's suspensions in their order."""
    return [SuspensionRecord(*row) for row in database.rows(_OF_RUN, run_id)]


def _sample(values: Mapping[str, object]) -> SampleRecord:
    run_ids, refusals = values["run_ids"], values["refusals"]
    return SampleRecord(
        **{name: value for name, value in values.items() if name not in ("run_ids", "refusals")},  # pyright: ignore[reportArgumentType]
        run_ids=msgspec.json.decode(str(run_ids), type=tuple[str, ...]) if run_ids else (),
        refusals=msgspec.json.decode(str(refusals), type=tuple[Refusal, ...]) if refusals else None,
    )
