"""Draws the metrics of a night's runs over their steps as SVG: the best three marked, those that failed in red."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from backprop.cli.render.json_views import number
from backprop.cli.render.plots import Point, is_drawable, thinned
from backprop.cli.report.markup import element, said
from backprop.cli.report.night import Night
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import metrics

MOST_CURVES: Final = 60
MOST_POINTS: Final = 150
MOST_METRICS: Final = 4
MARKED: Final = 3
WIDTH: Final = 640
HEIGHT: Final = 300
LEFT: Final = 52
RIGHT: Final = 12
LEAST: Final = 1e-150
"""What is nearer to nothing is drawn as nothing."""
LOG_FROM: Final = 5.0
"""Values that differ by so much, all above nothing, are shown to a logarithmic scale."""


class MetricChart(msgspec.Struct, frozen=True):
    """A finished chart of one metric. `shown`: how many runs are in it."""

    metric: str
    svg: str
    shown: int


def charts(night: Night, database: Database) -> list[MetricChart]:
    """Return the charts of the ranking's metric and a few others. Raises DatabaseBusy."""
    runs = _chosen(night)
    known = metrics.all_names(database, [run.id for run in runs])
    first = night.ranking.metric
    names = [name for name in (first, *(one for one in known if one != first)) if name in known]
    found: list[MetricChart] = []
    for name in names[:MOST_METRICS]:
        points = {run.id: _points(database, run.id, name) for run in runs}
        drawn = [run for run in runs if len(points[run.id]) > 1]
        if drawn:
            found.append(MetricChart(name, _chart(night, name, drawn, points), len(drawn)))
    return found


def _chosen(night: Night) -> list[RunRecord]:
    """Return the runs to be drawn, the marked ones last and so on top."""
    best = [run.id for run, _ in night.ranking.places[:MARKED]]
    failed = [run.id for run in night.runs.values() if run.state is State.FAILED]
    ranked = [run.id for run, _ in night.ranking.places]
    ids = list(dict.fromkeys((*best, *failed, *ranked, *night.runs)))[:MOST_CURVES]
    return [night.runs[run_id] for run_id in reversed(ids)]


def _points(database: Database, run_id: str, name: str) -> list[Point]:
    rows = metrics.curve(database, run_id, name)
    points = [
        (float(at if step is None else step), value if abs(value) > LEAST else 0.0)
        for at, (step, _, value, _) in enumerate(rows)
        if is_drawable(value)
    ]
    return thinned(points, MOST_POINTS)


def _chart(night: Night, metric: str, runs: Sequence[RunRecord], points: dict[str, list[Point]]) -> str:
    xs = [x for run in runs for x, _ in points[run.id]]
    ys = [y for run in runs for _, y in points[run.id]]
    right = max(xs) if max(xs) > min(xs) else min(xs) + 1
    left = min(xs)
    y_of, marks = _scale(ys)
    parts: list[str] = []
    for mark in marks:
        y = y_of(mark)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, cls="grid"))
        parts.append(element("text", number(mark), x=LEFT - 6, y=y + 4, text_anchor="end"))
    best = [run.id for run, _ in night.ranking.places[:MARKED]]
    for run in runs:
        told = " ".join(
            f"{LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT):.1f},{y_of(y):.1f}"
            for x, y in points[run.id]
        )
        last_x, last = points[run.id][-1]
        title = f"{run.name} ({run.id}), {run.state}: {number(last)} at step {last_x:,.0f}"
        cls = (
            "curve best s-green"
            if run.id in best
            else "curve s-red"
            if run.state is State.FAILED
            else "curve s-grey"
        )
        parts.append(element("polyline", element("title", said(title, 300)), points=told, cls=cls))
    parts.append(element("text", f"{left:,.0f}", x=LEFT, y=HEIGHT + 15))
    parts.append(element("text", f"step {right:,.0f}", x=WIDTH - RIGHT, y=HEIGHT + 15, text_anchor="end"))
    svg = element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT + 20}",
        role="img",
        aria_label=f"Curves of {said(metric, 60)}",
    )
    return element("div", svg, cls="scroll narrow", tabindex=0)


def _scale(ys: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """Return where values lie from the top, and the values to be marked."""
    low, high = min(ys), max(ys)
    if low > 0 and high / low >= LOG_FROM:
        base, span = math.log(low), math.log(high) - math.log(low)
        return lambda y: 8 + (HEIGHT - 8) * (1 - (math.log(y) - base) / span), list(_powers(low, high))
    span = (high - low) or abs(high) or 1.0
    step = _round_step(span / 6)
    marks = [step * one for one in range(math.ceil(low / step), math.floor(high / step) + 1)] or [low]
    return lambda y: 8 + (HEIGHT - 8) * (1 - (y - low) / span), marks


def _powers(low: float, high: float) -> Iterator[float]:
    """Yield round numbers for a logarithmic scale: 1, 2, 5 and their tenfolds, of a wide scale the powers of ten."""
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max((last - first) // 8, 1)
    for power in range(first, last + 1, every):
        yield from (factor * 10.0**power for factor in factors if low <= factor * 10.0**power <= high)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)
