"""Reads rows into frozen records, and writes rows, by SQL text that is made once.

For what a worker reads many times per second or writes with every segment: peewee takes several times as long to put a
statement into words as SQLite to carry it out. The text of a write is made once for each set of columns. Writes are
called inside a transaction (`Database.write`).
"""

# peewee's models are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord, Waiting, WorkerRecord
from backprop.scheduler.spec import RunSpec, decode
from backprop.scheduler.store.connection import proxy

RUN: Final = RunRecord.__struct_fields__
SEGMENT: Final = SegmentRecord.__struct_fields__
CHECKPOINT: Final = CheckpointRecord.__struct_fields__
SELECT_RUNS: Final = f"SELECT {', '.join(RUN)} FROM runs"
SELECT_SEGMENTS: Final = f"SELECT {', '.join(SEGMENT)} FROM segments"
SELECT_CHECKPOINTS: Final = f"SELECT {', '.join(CHECKPOINT)} FROM checkpoints"


def listed(states: Iterable[State]) -> str:
    """Return states as SQL takes them after IN."""
    return "(" + ", ".join(repr(state.value) for state in sorted(states)) + ")"


def run_from(row: Sequence[Any]) -> RunRecord:
    """Return a run from the columns of `SELECT_RUNS`."""
    values: dict[str, Any] = dict(zip(RUN, row, strict=True))
    values["state"] = State(values["state"])
    values["intent"] = Intent(values["intent"]) if values["intent"] else None
    values["spec"] = _spec(values["spec"])
    values["waiting"] = (
        msgspec.json.decode(values["waiting"], type=tuple[Waiting, ...]) if values["waiting"] else ()
    )
    return RunRecord(**values)


def segment_from(row: Sequence[Any]) -> SegmentRecord:
    """Return a segment from the columns of `SELECT_SEGMENTS`."""
    values: dict[str, Any] = dict(zip(SEGMENT, row, strict=True))
    values["gpu_uuids"] = tuple(msgspec.json.decode(values["gpu_uuids"], type=list[str]))
    values["exclusive"] = bool(values["exclusive"])
    values["step_fell"] = None if values["step_fell"] is None else bool(values["step_fell"])
    values["outcome"] = SegmentOutcome(values["outcome"]) if values["outcome"] is not None else None
    return SegmentRecord(**values)


def checkpoint_from(row: Sequence[Any]) -> CheckpointRecord:
    """Return a checkpoint from the columns of `SELECT_CHECKPOINTS`."""
    values: dict[str, Any] = dict(zip(CHECKPOINT, row, strict=True))
    values["is_dir"], values["observed"] = bool(values["is_dir"]), bool(values["observed"])
    return CheckpointRecord(**values)


def run_of(row: Any) -> RunRecord:
    """Return a run from peewee's row."""
    return run_from([row.__data__[name] for name in RUN])


def worker_of(row: Any) -> WorkerRecord:
    """Return a worker from peewee's row."""
    hours = row.active_hours
    decoded = None if hours is None else msgspec.json.decode(hours, type=tuple[str, ...])
    return WorkerRecord(**row.__data__ | {"active_hours": decoded})


@lru_cache(maxsize=1024)
def _spec(text: str) -> RunSpec:
    """Frozen, so that the same text may give the same object."""
    return decode(text)


def insert_row(table: str, values: Mapping[str, object]) -> None:
    """Insert one row. Raises peewee's errors."""
    execute(_insert_text(table, tuple(values)), tuple(values.values()))


def update_rows(table: str, values: Mapping[str, object], where: Mapping[str, object]) -> int:
    """Change the rows in which every column of `where` has its value, None included. Returns how many there were."""
    given = tuple(value for value in where.values() if value is not None)
    missing = tuple(name for name, value in where.items() if value is None)
    named = tuple(name for name, value in where.items() if value is not None)
    return execute(_update_text(table, tuple(values), named, missing), (*values.values(), *given))


def update_each(table: str, columns: Sequence[str], rows: Iterable[Sequence[object]], where: str) -> None:
    """Change many rows, each to values of its own: those of `columns`, then those of the `?` in `where`."""
    changed = ", ".join(f"{name} = ?" for name in columns)
    proxy.connection().executemany(f"UPDATE {table} SET {changed} WHERE {where}", rows)


def execute(text: str, values: Sequence[object] | Mapping[str, object]) -> int:
    """Carry out a statement that writes; return how many rows it changed."""
    cursor: Any = proxy.execute_sql(text, values)
    return cursor.rowcount


@lru_cache(maxsize=64)
def _insert_text(table: str, names: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


@lru_cache(maxsize=256)
def _update_text(
    table: str, changed: tuple[str, ...], named: tuple[str, ...], missing: tuple[str, ...]
) -> str:
    conditions = [*(f"{name} = ?" for name in named), *(f"{name} IS NULL" for name in missing)]
    return (
        f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in changed)} WHERE {' AND '.join(conditions)}"
    )
