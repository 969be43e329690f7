"""Draws what lies on the time axis of a night as SVG: where the time went, the segments, and the readings of a GPU."""

import time
from collections.abc import Iterator, Sequence
from typing import Final

from backprop.cli.render.json_views import duration
from backprop.cli.report import palette
from backprop.cli.report.books import Account, Book, Slice, Stay, turns
from backprop.cli.report.markup import element, said
from backprop.cli.report.night import Night, label, stretch
from backprop.cli.report.readings import Readings, Track
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import SegmentRecord

WIDTH: Final = 1060
LEFT: Final = 150
RIGHT: Final = 12
ROW: Final = 17
SUSPENDED_AT: Final = 5
SUSPENDED_HEIGHT: Final = 2
MOST_ROWS: Final = 120
NAME_COLUMNS: Final = 22
MANY_SLICES: Final = 1500
"""From so many on neighbours are drawn as one, in the colour of the account with the most seconds."""
HOUR_S: Final = 3600
_STEPS_S: Final = (300, 900, 1800, HOUR_S, 2 * HOUR_S, 4 * HOUR_S, 12 * HOUR_S, 24 * HOUR_S, 7 * 24 * HOUR_S)
_MOST_TICKS: Final = 12
_CHART: Final = 96


def books_chart(night: Night) -> str:
    """Return one strip per unit: each second in the colour of its account."""
    height = len(night.books) * (ROW + 6)
    parts = [_grid(night, height)]
    for number, book in enumerate(night.books):
        top = number * (ROW + 6)
        parts.append(_name(book.unit.label, top + 13, book.unit.name))
        parts += [_strip(night, book, one, top) for one in _seen(book)]
    return _svg("Where the time went", height, *parts)


def gantt(night: Night) -> tuple[str, int]:
    """Return a row per run and a block per segment; and how many runs are shown."""
    rows = _rows(night)
    height = max(len(rows), 1) * ROW
    parts = [_grid(night, height)]
    if len(night.books) == 1:
        for gap in night.gaps:
            title = f"idle {stretch(night, gap.slice)}, {duration(gap.slice.seconds)}: {gap.text}"
            parts.append(_block(night, gap.slice.from_s, gap.slice.to_s, 0, height, "band f-orange", title))
    for number, run_id in enumerate(rows):
        run = night.runs[run_id]
        parts.append(_name(run.name, number * ROW + 13, f"{run.name} ({run.id}): {run.state}, {run.reason}"))
    places = {run_id: number for number, run_id in enumerate(rows)}
    for segment, stay in zip(night.segments, night.stays, strict=True):
        if segment.run_id in places:
            parts += _segment(night, segment, stay, places[segment.run_id] * ROW + 3)
    return _svg("What ran when", height, *parts), len(rows)


def use_chart(night: Night, readings: Readings) -> str:
    """Return use and temperature of one GPU, with the limit."""
    parts = [_grid(night, _CHART), _scale("100 % · 100 °C", 10), _scale("0", _CHART)]
    if readings.limit_c is not None:
        y = _CHART * (1 - readings.limit_c / 100)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, cls="limit s-red"))
        limit = element("text", f"limit {readings.limit_c} °C", x=WIDTH - RIGHT, y=y - 4, text_anchor="end")
        parts.append(limit)
    parts += _tracks(readings.use, 100, "blue", "use in percent")
    parts += _tracks(readings.temp_c, 100, "orange", "temperature in °C")
    return _svg(f"{readings.unit.label}: use and temperature", _CHART, *parts)


def memory_chart(night: Night, readings: Readings) -> str:
    """Return VRAM and power of one GPU, each to a scale of its own; empty where neither was read."""
    watts = [one for one in readings.power_w if one is not None]
    used = [one for one in readings.used_mib if one is not None]
    if not watts and not used:
        return ""
    most_mib = float(readings.total_mib or max(used, default=1.0))
    most_w = max([*watts, 1.0])
    scales = [f"{most_mib / 1024:.1f} GiB"] * bool(used) + [f"{most_w:.0f} W"] * bool(watts)
    parts = [_grid(night, _CHART), _scale(" · ".join(scales), 10), _scale("0", _CHART)]
    parts += _tracks(readings.used_mib, most_mib, "purple", "VRAM")
    parts += _tracks(readings.power_w, most_w, "green", "power")
    return _svg(f"{readings.unit.label}: VRAM and power", _CHART, *parts)


def key(*pairs: tuple[str, str]) -> str:
    """Return a legend: colour and what it stands for."""
    entries = (
        element("span", element("span", cls=f"key b-{colour}"), said(text), cls="entry")
        for colour, text in pairs
    )
    return element("p", " ".join(entries), cls="note")


def _svg(title: str, height: float, *parts: str) -> str:
    svg = element("svg", *parts, viewBox=f"0 0 {WIDTH} {height + 18:.0f}", role="img", aria_label=title)
    return element("div", svg, cls="scroll", tabindex=0)


def _x(night: Night, at_s: float) -> float:
    share = at_s / max(night.axis.length_s, 1.0)
    return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


def _grid(night: Night, height: float) -> str:
    return "".join(
        element("line", x1=x, x2=x, y1=0, y2=height, cls="grid")
        + element("text", text, x=x, y=height + 13, text_anchor="middle")
        for x, text in ((_x(night, at_s), label(night, at_s)) for at_s in _ticks(night))
    )


