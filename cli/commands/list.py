"""`backprop list`: lists runs and their progress."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli import run_selection
from backprop.cli.context import open_existing
from backprop.cli.render.json_views import NAN, duration, number, print_json, run_view
from backprop.cli.submit.numbers import whole

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.filters import Filters

DEFAULT_LIMIT: Final = 50
COUNTED: Final = 10_000
"""Rows counted at most: a million would take longer than all the rest."""
SORTS: Final = ("age", "name", "state", "step", "loss", "segments", "ended", "turn")


@click.command(name="list")
@run_selection.filter_options
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="age",
    show_default=True,
    metavar="BY",
    help=f"One of {', '.join(SORTS)}. Newest or highest first; loss sorts lowest first; turn shows the queue in order.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@click.option(
    "-n",
    "--limit",
    type=whole(),
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="N",
    help="Show N runs (0 = all).",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")  # fmt: skip
def command(sort: str, reverse: bool, limit: int, as_json: bool, **values: Any) -> None:
    """List runs, newest first."""
    from backprop.scheduler.store.reads import listing, queries
    from backprop.scheduler.store.reads.filters import Sort

    filters = run_selection.filters_of(values)
    _, database = open_existing()
    runs: list[RunRecord] = []
    if database is not None:
        runs = listing.list_runs(database, filters, Sort(sort), reverse, limit or None)
    if as_json:
        newest = (
            queries.newest_checkpoints(database, [run.id for run in runs]) if database is not None else {}
        )
        print_json([run_view(run, last_checkpoint=newest.get(run.id)) for run in runs])
        return
    if database is None or not runs:
        _print_none(database, filters)
        return
    _print(runs)
    if limit and len(runs) == limit:
        _print_more(database, filters, limit)


def _print(runs: "list[RunRecord]") -> None:
    from backprop.cli.render.tables import print_table

    now_s = time.time()
    rows = [
        (
            run.id,
            run.name,
            run.state.value,
            str(run.segment),
            "-"
            if run.last_step is None
            else f"{run.last_step}{f'/{run.step_total}' if run.step_total else ''}",
            "nan" if run.fault == NAN else number(run.last_loss),
            duration(now_s - run.created_at_s),
            run.reason,
        )
        for run in runs
    ]
    print_table(
        ("ID", "NAME", "STATE", "SEG", "STEP", "LOSS", "AGE", "REASON"), rows, ("SEG", "STEP", "LOSS", "AGE")
    )


def _print_none(database: "Database | None", filters: "Filters") -> None:
    from backprop.scheduler.store.reads import listing

    if filters.given and database is not None and listing.list_runs(database, limit=1):
        click.echo("no run matches", err=True)
        return
    click.echo("no runs yet; queue one with: backprop run SCRIPT", err=True)


def _print_more(database: "Database", filters: "Filters", limit: int) -> None:
    from backprop.scheduler.store.reads import listing

    more = listing.count(database, filters, limit + COUNTED + 1) - limit
    if more > 0:
        text = f"{more} more" if more <= COUNTED else f"more than {COUNTED:,} more"
        click.echo(f"… and {text}; show all with -n 0", err=True)
