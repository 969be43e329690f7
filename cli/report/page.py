"""Makes the page of a night: one HTML file that needs nothing else, without a script, for a light or dark screen."""

from collections.abc import Iterator, Sequence
from typing import Final

from backprop.cli.render.json_views import duration, number, size
from backprop.cli.report import curves, palette, timeline
from backprop.cli.report.books import Account
from backprop.cli.report.markup import element, said
from backprop.cli.report.needs import NeedOfUser
from backprop.cli.report.night import GAP_S, Night, stretch
from backprop.cli.report.sweep import SweepParameter
from backprop.cli.report.text import CLOCK_SET, Shown, sentence, span
from backprop.cli.report.unknowns import unknowns
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.connection import Database

RANKED: Final = 20
SHOWN_GAPS: Final = 40
SHOWN_NEEDS: Final = 60
_LONG: Final = {"run", "why", "value"}
"""Columns of which a cell may hold anything."""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(shown: Shown, database: Database, refresh_s: int | None = None) -> str:
    """Return the page. `refresh_s`: the browser reads the file again so often. Raises DatabaseBusy."""
    night = shown.night
    title = sentence(night)
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", http_equiv="refresh", content=refresh_s) if refresh_s is not None else "",
        element("title", said(f"{title}: {span(night)}")),
        element("style", palette.style_sheet()),
    ]
    body = [
        element("h1", said(title)),
        element("p", said(_subtitle(night)), cls="sub"),
        element("p", said(CLOCK_SET), cls="note") if night.axis.was_set else "",
        element("div", *_tiles(night), cls="tiles"),
        *_needs(shown.needs),
        *_time(shown),
        *_gpus(shown),
        *_results(shown, database),
        *_sweep(shown.sweep, night.ranking.metric),
        *_disk(night),
    ]
    inner = (
        element("head", *head)
        + "\n"
        + element("body", element("main", "\n".join(part for part in body if part)))
    )
    return f'<!doctype html>\n<html lang="en">{inner}</html>\n'


def _subtitle(night: Night) -> str:
    told = [span(night)]
    told += [f"{book.unit.label} {book.unit.name}" for book in night.books if book.unit.name][:4]
    told += [f"group {night.group}"] if night.group is not None else []
    if night.ranking.places:
        best, value = night.ranking.places[0]
        told.append(f"best {best.name} at {night.ranking.metric} {number(value)}")
    return " · ".join(told)


def _tiles(night: Night) -> Iterator[str]:
    failed = night.counts.get(State.FAILED, 0)
    yield _tile(str(night.completed), "completed")
    yield _tile(str(failed), "failed", "red" if failed else None)
    yield _tile(str(night.unfinished), "still to do")
    if night.books:
        busy = sum(book.busy_share for book in night.books) / len(night.books)
        what = "the GPUs were" if len(night.books) > 1 else "the GPU was"
        what = what if night.books[0].unit.uuid is not None else "the places for runs were"
        yield _tile(f"{busy:.0%}".replace("%", " %"), f"of the time {what} in use")
        yield _tile(
            duration(night.lost_s),
            f"of {duration(night.trained_s)} redone after {len(night.segments)} segments",
        )


def _tile(value: str, text: str, colour: str | None = None) -> str:
    return element(
        "div",
        element("b", said(value), cls=f"t-{colour}" if colour else None),
        element("span", said(text)),
        cls="tile",
    )


def _needs(needs: Sequence[NeedOfUser]) -> Iterator[str]:
    yield element("h2", "What needs you")
    if not needs:
        yield element("p", "Nothing.", cls="note")
        return
    rows = [
        element(
            "li",
            element("b", said(one.title, 300)),
            f": {said(one.text, 600)}",
            element("div", *(element("code", said(command)) for command in one.commands))
            if one.commands
            else "",
            cls="bad" if one.bad else None,
        )
        for one in needs[:SHOWN_NEEDS]
    ]
    yield element("ul", *rows, cls="needs")
    if len(needs) > SHOWN_NEEDS:
        yield element("p", f"… and {len(needs) - SHOWN_NEEDS} more; see backprop report --json", cls="note")


