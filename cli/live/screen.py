"""Draws the frame of `backprop top`: GPUs, what runs with its box and its loss, what is next, what has just ended.

Pure: a picture of the queue in, lines of exactly fitting width out, never more of them than asked for. Where room is
short, the GPUs fold to one line, then the events go, then what is next. Where a run is chosen, it is marked, and the
runs around it are shown.
"""

import io
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from backprop.cli.render.glyphs import Glyphs
from backprop.cli.render.tables import STATE_STYLE
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

BAR: Final = 8
CURVE: Final = 12
BESIDE_NAME: Final = 80
"""Columns that all else of a run takes at most."""
HEAT_NEAR_C: Final = 5
FEW_GPUS: Final = 4
"""Shown a line each where a screen has 24 lines; in proportion on others."""
EVENTS: Final = 6
WIDE: Final = 100


class GpuLine(msgspec.Struct, frozen=True):
    """One GPU now. `history`: percent, oldest first."""

    index: int
    name: str
    utilisation_pct: int | None
    used_mib: int | None
    total_mib: int | None
    temp_c: int | None
    limit_c: int
    history: Sequence[int] = ()


class RunLine(msgspec.Struct, frozen=True):
    """One run. `box_share`: of its box that is gone, if it has one. `where`: what is left of the box, or its turn."""

    id: str
    name: str
    state: str
    segment: int
    where: str
    box_share: float | None = None
    step: str = "-"
    percent: int | None = None
    loss: str = "-"
    curve: Sequence[float] = ()
    eta: str = ""


class EventLine(msgspec.Struct, frozen=True):
    """A segment that ended. `kind`: good, again or bad."""

    at_s: float
    name: str
    kind: str
    text: str


EMPTY: Final = "nothing is queued; queue a run with: backprop run SCRIPT"


class Screen(msgspec.Struct, frozen=True):
    """All that is drawn. `waiting`: how many runs wait for their turn, of which `queued` are the next. `night`: when
    all will have ended. `notes`: what is wrong. `host`: its free RAM and load. `empty`: said where there is no run."""

    now_s: float
    counts: Sequence[tuple[str, int]]
    gpus: Sequence[GpuLine]
    live: Sequence[RunLine]
    queued: Sequence[RunLine]
    waiting: int
    events: Sequence[EventLine]
    night: str | None = None
    notes: Sequence[str] = ()
    host: str = ""
    empty: str = EMPTY

    @property
    def runs(self) -> Sequence[RunLine]:
        """Return the runs that can be chosen, in the order in which they are shown."""
        return [*self.live, *self.queued]


KINDS: Final = {"good": "green", "again": "blue", "bad": "red"}


