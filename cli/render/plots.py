"""Draws curves with characters: a sparkline in one line, a plot of 2 by 4 dots per cell. Pure: numbers in, text out."""

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Final, TextIO

import msgspec

from backprop.cli.render.json_views import is_terminal

LEAST_WIDTH: Final = 80
MOST_WIDTH: Final = 200
BARS: Final = "▁▂▃▄▅▆▇█"
PLAIN_BARS: Final = ".:-=+*#@"
COLOURS: Final = (36, 33, 35, 32, 34, 31, 96, 93)
"""SGR codes of curves, in turn."""
MOST: Final = 1e150
_BRAILLE: Final = 0x2800
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_DIM: Final = 2
_LABEL_WIDTH: Final = 9
_LEAST_WIDTH: Final = 30

Point = tuple[float, float]
MOST_POINTS: Final = 2000
"""Of a curve that is drawn."""


class Curve(msgspec.Struct, frozen=True):
    """Points to be joined in their order. `ticks`: where on the x axis it was taken up again."""

    name: str
    points: Sequence[Point]
    ticks: Sequence[float] = ()


class Style(msgspec.Struct, frozen=True):
    """`colour`: escape sequences may be used. `plain`: ASCII alone."""

    colour: bool = False
    plain: bool = False


MONOCHROME: Final = Style()


def sparkline(
    values: Sequence[float | None],
    width: int = 12,
    low: float | None = None,
    high: float | None = None,
    *,
    plain: bool = False,
) -> str:
    """Return a line of at most `width` bars; blanks where there is no value. `low`, `high`: instead of those of the
    values."""
    bars = PLAIN_BARS if plain else BARS
    shown = [_mean(part) for part in _parts(values, width)]
    finite = [value for value in shown if value is not None]
    if not finite:
        return " " * len(shown)
    low = min(finite) if low is None else low
    high = max(finite) if high is None else high
    span = (high - low) or 1.0
    return "".join(
        " " if value is None else bars[min(max(int((value - low) / span * len(bars)), 0), len(bars) - 1)]
        for value in shown
    )


def plot(
    curves: Sequence[Curve], width: int, height: int, x_label: str = "", style: Style = MONOCHROME
) -> list[str]:
    """Return the lines of a plot of `height` rows and its two axes, at most `width` columns wide.

    Values that are not finite leave a gap. Faint ticks below show where segments begin, if there is one curve.
    """
    finite = [point for curve in curves for point in curve.points if _can_be_drawn(point)]
    if not finite:
        return ["no values"]
    width = max(width, _LEAST_WIDTH) - _LABEL_WIDTH
    xs, ys = _range([x for x, _ in finite]), _range([y for _, y in finite])
    rows = _rows(curves, width, height, xs, ys, style)
    lines = [
        f"{_tick(number, height, ys):>{_LABEL_WIDTH - 2}} {'|' if style.plain else '│'}{row}".rstrip()
        for number, row in enumerate(rows)
    ]
    lines.append(" " * (_LABEL_WIDTH - 1) + _axis(curves, width, xs, style))
    first, last = f"{short(xs[0])}", f"{short(xs[1])}{f' {x_label}' if x_label else ''}"
    lines.append(" " * _LABEL_WIDTH + first + last.rjust(width - len(first)))
    return lines


def short(value: float) -> str:
    """Return a number in at most seven columns."""
    if value == int(value) and abs(value) < 100_000:
        return str(int(value))
    text = f"{value:.4g}"
    return text if len(text) <= 7 else f"{value:.1e}"


def points_of(rows: Sequence[tuple[int | None, float, float, int]], across: str) -> list[Point]:
    """Return the points of a stored curve: over its steps, or over minutes where `across` is `time`. Where a value has
    no step, its number stands for it."""
    begin_s = rows[0][1] if rows else 0.0
    return [
        ((at_s - begin_s) / 60 if across == "time" else float(number if step is None else step), value)
        for number, (step, at_s, value, _) in enumerate(rows)
    ]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most `most` points of a curve: evenly chosen, with its last."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]


def _parts(values: Sequence[float | None], width: int) -> Iterator[Sequence[float | None]]:
    count = min(width, len(values))
    for number in range(count):
        yield values[number * len(values) // count : (number + 1) * len(values) // count]


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None and is_drawable(value)]
    return sum(finite) / len(finite) if finite else None


