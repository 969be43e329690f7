"""Prints aligned tables: cut to the width of a terminal, whole in a pipe, coloured only where colour is wanted."""

import sys
from collections.abc import Sequence
from typing import Final

import click

from backprop.cli.render.json_views import is_terminal
from backprop.cli.render.terminal_text import safe

PIPE_WIDTH: Final = 10_000
GAP: Final = 2
LAST_LEAST: Final = 16
TEXT_LEAST: Final = 12
"""Other text columns shrink to this before the last one, mostly a sentence, shrinks below `LAST_LEAST`."""
STATE_STYLE: Final = {
    "queued": "",
    "submitted": "",
    "running": "cyan",
    "paused": "yellow",
    "suspended": "yellow",
    "held": "yellow",
    "completed": "green",
    "failed": "red",
    "timeboxed": "magenta",
    "stopped": "dim",
}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print `table_lines`."""
    for line in table_lines(columns, rows, right):
        click.echo(line)


def table_lines(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[str] = (),
    whole: bool = False,
) -> list[str]:
    """Return rows under their column names, as lines. `right`: right-aligned columns, never cut. `whole`: as in a pipe,
    also on a terminal.

    Cells are made `safe`. A cell that begins with the name of a state gets that state's colour.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    tty = is_terminal(sys.stdout) and not whole
    console = Console(
        width=None if tty else PIPE_WIDTH,
        force_terminal=False if whole else None,
        highlight=False,
        soft_wrap=False,
    )
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = _widths(columns, cells, [column not in right for column in columns], console.width)
    for column, width in zip(columns, widths, strict=True):
        justify = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        table.add_row(*(Text(cell, style=STATE_STYLE.get(cell, "")) for cell in row))
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[bool], room: int
) -> list[int]:
    """Return the width of each column. If they do not fit, the last one shrinks first, then the widest text columns."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    over = sum(widths) + GAP * (len(widths) - 1) - room
    last = len(widths) - 1
    others = sorted((at for at in range(last) if text[at]), key=lambda at: -widths[at])
    for at, least in ((last, LAST_LEAST), *((at, TEXT_LEAST) for at in others), (last, 1)):
        cut = min(max(over, 0), max(widths[at] - least, 0))
        widths[at] -= cut
        over -= cut
    return widths


def print_pairs(pairs: Sequence[tuple[str, str]], indent: str = "") -> None:
    """Print labels and values in two columns, values uncut."""
    width = max((len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        click.echo(f"{indent}{label:<{width}}  {safe(value)}".rstrip())
