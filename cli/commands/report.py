"""`backprop report`: shows what became of a night, as text, as one HTML file or as JSON."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.help.completion import complete_groups
from backprop.cli.options.global_options import global_options, globals_of

if TYPE_CHECKING:
    from backprop.cli.report.text import Shown
    from backprop.scheduler.store.connection import Database

LEAST_EVERY_S: Final = 5
EPILOG: Final = """\b
Examples:
  backprop report                                  the last ten hours
  backprop report --since last                     since the report before this one
  backprop report --html night.html --open         in the browser
  backprop report --html /srv/night.html --every 60     a page that stays up to date
"""


@click.command(name="report", epilog=EPILOG)
@click.option(
    "--since",
    default="10h",
    show_default=True,
    metavar="TIME",
    help="From then on: last (the report before), 10h (ago; w, d, h, m, s), 22:00, 2026-11-20T22:00.",
)
@click.option("--group", metavar="NAME", shell_complete=complete_groups, help="Members of this group alone.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one HTML file that needs nothing else, whole or not at all.",
)
@click.option("--open", "show", is_flag=True, help="Open the file in the browser.")
@click.option(
    "--every",
    type=click.IntRange(min=LEAST_EVERY_S),
    metavar="SECONDS",
    help="Write the file again and again, until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")  # fmt: skip
@click.option("--brief", is_flag=True, help="As JSON in short: counts, what needs you, the best runs.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    since: str,
    group: str | None,
    html: Path | None,
    show: bool,
    every: int | None,
    as_json: bool,
    brief: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
) -> None:
    """Show what became of the night: what needs you, where the time went, which runs are best."""
    from backprop.cli.report import period
    from backprop.scheduler.errors import UnknownRun
    from backprop.scheduler.store.reads import nights

    if html is None and (show or every is not None):
        raise click.UsageError("--open and --every need --html FILE", ctx)
    if html is not None and (as_json or brief):
        raise click.UsageError("--html and --json disagree; give one of them", ctx)
    if html is not None and str(html) == "-" and (show or every is not None):
        raise click.UsageError("--open and --every need a file, not -", ctx)
    dry = globals_of(ctx, config, verbose, dry_run).dry_run
    home, database = need_existing()
    if group is not None and not nights.has_members(database, group):
        raise UnknownRun(f"no run is in a group named {group}; see: backprop groups")
    now_s = time.time()
    span = (period.begin_s(home, since, now_s), now_s)
    if html is not None:
        _write(database, span, group, html, every, dry)
        if show and not dry:
            _open(html)
    elif as_json or brief:
        _print_json(database, span, group, brief)
    else:
        _print(shown_of(database, span, group))
    if dry:
        return
    period.remember(home, now_s)
    if html is not None and every is not None:
        database.close()
        _go_on(since, span[0], group, html, every)


def _go_on(since: str, since_s: float, group: str | None, file: Path, every: int) -> None:
    """Write the page again and again. No trouble ends that: a page that is looked at in the morning has to be there."""
    from backprop.cli.report import period
    from backprop.scheduler.errors import BackpropError

    while True:
        time.sleep(every)
        try:
            # Opened anew each time: a worker may have repaired the database, and so replaced it.
            home, database = need_existing()
            try:
                now_s = time.time()
                if since.strip().lower() != period.LAST:
                    since_s = period.begin_s(home, since, now_s)
                _write(database, (since_s, now_s), group, file, every)
            finally:
                database.close()
        except (BackpropError, click.UsageError) as error:
            click.echo(f"backprop: {error}; trying again in {every} s", err=True)


def shown_of(database: "Database", span: tuple[float, float], group: str | None) -> "Shown":
    """Return what the report of a span of time is made of: Unix seconds from and to. Raises DatabaseBusy."""
    from backprop.cli.report import needs, night, readings, sweep
    from backprop.cli.report.text import SHOWN_BEST, Shown
    from backprop.scheduler.store.reads import metrics

    read = night.read_night(database, *span, group)
    best = [run for run, _ in read.ranking.places[:SHOWN_BEST]]
    curves = {
        run.id: [value for _, _, value, _ in metrics.curve(database, run.id, read.ranking.metric)]
        for run in best
    }
    found = needs.find(read, database)
    return Shown(read, found, readings.read_all(read), curves, sweep.marginals(read.ranking))


def _print(shown: "Shown") -> None:
    import sys

    from backprop.cli.render.plots import style_of, width_of
    from backprop.cli.report.text import lines

    for line in lines(shown, width_of(sys.stdout), style_of(sys.stdout)):
        click.echo(line, color=True)


def _print_json(database: "Database", span: tuple[float, float], group: str | None, brief: bool) -> None:
    from backprop.cli.render.json_views import print_json
    from backprop.cli.report import as_json

    shown = shown_of(database, span, group)
    view = as_json.view(shown.night, shown.needs, shown.readings, shown.sweep)
    if brief:
        import json

        click.echo(json.dumps(as_json.brief(view)))
        return
    print_json(view)


def _write(
    database: "Database",
    span: tuple[float, float],
    group: str | None,
    file: Path,
    every: int | None,
    dry_run: bool = False,
) -> None:
    from backprop.cli.render.export import deliver
    from backprop.cli.report.page import page

    deliver(page(shown_of(database, span, group), database, refresh_s=every), file, dry_run=dry_run)


def _open(file: Path) -> None:
    if click.launch(str(file.absolute())) != 0:
        click.echo(f"no browser could be started here; open it yourself: {file.absolute()}", err=True)