def draw(
    screen: Screen, width: int, height: int, glyphs: Glyphs, colour: bool, chosen: str | None = None
) -> list[str]:
    """Return the frame as at most `height` lines of at most `width` columns. `chosen`: the id of the run to mark."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=colour,
        color_system="256" if colour else None,
        highlight=False,
        legacy_windows=False,
    )
    head: list[Text] = [_head(screen, glyphs), *(_note(note, glyphs) for note in screen.notes[:2])]
    if screen.night is not None:
        head.append(_text(glyphs.text(screen.night), "bold"))
    gpus = _gpus(screen, glyphs, width, height)
    live = screen.live[: max(height - len(head) - len(gpus) - 2, 1)]
    left = height - len(head) - len(gpus) - len(live) - 2
    # The events take at most a third of what is left: what is next matters more.
    events = screen.events[: min(EVENTS, max(left // 3, 0))] if left >= EVENTS else ()
    left -= len(events) + (1 if events else 0)
    queued = screen.queued[: max(left - 1, 0)]
    runs = _around(screen.runs, len(live) + len(queued), chosen)
    ids = {run.id for run in screen.queued}
    more = screen.waiting - sum(run.id in ids for run in runs)
    with console.capture() as captured:
        for line in (*head, *gpus):
            console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
        if runs:
            console.print()
            console.print(_table(runs, glyphs, width, chosen))
        if more > 0 and left > 0:
            word = "more queued" if queued else "queued"
            console.print(_text(glyphs.text(f"… {more:,} {word}"), "dim"))
        if not runs and not more:
            console.print(_text(glyphs.text(safe(screen.empty)), "dim"))
        if events:
            console.print()
            for event in events:
                console.print(_event(event, glyphs), no_wrap=True, overflow="ellipsis", crop=True)
    return [line.rstrip() for line in captured.get().splitlines()][:height]


def _around(runs: Sequence[RunLine], room: int, chosen: str | None) -> Sequence[RunLine]:
    """Return so many runs: the first ones, or those around the chosen one where it is further down."""
    at = next((place for place, run in enumerate(runs) if run.id == chosen), 0)
    first = min(max(at - room // 2, 0), max(len(runs) - room, 0))
    return runs[first : first + room]


def _text(words: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text(words, style=style)


def _head(screen: Screen, glyphs: Glyphs) -> "Text":
    line = _text("backprop ", "bold")
    line.append(time.strftime("%a %H:%M:%S  ", time.localtime(screen.now_s)))
    dot = glyphs.text(" · ")
    for at, (state, count) in enumerate(screen.counts):
        line.append(dot if at else "")
        line.append(f"{count:,} {state}", STATE_STYLE.get(state, ""))
    if not screen.counts:
        line.append("no runs yet")
    if screen.host:
        line.append(f"   {glyphs.text(screen.host)}", "dim")
    return line


def _note(note: str, glyphs: Glyphs) -> "Text":
    return _text(glyphs.text(safe(note)), "yellow")


def _gpus(screen: Screen, glyphs: Glyphs, width: int, height: int) -> "list[Text]":
    shown = max(FEW_GPUS * height // 24, 1)
    if len(screen.gpus) <= shown:
        return [_gpu(one, glyphs, width) for one in screen.gpus]
    line = _text(f"{len(screen.gpus)} GPUs ", "bold")
    for one in screen.gpus:
        level = glyphs.curve([one.utilisation_pct or 0], 1, top=100.0)
        line.append(f" {one.index}", "dim")
        line.append(level, "cyan")
        if one.temp_c is not None:
            line.append(f"{one.temp_c}", _heat(one))
    line.append(glyphs.text(" °C"), "dim")
    return [line]


def _gpu(one: GpuLine, glyphs: Glyphs, width: int) -> "Text":
    cells = BAR if width < WIDE else 2 * BAR
    line = _text(f"GPU {one.index} ", "bold")
    line.append(f"{safe(one.name, cells + 4):<{cells + 4}} ")
    if one.utilisation_pct is not None:
        full, empty = glyphs.bar(one.utilisation_pct / 100, cells)
        line.append(full, "cyan").append(empty, "dim").append(f" {one.utilisation_pct:>3} %  ")
    if one.used_mib is not None and one.total_mib:
        full, empty = glyphs.bar(one.used_mib / one.total_mib, cells)
        line.append(full, "magenta").append(empty, "dim")
        line.append(f" {one.used_mib / 1024:>4.1f}/{one.total_mib / 1024:.1f} GiB  ")
    if one.temp_c is not None:
        line.append(glyphs.text(f"{one.temp_c} °C"), _heat(one)).append(f"/{one.limit_c}  ", "dim")
    return line.append(glyphs.curve(one.history, max(width - line.cell_len, 0), top=100.0), "cyan")


def _heat(one: GpuLine) -> str:
    temp_c = one.temp_c or 0
    return "red" if temp_c >= one.limit_c else "yellow" if temp_c >= one.limit_c - HEAT_NEAR_C else "green"


def _table(runs: Sequence[RunLine], glyphs: Glyphs, width: int, chosen: str | None) -> "Table":
    from rich.cells import cell_len
    from rich.table import Table

    curves = any(run.curve for run in runs) and width >= 76
    percents = any(run.percent is not None for run in runs)
    etas = any(run.eta for run in runs)
    # On a wide screen what is told of a run stands beside its name.
    is_wide = max((cell_len(glyphs.text(safe(run.name))) for run in runs), default=0) + BESIDE_NAME < width
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", expand=not is_wide)
    if chosen is not None:
        table.add_column("", no_wrap=True, width=1)
    table.add_column("RUN", ratio=None if is_wide else 1, no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("STATE", no_wrap=True)
    table.add_column("SEG", justify="right", no_wrap=True)
    table.add_column("THIS BOX", no_wrap=True, overflow="ellipsis")
    table.add_column("STEP", justify="right", no_wrap=True)
    if percents:
        table.add_column("%", justify="right", no_wrap=True)
    table.add_column("LOSS", justify="right", no_wrap=True)
    if curves:
        table.add_column("CURVE", no_wrap=True, width=CURVE)
    if etas:
        table.add_column("ETA", justify="right", no_wrap=True)
    for run in runs:
        style = STATE_STYLE.get(run.state, "")
        box = _text("")
        if run.box_share is not None:
            full, empty = glyphs.bar(run.box_share, BAR)
            box.append(full, "cyan").append(f"{empty} ", "dim")
        box.append(glyphs.text(run.where), "" if run.box_share is not None else "dim")
        table.add_row(
            *([glyphs.chosen if run.id == chosen else ""] if chosen is not None else []),
            _text(glyphs.text(safe(run.name))),
            _text(run.state, style),
            str(run.segment),
            box,
            run.step,
            *([("-" if run.percent is None else str(run.percent))] if percents else []),
            run.loss,
            *([_text(glyphs.curve(run.curve, CURVE), "green" if style else "dim")] if curves else []),
            *([glyphs.text(run.eta)] if etas else []),
            style="reverse" if run.id == chosen else None,
        )
    return table


def _event(event: EventLine, glyphs: Glyphs) -> "Text":
    sign = {"good": glyphs.good, "again": glyphs.again, "bad": glyphs.bad}[event.kind]
    line = _text(time.strftime("%H:%M ", time.localtime(event.at_s)), "dim")
    line.append(f"{sign} ", KINDS[event.kind]).append(glyphs.text(safe(event.name)))
    return line.append("  ").append(glyphs.text(safe(event.text)), "dim")
