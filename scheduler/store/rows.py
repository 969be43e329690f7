"""A table's row as the frozen record it leaves the database as.

What a worker reads many times a second is read by SQL text made once: a query builder takes longer to write it than
SQLite to answer.

How is one row written without a query builder? By statements whose text is made once for each set of columns.

For what a worker writes with every segment: putting the statement into words takes peewee several times as long as
SQLite takes to carry it out. Call inside a transaction (`Database.write`).
"""

# peewee's models are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

# peewee's models are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from backprop.scheduler.lifecycle import Intent, State
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
    """States as SQL has them after IN."""
    return "(" + ", ".join(repr(state.value) for state in sorted(states)) + ")"


def run_from(row: Sequence[Any]) -> RunRecord:
    """From the columns of `SELECT_RUNS`."""
    values: dict[str, Any] = dict(zip(RUN, row, strict=True))
    values["state"] = State(values["state"])
    values["intent"] = Intent(values["intent"]) if values["intent"] else None
    values["spec"] = _spec(values["spec"])
    values["waiting"] = (
        msgspec.json.decode(values["waiting"], type=tuple[Waiting, ...]) if values["waiting"] else ()
    )
    return RunRecord(**values)


def segment_from(row: Sequence[Any]) -> SegmentRecord:
    """From the columns of `SELECT_SEGMENTS`."""
    values: dict[str, Any] = dict(zip(SEGMENT, row, strict=True))
    values["gpu_uuids"] = tuple(msgspec.json.decode(values["gpu_uuids"], type=list[str]))
    values["exclusive"] = bool(values["exclusive"])
    return SegmentRecord(**values)


def checkpoint_from(row: Sequence[Any]) -> CheckpointRecord:
    """From the columns of `SELECT_CHECKPOINTS`."""
    values: dict[str, Any] = dict(zip(CHECKPOINT, row, strict=True))
    values["is_dir"] = bool(values["is_dir"])
    return CheckpointRecord(**values)


def run_of(row: Any) -> RunRecord:
    """From peewee's row."""
    return run_from([row.__data__[name] for name in RUN])


def worker_of(row: Any) -> WorkerRecord:
    return WorkerRecord(**row.__data__)


@lru_cache(maxsize=1024)
def _spec(text: str) -> RunSpec:
    """Frozen, so that the same text may give the same object."""
    return decode(text)


def insert(table: str, values: Mapping[str, object]) -> None:
    """One row. Raises peewee's errors."""
    _run(_insert_text(table, tuple(values)), tuple(values.values()))


def update(table: str, values: Mapping[str, object], where: Mapping[str, object]) -> int:
    """Change the rows in which every column of `where` has its value, None included; how many there were."""
    given = tuple(value for value in where.values() if value is not None)
    missing = tuple(name for name, value in where.items() if value is None)
    named = tuple(name for name, value in where.items() if value is not None)
    return _run(_update_text(table, tuple(values), named, missing), (*values.values(), *given))


def update_each(table: str, columns: Sequence[str], rows: Iterable[Sequence[object]], where: str) -> None:
    """The same change to many rows, each with values of its own: those of `columns`, then those of `where`'s `?`."""
    changed = ", ".join(f"{name} = ?" for name in columns)
    proxy.connection().executemany(f"UPDATE {table} SET {changed} WHERE {where}", rows)


def _run(text: str, values: Sequence[object]) -> int:
    cursor: Any = proxy.execute_sql(text, values)
    return cursor.rowcount


@lru_cache(maxsize=64)
def _insert_text(table: str, names: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


@lru_cache(maxsize=256)
def _update_text(
    table: str, changed: tuple[str, ...], named: tuple[str, ...], missing: tuple[str, ...]
) -> str:
    here = [*(f"{name} = ?" for name in named), *(f"{name} IS NULL" for name in missing)]
    return f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in changed)} WHERE {' AND '.join(here)}"
