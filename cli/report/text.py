"""Writes a night as text of at most a given width, 80 columns or more: what needs the user first."""

import textwrap
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.cli.render.json_views import duration, number, size
from backprop.cli.render.plots import LEAST_WIDTH, Style, sparkline
from backprop.cli.render.tables import STATE_STYLE
from backprop.cli.render.terminal_text import padded, safe
from backprop.cli.report.books import Account, Book
from backprop.cli.report.needs import NeedOfUser
from backprop.cli.report.night import GAP_S, Gap, Night, label, stretch
from backprop.cli.report.readings import Readings
from backprop.cli.report.sweep import SweepParameter
from backprop.cli.report.unknowns import unknowns
from backprop.scheduler.lifecycle import State

SHOWN_GAPS: Final = 8
SHOWN_UNITS: Final = 8
SHOWN_NEEDS: Final = 12
SHOWN_BEST: Final = 5
CLOCK_SET: Final = "The clock was set meanwhile: times are as it showed, durations as they passed."
INDENT: Final = "  "
_LABEL: Final = 7
_SGR: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "magenta": "35",
}
_DAY_S: Final = 86400


class Shown(msgspec.Struct, frozen=True):
    """What the text is made of. `curves`: run id → the values of the ranking's metric."""

    night: Night
    needs: Sequence[NeedOfUser]
    readings: Sequence[Readings]
    curves: dict[str, list[float]]
    sweep: Sequence[SweepParameter]


def lines(shown: Shown, width: int, style: Style) -> list[str]:
    """Return the report, line by line. None is longer than `width`, where that is `LEAST_WIDTH` or more."""
    width = max(width, LEAST_WIDTH)
    sections = [
        _needs(shown.needs, width, style),
        *(_unit(book, shown, width, style) for book in shown.night.books[:SHOWN_UNITS]),
        _books(shown.night, width, style),
        _gaps(shown.night, width, style),
        _best(shown, width, style),
        _sweep(shown, width, style),
        _disk(shown.night),
    ]
    found = [_coloured(safe(headline(shown.night), width), "bold", style)]
    if shown.night.axis.was_set:
        found.append(CLOCK_SET)
    for section in sections:
        if section:
            found += ["", *section]
    return found


def headline(night: Night) -> str:
    """Return when it was and what became of the runs, in one line."""
    counts = f"{night.completed} completed · {night.counts.get(State.FAILED, 0)} failed · {night.unfinished} unfinished"
    return f"{span(night)}   {counts}"


def sentence(night: Night) -> str:
    """Return the one thing to know."""
    if not night.ended and not night.unfinished and not night.runs:
        return "Nothing ran"
    total = night.ended + night.unfinished
    done = f"{night.completed} of {total} run{'' if total == 1 else 's'} completed"
    failed = night.counts.get(State.FAILED, 0)
    return f"{done}, {failed} failed" if failed else done


def span(night: Night) -> str:
    """Return the time that the report is of, with the day of its end where that is another one."""
    begin, end = time.localtime(night.since_s), time.localtime(night.until_s)
    last = "%H:%M" if night.until_s - night.since_s < _DAY_S else "%a %d %b %H:%M"
    return f"{time.strftime('%a %d %b %H:%M', begin)}–{time.strftime(last, end)}"  # noqa: RUF001


def _needs(needs: Sequence[NeedOfUser], width: int, style: Style) -> list[str]:
    if not needs:
        return [_coloured("Nothing needs you", "green", style)]
    found = [_coloured("Needs you", "bold", style)]
    for need in needs[:SHOWN_NEEDS]:
        mark = ("x" if style.plain else "✗") if need.bad else "!"
        text = safe(f"{need.title}: {need.text}", width * 2)
        first, *others = textwrap.wrap(text, width - 4, max_lines=2, placeholder=" …") or [""]
        mark = _coloured(f"{INDENT}{mark} ", "red" if need.bad else "yellow", style)
        found.append(mark + safe(first, width - 4))
        found += [f"{INDENT * 2}{safe(line, width - 4)}" for line in others]
        found += [f"{INDENT * 3}{safe(command, width - 6)}" for command in need.commands]
    if len(needs) > SHOWN_NEEDS:
        found.append(f"{INDENT}… and {len(needs) - SHOWN_NEEDS} more; see --json")
    return found


def _unit(book: Book, shown: Shown, width: int, style: Style) -> list[str]:
    """Show one GPU: its numbers, and how busy it was over the night. Of a place for runs only whether one was there."""
    night, readings = shown.night, next((one for one in shown.readings if one.unit == book.unit), None)
    facts = [f"busy {100 * book.busy_share:.0f} %"]
    if readings is not None:
        facts += readings.facts()
    name = book.unit.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    found = [safe("  ".join([f"{book.unit.label}  {name}".rstrip(), *facts]), width)]
    room = width - _LABEL
    if readings is not None and any(value is not None for value in readings.use):
        found.append(f"{'use':<{_LABEL}}" + sparkline(readings.use, room, 0, 100, plain=style.plain).rstrip())
    else:
        found.append(
            f"{'runs':<{_LABEL}}" + sparkline(_busy(book, room), room, 0, 1, plain=style.plain).rstrip()
        )
    quarters = [label(night, night.axis.length_s * part / 4) for part in range(4)]
    return [*found, (" " * _LABEL + "".join(f"{quarter:<{room // 4}}" for quarter in quarters)).rstrip()]


