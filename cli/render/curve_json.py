"""Shows a metric of runs as JSON, to follow one or to compare several; documented in docs/json.md."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from backprop.cli.render.answers import NAME_LIMIT, short
from backprop.cli.render.plots import points_of, thinned
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import metrics, queries

MOST_RUNS: Final = 50
KNOWN_BYTES: Final = 192
"""Of the names of a run's metrics: a script may report one per layer."""


def curves_json(
    database: Database, run_ids: Sequence[str], metric: str, across: str, most: int
) -> dict[str, Any]:
    """Return the first runs, also those that have no value. `across`: `step` or `time`. `most`: points that are kept
    of each curve."""
    runs = queries.runs_by_id(database, run_ids[:MOST_RUNS])
    return {
        "metric": metric,
        "x": across,
        "runs": [_curve(database, run, metric, across, most) for run in runs],
        "more": len(run_ids[MOST_RUNS:]),
    }


def _curve(database: Database, run: RunRecord, metric: str, across: str, most: int) -> dict[str, Any]:
    points = points_of(metrics.curve(database, run.id, metric), across)
    finite = [value for _, value in points if math.isfinite(value)]
    return {
        "id": run.id,
        "name": short(run.name, NAME_LIMIT),
        "state": run.state.value,
        "params": run.spec.params,
        "last_step": run.last_step,
        "known": list(_few(metrics.all_names(database, [run.id]))),
        "values": len(points),
        "first": _number(points[0][1]) if points else None,
        "last": _number(points[-1][1]) if points else None,
        "least": min(finite, default=None),
        "greatest": max(finite, default=None),
        "points": [[_x(x), _number(value, "{:.6g}")] for x, value in _kept(points, most)],
    }


def _few(names: Sequence[str]) -> Iterator[str]:
    """Yield as many names as take `KNOWN_BYTES`."""
    left = KNOWN_BYTES
    for name in names:
        left -= len(json.dumps(name)) + 2
        if left < 0:
            return
        yield name


def _kept(points: Sequence[tuple[float, float]], most: int) -> Sequence[tuple[float, float]]:
    """Return at most so many points; one alone is the last."""
    return thinned(points, most) if most > 1 else points[len(points) - most :] if most else ()


def _x(x: float) -> float:
    """Return a step as a whole number, minutes to their hundredths."""
    return int(x) if x == int(x) else round(x, 2)


def _number(value: float, digits: str = "{!r}") -> float | None:
    """Return what JSON can hold."""
    return float(digits.format(value)) if math.isfinite(value) else None
