"""`backprop plot`: draws a metric of runs in the terminal."""

from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.help.completion import complete_runs
from backprop.cli.options.numbers import whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backprop.cli.render.plots import Curve
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen

HEIGHT: Final = 16
MOST_CURVES: Final = 8
MOST_POINTS: Final = 2000
JSON_POINTS: Final = 50
EPILOG: Final = """\b
Examples:
  backprop plot 3fa2                       its loss over its steps, segments marked below
  backprop plot sweep --metric accuracy    the members of a group, the first eight
  backprop plot 3fa2 9bc1 --x time
  backprop plot 3fa2 9bc1 --metric val_bpb --json --points 0     the two compared, for a program
"""


@click.command(name="plot", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_runs)
@click.option("--metric", default="loss", show_default=True, metavar="NAME", help="What to draw.")
@click.option(
    "--x",
    "across",
    type=click.Choice(["step", "time"]),
    default="step",
    show_default=True,
    help="What to draw it over; time in minutes since the first value.",
)
@click.option("--height", type=click.IntRange(4, 60), default=HEIGHT, show_default=True, metavar="ROWS",
              help="Rows of the plot.")  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md: also to compare runs."
)
@click.option("--points", type=whole(high=MOST_POINTS), default=JSON_POINTS, show_default=True, metavar="N",
              help="With --json: at most N values of each curve.")  # fmt: skip
def command(runs: tuple[str, ...], metric: str, across: str, height: int, as_json: bool, points: int) -> None:
    """Draw a metric of RUNs: ids, names or groups."""
    from backprop.scheduler.store.reads import selection
    from backprop.scheduler.store.reads.filters import NO_FILTERS

    _, database = need_existing()
    chosen = selection.choose(database, runs, NO_FILTERS)
    if as_json:
        import json

        from backprop.cli.render.curve_json import curves_json

        click.echo(json.dumps(curves_json(database, [one.id for one in chosen], metric, across, points)))
        return
    _draw(database, chosen, metric, across, height)


def _draw(database: "Database", chosen: "Sequence[Chosen]", metric: str, across: str, height: int) -> None:
    import sys

    from backprop.cli.render.plots import COLOURS, plot, style_of, width_of
    from backprop.cli.render.terminal_text import safe
    from backprop.scheduler.errors import UnknownRun
    from backprop.scheduler.store.reads import metrics

    curves: list[Curve] = []
    for one in chosen:
        curve = _curve(database, one.id, one.name, metric, across)
        if curve is not None and len(curves) < MOST_CURVES:
            curves.append(curve)
    if not curves:
        known = metrics.all_names(database, [one.id for one in chosen[:MOST_CURVES]])
        told = f"it has {', '.join(map(safe, known))}" if known else "it has none; see: backprop logs RUN"
        raise UnknownRun(f"no {metric} was reported by what you named; {told}")
    style = style_of(sys.stdout)
    for line in plot(curves, width_of(sys.stdout), height, "min" if across == "time" else across, style):
        click.echo(line, color=True)
    for number, curve in enumerate(curves):
        mark = chr(ord("a") + number) if style.plain else "━━"
        colour = f"\x1b[{COLOURS[number % len(COLOURS)]}m{mark}\x1b[0m" if style.colour else mark
        click.echo(f"{colour} {safe(curve.name, 120)}", color=True)
    if len(chosen) > len(curves):
        click.echo(f"… {len(chosen) - len(curves)} of {len(chosen)} runs are not drawn", err=True)


def _curve(database: "Database", run_id: str, name: str, metric: str, across: str) -> "Curve | None":
    """Return the curve of one run; None where it has no value."""
    from backprop.cli.render.plots import curve_of, short
    from backprop.scheduler.store.reads import metrics

    rows = metrics.curve(database, run_id, metric)
    return curve_of(rows, f"{name} ({run_id}): {short(rows[-1][2])}", across) if rows else None