def _busy(book: Book, width: int) -> list[float]:
    """Return for each column which share of its time a run was there."""
    length = max(sum(one.seconds for one in book.slices), 1)
    shares = [0.0] * width
    for one in book.slices:
        if one.account in (Account.IDLE, Account.ASLEEP):
            continue
        for column in range(one.from_s * width // length, min((one.to_s - 1) * width // length + 1, width)):
            begin, end = column * length / width, (column + 1) * length / width
            shares[column] += max(min(end, one.to_s) - max(begin, one.from_s), 0) / (end - begin)
    return shares


def _books(night: Night, width: int, style: Style) -> list[str]:
    """Show where the time of each unit went; the accounts add up to the night."""
    accounts = [
        one
        for one in Account
        if one is not Account.SUSPENSION or any(book.total(one) for book in night.books)
    ]
    names = [*(account.value for account in accounts), "in all"]
    least = 9 if len(accounts) < len(Account) else 7
    columns = [max(len(name) + 1, least) for name in names]
    head = "".join(f"{name:>{column}}" for name, column in zip(names, columns, strict=True))
    found = [_coloured(f"{'':<{_LABEL}}{head}", "bold", style)]
    for book in night.books:
        totals = [book.total(account) for account in accounts]
        cells = zip((*totals, sum(totals)), columns, strict=True)
        found.append(
            f"{book.unit.label:<{_LABEL}}" + "".join(f"{_time(one):>{width}}" for one, width in cells)
        )
    found += [_coloured(safe(unknown, width), "dim", style) for unknown in unknowns(night)]
    return found if night.books and len(found[0]) <= width + 8 else []


def _time(seconds: int) -> str:
    return "-" if not seconds else duration(seconds).removesuffix(".0s") + ("s" if seconds < 60 else "")


def _gaps(night: Night, width: int, style: Style) -> list[str]:
    if not night.gaps:
        return []
    found = [_coloured(f"Idle for {GAP_S} s or more", "bold", style)]
    longest = sorted(night.gaps, key=lambda one: -one.slice.seconds)[:SHOWN_GAPS]
    for gap in sorted(longest, key=lambda one: (one.slice.from_s, one.unit.index)):
        found.append(safe(f"{INDENT}{gap.unit.label:<7} {when(night, gap)}  {gap.text}", width))
    if len(night.gaps) > len(longest):
        rest_s = sum(one.slice.seconds for one in night.gaps) - sum(one.slice.seconds for one in longest)
        found.append(
            f"{INDENT}… and {len(night.gaps) - len(longest)} shorter ones, {duration(rest_s)} in all"
        )
    return found


def when(night: Night, gap: Gap) -> str:
    """Return from when to when a gap was, and how long."""
    return f"{stretch(night, gap.slice)} {duration(gap.slice.seconds):>7}"


def _best(shown: Shown, width: int, style: Style) -> list[str]:
    ranking = shown.night.ranking
    if not ranking.places:
        return []
    of = f" of {shown.night.group}" if shown.night.group is not None else ""
    best = ranking.places[:SHOWN_BEST]
    head = f"Best {len(best)}{of} by {ranking.metric}" if len(best) > 1 else f"Best{of} by {ranking.metric}"
    found = [_coloured(safe(head, width), "bold", style)]
    name_width = width - 58
    for place, (run, value) in enumerate(best, 1):
        curve = sparkline(shown.curves.get(run.id, []), 16, plain=style.plain)
        step = "" if run.last_step is None else f"step {run.last_step:,}"
        state = _coloured(f"{run.state.value:<10}", STATE_STYLE.get(run.state.value, ""), style)
        told = f"{padded(run.name, name_width)} {number(value):>9}  {curve:<16}  {state} {safe(step, 13)}"
        found.append(f"{INDENT}{place}  {told}".rstrip())
    return found


def _sweep(shown: Shown, width: int, style: Style) -> list[str]:
    if not shown.sweep:
        return []
    head = f"Parameters, each value with the median of {shown.night.ranking.metric} and its runs"
    found = [_coloured(safe(head, width), "bold", style)]
    for one in shown.sweep:
        values = safe("   ".join(_values(one, width - 18)), width - 18)
        found.append(f"{INDENT}{padded(one.name, 14)}  {values}".rstrip())
    return found


def _values(parameter: SweepParameter, room: int) -> list[str]:
    """Return the values of a parameter from the best on, as many as there is room for."""
    rows = [f"{safe(row.value, 20)} {number(row.median)} ({row.runs})" for row in parameter.marginals]
    while len("   ".join(rows)) > room and len(rows) > 1:
        rows = [*rows[:-2], "…"] if rows[-1] == "…" else [*rows[:-1], "…"]
    return rows


def _disk(night: Night) -> list[str]:
    least = "" if night.disk.whole else "at least "
    return [f"Disk   {least}{size(night.disk.total_bytes)} in {safe(str(night.home.root), 50)}"]


def _coloured(text: str, name: str, style: Style) -> str:
    code = _SGR.get(name)
    return f"\x1b[{code}m{text}\x1b[0m" if style.colour and code else text
