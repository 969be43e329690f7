"""Tables that line up: cut to the width of a terminal, whole in a pipe, without colour where none is wanted."""

import sys
from collections.abc import Sequence
from typing import Final

import click

from backprop.cli.safe import safe
from backprop.cli.views import is_terminal

PIPE_WIDTH: Final = 10_000
STATE_STYLE: Final = {
    "running": "cyan",
    "paused": "yellow",
    "held": "yellow",
    "completed": "green",
    "failed": "red",
    "timeboxed": "magenta",
    "stopped": "dim",
}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print rows under their columns. `right`: columns of numbers. The last column is cut first.

    Cells go through `safe`; a cell that is the name of a state gets its colour.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    tty = is_terminal(sys.stdout)
    console = Console(width=None if tty else PIPE_WIDTH, highlight=False, soft_wrap=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        last = column == columns[-1]
        justify = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis", min_width=8 if last else None,
                         ratio=1 if last and tty else None)  # fmt: skip
    for row in rows:
        table.add_row(*(Text(safe(cell), style=STATE_STYLE.get(cell, "")) for cell in row))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def print_pairs(pairs: Sequence[tuple[str, str]], indent: str = "") -> None:
    """Label and value, lined up, values whole."""
    width = max((len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        click.echo(f"{indent}{label:<{width}}  {safe(value)}".rstrip())
