"""What have runs measured? Their metrics over time, thinned, and the latest of each.

A run reports a step a millisecond if it likes; what is kept is one value a name and `GRAIN_S` seconds, the last one. So
the newest row of a name is always the very last value that was heard.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from backprop.scheduler.records import MetricRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import Metric

GRAIN_S: Final = 5.0
MAX_NAMES: Final = 32
"""Of one run; names beyond these, in the order in which they first come, are not kept."""

NAMES: Final = """
    WITH RECURSIVE mine (name) AS (
        SELECT MIN(name) FROM metrics WHERE run_id = :run
        UNION ALL
        SELECT (SELECT MIN(name) FROM metrics WHERE run_id = :run AND name > mine.name)
        FROM mine WHERE mine.name IS NOT NULL
    )
    SELECT name FROM mine WHERE name IS NOT NULL
"""
"""One look into the index for each name, where DISTINCT would read every row of the run."""
REPLACE: Final = """
    UPDATE metrics SET at_s = :at_s, step = :step, value = :value
    WHERE serial = (SELECT MAX(serial) FROM metrics WHERE run_id = :run AND name = :name)
    AND segment = :segment AND CAST(at_s / :grain AS INTEGER) = CAST(:at_s / :grain AS INTEGER)
"""
INSERT: Final = """
    INSERT INTO metrics (run_id, segment, at_s, step, name, value)
    VALUES (:run, :segment, :at_s, :step, :name, :value)
"""


def store(run_id: str, segment: int, said: Iterable[MetricRecord]) -> None:
    """Inside a transaction: keep the last values that a segment reported."""
    news = list(said)
    if not news:
        return
    known = _names(run_id)
    for one in news:
        values = {
            "run": run_id,
            "segment": segment,
            "at_s": one.at_s,
            "step": one.step,
            "name": one.name,
            "value": one.value,
            "grain": GRAIN_S,
        }
        if one.name not in known and len(known) >= MAX_NAMES:
            continue
        known.add(one.name)
        if _execute(REPLACE, values).rowcount == 0:
            _execute(INSERT, values)


def of_runs(database: Database, run_ids: Sequence[str]) -> list[MetricRecord]:
    """All that is kept of these runs, run by run in this order, each as it was reported."""

    def query() -> list[MetricRecord]:
        columns = (Metric.run_id, Metric.segment, Metric.at_s, Metric.step, Metric.name, Metric.value)
        rows: list[MetricRecord] = []
        for run_id in run_ids:
            mine: Any = Metric.select(*columns).where(Metric.run_id == run_id).order_by(Metric.serial)
            rows += [MetricRecord(*row) for row in mine.tuples()]
        return rows

    return database.read(query)


def latest(database: Database, run_ids: Sequence[str], name: str) -> dict[str, float]:
    """The last value of metric `name` of each run; runs that never reported it are missing."""

    def query() -> dict[str, float]:
        from peewee import chunked, fn

        found: dict[str, float] = {}
        for ids in chunked(run_ids, 500):
            mine = Metric.run_id.in_(list(ids)) & (Metric.name == name)
            newest: Any = Metric.select(fn.MAX(Metric.serial)).where(mine).group_by(Metric.run_id)
            rows: Any = Metric.select(Metric.run_id, Metric.value).where(Metric.serial.in_(newest)).tuples()
            found |= dict(list(rows))
        return found

    return database.read(query)


def latest_of_each(database: Database, run_ids: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """The last value of every metric of each run, names in alphabetical order; runs without any have none."""

    def query() -> dict[str, Mapping[str, float]]:
        return {run_id: {name: _last(run_id, name) for name in sorted(_names(run_id))} for run_id in run_ids}

    return database.read(query)


def _names(run_id: str) -> set[str]:
    return {str(name) for (name,) in _execute(NAMES, {"run": run_id}).fetchall()}


def _last(run_id: str, name: str) -> float:
    newest: Any = (
        Metric.select(Metric.value)
        .where((Metric.run_id == run_id) & (Metric.name == name))
        .order_by(Metric.serial.desc())
        .limit(1)
    )
    return float(newest.scalar())


def _execute(statement: str, values: Mapping[str, object]) -> Any:
    return Metric._meta.database.connection().execute(statement, values)