def _ticks(night: Night) -> Iterator[float]:
    """Yield round times. They are counted by the local clock, which shows some hours twice and others not at all."""
    length_s = night.axis.length_s
    most = _MOST_TICKS if length_s <= 24 * HOUR_S else _MOST_TICKS // 2
    step_s = next((one for one in _STEPS_S if length_s / one <= most), length_s / most)
    local = time.localtime(night.since_s)
    since_midnight_s = local.tm_hour * HOUR_S + local.tm_min * 60 + local.tm_sec + night.since_s % 1
    at_s = step_s - since_midnight_s % step_s
    while at_s < length_s - step_s / 20:
        if at_s > step_s / 20:
            yield at_s
        at_s += step_s


def _scale(text: str, y: float) -> str:
    return element("text", said(text), x=LEFT - 6, y=y, text_anchor="end")


def _name(text: str, y: float, title: str) -> str:
    shown = said(text, NAME_COLUMNS)
    return element(
        "text", shown, element("title", said(title, 400)), x=LEFT - 6, y=y, text_anchor="end", cls="name"
    )


def _block(
    night: Night, from_s: float, to_s: float, top: float, height: float, cls: str, title: str, radius: int = 0
) -> str:
    left = _x(night, from_s)
    width = max(_x(night, to_s) - left - (0.6 if radius else 0.0), 1.2 if radius else 0.0)
    return element(
        "rect",
        element("title", said(title, 600)),
        x=left,
        y=top,
        width=width,
        height=height,
        rx=radius or None,
        cls=cls,
    )


def _seen(book: Book) -> Iterator[Slice]:
    """Yield the slices to be drawn. None is narrower than a dot where there are many."""
    if len(book.slices) <= MANY_SLICES:
        yield from book.slices
        return
    least_s = book.slices[-1].to_s / (WIDTH - LEFT - RIGHT)
    begin_s, within = 0, dict.fromkeys(Account, 0)
    for one in book.slices:
        within[one.account] += one.seconds
        if one.to_s - begin_s >= least_s or one is book.slices[-1]:
            most = max(within, key=lambda account: within[account])
            yield Slice(begin_s, one.to_s, most, one.reasons if one.account is most else ())
            begin_s, within = one.to_s, dict.fromkeys(Account, 0)


def _strip(night: Night, book: Book, part: Slice, top: float) -> str:
    why = "; ".join(one.text for one in part.reasons)
    title = f"{book.unit.label}, {stretch(night, part)}, {duration(part.seconds)}: {part.account}"
    colour = palette.ACCOUNTS[part.account]
    faint = "band " if part.account in (Account.IDLE, Account.ASLEEP) else ""
    title = f"{title}, {why}" if why else title
    return _block(night, part.from_s, part.to_s, top, ROW, f"{faint}f-{colour}", title)


def _segment(night: Night, segment: SegmentRecord, stay: Stay, top: float) -> Iterator[str]:
    """Yield a block for each turn of a segment, and a thin one where it was suspended."""
    colour = (
        palette.ALIVE if segment.outcome is None else palette.OUTCOMES.get(segment.outcome, palette.ALIVE)
    )
    name = night.runs[segment.run_id].name
    ended = "running" if segment.outcome is None else f"{segment.outcome}: {segment.reason or ''}"
    for turn in turns(stay):
        lived = f"{label(night, turn.from_s)}, {duration(turn.to_s - turn.from_s)}"
        title = f"{name}, segment {segment.number}, {lived}; {ended}"
        yield _block(night, turn.from_s, turn.to_s, top, ROW - 5, f"f-{colour}", title, radius=2)
    for from_s, to_s in stay.away:
        title = f"{name}, segment {segment.number}, suspended at {label(night, from_s)}, {duration(to_s - from_s)}"
        yield _block(night, from_s, to_s, top + SUSPENDED_AT, SUSPENDED_HEIGHT, "f-yellow", title)


def _rows(night: Night) -> list[str]:
    """Return the ids of the runs to be shown, in the order of their first segments. Where they are too many, the best
    and those that failed come before others, then those that were there last."""
    known = [one.run_id for one in night.segments if one.run_id in night.runs]
    rows = list(dict.fromkeys(known))
    if len(rows) <= MOST_ROWS:
        return rows
    best = [run.id for run, _ in night.ranking.places[:3]]
    failed = [run_id for run_id in rows if night.runs[run_id].state is State.FAILED]
    chosen = set(list(dict.fromkeys((*best, *failed, *reversed(known))))[:MOST_ROWS])
    return [run_id for run_id in rows if run_id in chosen]


def _tracks(track: Track, most: float, colour: str, title: str) -> Iterator[str]:
    """Yield a line for each stretch in which there were readings."""
    step = (WIDTH - LEFT - RIGHT) / len(track)
    for points in _stretches(track):
        told = " ".join(
            f"{LEFT + (at + 0.5) * step:.1f},{_CHART * (1 - min(value / most, 1.0)):.1f}"
            for at, value in points
        )
        yield element("polyline", element("title", title), points=told, cls=f"curve s-{colour}")


def _stretches(track: Track) -> Iterator[Sequence[tuple[int, float]]]:
    points: list[tuple[int, float]] = []
    for at, value in enumerate(track):
        if value is not None:
            points.append((at, value))
        elif points:
            yield points
            points = []
    if points:
        yield points