def is_drawable(value: float) -> bool:
    """Return whether a value can be drawn: the difference of two that are larger may be no number any more."""
    return math.isfinite(value) and abs(value) < MOST


def _can_be_drawn(point: Point) -> bool:
    return is_drawable(point[0]) and is_drawable(point[1])


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2)


def _tick(number: int, height: int, ys: tuple[float, float]) -> str:
    if number in (0, height // 2, height - 1) or height < 3:
        return short(ys[1] - (ys[1] - ys[0]) * number / max(height - 1, 1))
    return ""


def _axis(curves: Sequence[Curve], width: int, xs: tuple[float, float], style: Style) -> str:
    line = ["-" if style.plain else "─"] * width
    for tick in curves[0].ticks if len(curves) == 1 else ():
        at = round((tick - xs[0]) / (xs[1] - xs[0]) * (width - 1))
        if 0 <= at < width:
            line[at] = "+" if style.plain else "┬"
    text = ("+" if style.plain else "└") + "".join(line)
    return f"\x1b[{_DIM}m{text}\x1b[0m" if style.colour else text


def _rows(
    curves: Sequence[Curve],
    width: int,
    height: int,
    xs: tuple[float, float],
    ys: tuple[float, float],
    style: Style,
) -> list[str]:
    cells = [[0] * width for _ in range(height)]
    owners: list[list[int | None]] = [[None] * width for _ in range(height)]
    across, down = (1, 1) if style.plain else (2, 4)
    for number, curve in enumerate(curves):
        for x, y in _dots(curve, width * across, height * down, xs, ys):
            column, row = x // across, y // down
            cells[row][column] |= 1 if style.plain else _DOTS[y % 4][x % 2]
            owners[row][column] = number
    return [
        "".join(_cell(cell, owner, style) for cell, owner in zip(line, owned, strict=True)).rstrip()
        for line, owned in zip(cells, owners, strict=True)
    ]


def _cell(dots: int, owner: int | None, style: Style) -> str:
    if owner is None:
        return " "
    text = chr(ord("a") + owner % 26) if style.plain else chr(_BRAILLE + dots)
    return f"\x1b[{COLOURS[owner % len(COLOURS)]}m{text}\x1b[0m" if style.colour else text


def _dots(
    curve: Curve, width: int, height: int, xs: tuple[float, float], ys: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    """Yield the dots of a curve, from the top left, with those between two points of it."""
    before: tuple[int, int] | None = None
    for point in curve.points:
        if not _can_be_drawn(point):
            before = None
            continue
        x = round((point[0] - xs[0]) / (xs[1] - xs[0]) * (width - 1))
        y = round((ys[1] - point[1]) / (ys[1] - ys[0]) * (height - 1))
        yield x, y
        if before is not None:
            steps = max(abs(x - before[0]), abs(y - before[1]))
            for step in range(1, steps):
                yield (
                    round(before[0] + (x - before[0]) * step / steps),
                    round(before[1] + (y - before[1]) * step / steps),
                )
        before = (x, y)


def style_of(stream: TextIO) -> Style:
    """Return how to draw there: without colours in a pipe, under NO_COLOR and on a dumb terminal, and in ASCII where
    the encoding or the terminal has no more."""
    dumb = os.environ.get("TERM") == "dumb"
    colour = is_terminal(stream) and not os.environ.get("NO_COLOR") and not dumb
    return Style(colour=colour, plain=dumb or (stream.encoding or "").lower() not in ("utf-8", "utf8"))


def width_of(stream: TextIO) -> int:
    """Return how many columns to fill: those of the terminal or COLUMNS, between 80 and 200."""
    asked = is_terminal(stream) or "COLUMNS" in os.environ
    columns = shutil.get_terminal_size((LEAST_WIDTH, 24)).columns if asked else LEAST_WIDTH
    return min(max(columns, LEAST_WIDTH), MOST_WIDTH)


def curve_of(rows: Sequence[tuple[int | None, float, float, int]], name: str, across: str) -> Curve | None:
    """Return the curve over steps or time, with a tick where a segment begins; None without a value."""
    if not rows:
        return None
    points = points_of(rows, across)
    ticks = [points[at][0] for at in range(1, len(rows)) if rows[at][3] != rows[at - 1][3]]
    return Curve(name, thinned(points, MOST_POINTS), ticks)
