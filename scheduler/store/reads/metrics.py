"""Reads the metrics of runs: all that is kept, and the latest value of each.

They are thinned when they are stored, see `writes.progress`. The newest row of a name is always the very last value
that the run reported.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backprop.scheduler.records import EVENT, MetricRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import Metric

_NAMES: Final = """
    WITH RECURSIVE known (name) AS (
        SELECT MIN(name) FROM metrics WHERE run_id = :run
        UNION ALL
        SELECT (SELECT MIN(name) FROM metrics WHERE run_id = :run AND name > known.name)
        FROM known WHERE known.name IS NOT NULL
    )
    SELECT name FROM known WHERE name IS NOT NULL
"""
"""One search of the index for each name, where DISTINCT would read every row of the run."""

_CURVE: Final = "SELECT step, at_s, value, segment FROM metrics WHERE run_id = ? AND name = ? ORDER BY serial"


def of_runs(database: Database, run_ids: Sequence[str]) -> list[MetricRecord]:
    """Return all that is kept of these runs, run by run in this order, each in the order of its reports."""

    def query() -> list[MetricRecord]:
        from peewee import fn

        source = fn.COALESCE(Metric.source, EVENT)
        columns = (
            Metric.run_id,
            Metric.segment,
            Metric.at_s,
            Metric.step,
            Metric.name,
            Metric.value,
            source,
        )
        rows: list[MetricRecord] = []
        for run_id in run_ids:
            own: Any = Metric.select(*columns).where(Metric.run_id == run_id).order_by(Metric.serial)
            rows += [MetricRecord(*row) for row in own.tuples()]
        return rows

    return database.read(query)


def report_times(database: Database, run_id: str, most: int) -> list[tuple[int, float]]:
    """Return segment and time (Unix seconds) of a run's newest reports, `most` values at most, oldest first."""

    def query() -> list[tuple[int, float]]:
        newest: Any = Metric.select(Metric.segment, Metric.at_s).where(Metric.run_id == run_id)
        rows = list(newest.order_by(Metric.serial.desc()).limit(most).tuples())
        return list(dict.fromkeys(reversed(rows)))

    return database.read(query)


def latest(database: Database, run_ids: Sequence[str], name: str) -> dict[str, float]:
    """Return the last value of metric `name` of each run; runs that never reported it are missing."""

    def query() -> dict[str, float]:
        from peewee import chunked, fn

        values: dict[str, float] = {}
        for ids in chunked(run_ids, 500):
            named = Metric.run_id.in_(list(ids)) & (Metric.name == name)
            newest: Any = Metric.select(fn.MAX(Metric.serial)).where(named).group_by(Metric.run_id)
            rows: Any = Metric.select(Metric.run_id, Metric.value).where(Metric.serial.in_(newest)).tuples()
            values |= dict(list(rows))
        return values

    return database.read(query)


def latest_of_each(database: Database, run_ids: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """Return the last value of every metric of each run, names in alphabetical order; runs without any have none."""

    def query() -> dict[str, Mapping[str, float]]:
        return {run_id: {name: _last(run_id, name) for name in sorted(names(run_id))} for run_id in run_ids}

    return database.read(query)


def curve(database: Database, run_id: str, name: str) -> list[tuple[int | None, float, float, int]]:
    """Return step, time (Unix seconds), value and segment of all that is kept of one metric of a run, oldest first."""
    return list(database.rows(_CURVE, run_id, name))


def all_names(database: Database, run_ids: Sequence[str]) -> list[str]:
    """Return the names of the metrics that these runs reported, in alphabetical order."""
    return database.read(lambda: sorted({name for run_id in run_ids for name in names(run_id)}))


def names(run_id: str) -> set[str]:
    """Return the names of the metrics that are kept of a run. Call inside a transaction."""
    rows = Metric._meta.database.connection().execute(_NAMES, {"run": run_id}).fetchall()
    return {str(name) for (name,) in rows}


def _last(run_id: str, name: str) -> float:
    newest: Any = (
        Metric.select(Metric.value)
        .where((Metric.run_id == run_id) & (Metric.name == name))
        .order_by(Metric.serial.desc())
        .limit(1)
    )
    return float(newest.scalar())