def _time(shown: Shown) -> Iterator[str]:
    night = shown.night
    yield _heading("Where the time went", "each second of each unit is in one account; hover for the reason")
    yield timeline.books_chart(night)
    yield timeline.key(*((palette.ACCOUNTS[account], account.value) for account in Account))
    head = ["", *(account.value for account in Account), "in all"]
    rows = [
        [book.unit.label, *(duration(book.total(account)) if book.total(account) else "-" for account in Account),
         duration(sum(one.seconds for one in book.slices))]
        for book in night.books
    ]  # fmt: skip
    yield _table(head, rows, range(1, len(head)))
    yield from (element("p", said(unknown), cls="note") for unknown in unknowns(night))
    if night.segments:
        chart, count = timeline.gantt(night)
        yield _heading("What ran when", "each block is a segment; hover for why it ended")
        yield chart
        outcomes = dict.fromkeys(
            palette.OUTCOMES.get(one.outcome or "", palette.ALIVE) for one in night.segments
        )
        yield timeline.key(*((colour, _outcomes(colour)) for colour in outcomes))
        total = len({one.run_id for one in night.segments})
        if count < total:
            yield element("p", f"{count} of {total:,} runs are shown.", cls="note")
    if night.gaps:
        yield _heading("Idle", f"for {GAP_S} s or more, the longest first")
        longest = sorted(night.gaps, key=lambda gap: -gap.slice.seconds)[:SHOWN_GAPS]
        gaps = [
            [gap.unit.label, stretch(night, gap.slice), duration(gap.slice.seconds), gap.text]
            for gap in longest
        ]
        yield _table(["", "when", "for", "why"], gaps, [2])


def _outcomes(colour: str) -> str:
    """Return the outcomes that a colour stands for."""
    if colour == palette.ALIVE:
        return "running"
    return {
        "red": "failed, ended for a fault",
        "orange": "lost or not started",
        "purple": "yielded or stopped",
    }.get(colour, next(name for name, one in palette.OUTCOMES.items() if one == colour))


def _gpus(shown: Shown) -> Iterator[str]:
    for readings in shown.readings:
        yield _heading(f"{readings.unit.label} {readings.unit.name}", ", ".join(readings.facts()))
        yield timeline.use_chart(shown.night, readings)
        yield timeline.key(("blue", "use"), ("orange", "temperature"))
        if chart := timeline.memory_chart(shown.night, readings):
            yield chart
            yield timeline.key(("purple", "VRAM"), ("green", "power"))


def _results(shown: Shown, database: Database) -> Iterator[str]:
    night = shown.night
    drawn = curves.charts(night, database)
    left = [
        _heading(chart.metric, f"{chart.shown} runs; best three green, failed red") + chart.svg
        for chart in drawn
    ]
    right = _ranking(night) if night.ranking.places else ""
    yield element("div", element("div", *left), element("div", right), cls="two") if drawn else right


def _ranking(night: Night) -> str:
    ranking = night.ranking
    rows = [
        [str(place), run.name, number(value), "-" if run.last_step is None else f"{run.last_step:,}",
         str(run.segment), run.state.value]
        for place, (run, value) in enumerate(ranking.places[:RANKED], 1)
    ]  # fmt: skip
    head = ["", "run", ranking.metric, "step", "segments", "state"]
    return _heading(f"Ranking by {ranking.metric}", "") + _table(head, rows, [0, 2, 3, 4])


def _sweep(sweep: Sequence[SweepParameter], metric: str) -> Iterator[str]:
    if not sweep:
        return
    yield _heading("Parameters", f"what the runs with each value came to, by the median of {metric}")
    rows = [
        [one.name if not number_ else "", row.value, str(row.runs), number(row.best), number(row.median)]
        for one in sweep
        for number_, row in enumerate(one.marginals)
    ]
    yield _table(["parameter", "value", "runs", "best", "median"], rows, [2, 3, 4])


def _disk(night: Night) -> Iterator[str]:
    yield _heading("Disk", "")
    least = "" if night.disk.whole else "at least "
    yield element("p", said(f"{least}{size(night.disk.total_bytes)} in {night.home.root}"), cls="note")


def _heading(text: str, note: str) -> str:
    return element("h2", said(text, 120), " ", element("small", said(note, 200)) if note else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    def cell(kind: str, at: int, text: str) -> str:
        state = palette.STATES.get(text) if kind == "td" and head[at] == "state" else None
        long = "long" if kind == "td" and head[at] in _LONG else None
        cls = "n" if at in right else f"t-{state}" if state else long
        return element(kind, said(text, 300), cls=cls)

    lines = [element("tr", *(cell("th", at, text) for at, text in enumerate(head)))]
    lines += [element("tr", *(cell("td", at, text) for at, text in enumerate(row))) for row in rows]
    return element("div", element("table", *lines), cls="scroll")
