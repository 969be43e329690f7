"""`backprop list`: lists runs and their progress: on a terminal what runs and what is next, else the newest first."""

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import open_existing
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import brief_option
from backprop.cli.options.numbers import whole
from backprop.cli.render import answers
from backprop.cli.render.json_views import duration, is_terminal, print_json, run_view
from backprop.scheduler.lifecycle import HOLDS_A_SLOT, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.filters import Filters

DEFAULT_LIMIT: Final = 50
SORTS: Final = ("age", "name", "state", "step", "loss", "segments", "ended", "turn")
PARAMETER: Final = "param:"
DAY_S: Final = 86_400.0
LEAST_ROWS: Final = 6
AROUND: Final = 4
"""Lines of a screen beside the rows: the head, the count of the rest, the night, the prompt."""
WATCH_S: Final = 2.0


class SortBy(click.ParamType[str]):
    """One of `SORTS`, or a parameter of a sweep."""

    name = "sort"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what is neither."""
        key = str(value).removeprefix(PARAMETER)
        if value not in SORTS and (not str(value).startswith(PARAMETER) or not key or '"' in key):
            self.fail(f"'{value}' is not one of {', '.join(SORTS)}, or param:KEY of a sweep", param, ctx)
        return str(value)


@click.command(name="list")
@click.argument("which", nargs=-1, metavar="[STATE]...", type=click.Choice([state.value for state in State]))
@run_selection.filter_options
@click.option(
    "--sort",
    type=SortBy(),
    metavar="BY",
    help=f"One of {', '.join(SORTS)}, or param:KEY of a sweep. Newest or highest first; loss and parameters sort"
    " lowest first; turn shows the queue in order.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@click.option(
    "-n",
    "--limit",
    type=whole(),
    metavar="N",
    help="Show N runs (0 = all).  [default: what fits the screen; 50 elsewhere]",
)
@click.option("-l", "--long", "with_ids", is_flag=True, help="Show ids, and the curve of the loss.")
@click.option("--watch", "watched", is_flag=True, help="Refresh every two seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@brief_option
def command(
    which: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    limit: int | None,
    with_ids: bool,
    watched: bool,
    as_json: bool,
    brief: bool,
    **values: Any,
) -> None:
    """List runs. On a terminal: what runs, what is next, what failed or is held since yesterday, and how many more.

    In a pipe, or with a STATE, --state, --sort or --reverse: one flat list, the newest first.
    """
    from backprop.scheduler.store.reads import metrics, queries

    if which and values["state"] is None:
        values["state"] = ",".join(which)
    filters = run_selection.filters_of(values)
    home, database = open_existing()
    if as_json or brief:
        runs = _flat(database, filters, sort, reverse, DEFAULT_LIMIT if limit is None else limit)
        newest = (
            queries.newest_checkpoints(database, [run.id for run in runs]) if database is not None else {}
        )
        views = [run_view(run, last_checkpoint=newest.get(run.id)) for run in runs]
        if brief:
            last = metrics.latest_of_each(database, [run.id for run in runs]) if database is not None else {}
            click.echo(json.dumps([answers.brief_run(view, last.get(view["id"], {})) for view in views]))
        else:
            print_json(views)
        return
    overview = is_terminal(sys.stdout) and not filters.states and sort is None and not reverse

    def lines() -> "Sequence[str]":
        if database is None:
            return []
        if overview:
            return _overview(home, database, filters, limit, with_ids)
        most = DEFAULT_LIMIT if limit is None else limit
        return _flat_lines(database, filters, sort, reverse, most, with_ids)

    if watched:
        from backprop.cli.live.watch import watch

        watch(lines, WATCH_S)
        return
    shown = lines()
    if database is None or not shown:
        _print_none(database, filters)
        return
    for line in shown:
        click.echo(line)
    if not overview:
        _print_more(database, filters, DEFAULT_LIMIT if limit is None else limit, len(shown) - 1)


def _overview(
    home: "Home", database: "Database", filters: "Filters", limit: int | None, with_ids: bool
) -> "Sequence[str]":
    """Return the overview as lines, none where no run passes."""
    from backprop.cli.render import outlook
    from backprop.cli.render.box_ends import boxes_left
    from backprop.cli.render.run_rows import RIGHT, Picture, rows_of
    from backprop.cli.render.tables import table_lines
    from backprop.scheduler.store.reads import listing, queries
    from backprop.scheduler.store.reads.filters import Sort, with_states

    now_s = time.time()
    room = limit if limit is not None else max(shutil.get_terminal_size().lines - AROUND, LEAST_ROWS)
    most = room or None
    filters = listing.looked_up(database, filters)
    counts = listing.counts_by_state(database, filters)
    if not counts:
        return []
    live = listing.list_runs(database, with_states(filters, tuple(HOLDS_A_SLOT)), limit=most)
    queued = listing.list_runs(database, filters, Sort.TURN, limit=most)
    recent = listing.recently_ended(database, filters, (State.FAILED, State.HELD), now_s - DAY_S, most)
    if not room or len(live) + len(queued) + len(recent) < room:
        # There is room for what went well, too.
        left = max(room - len(live) - len(queued) - len(recent), 0) or None
        well = (State.COMPLETED, State.STOPPED, State.TIMEBOXED)
        recent += listing.recently_ended(database, filters, well, 0.0, left)
    segments = {segment.run_id: segment for segment in queries.live_segments(database)[1]}
    ahead = outlook.outlook(home, database, now_s) if live or queued else None
    eta: dict[str, str] = {}
    if ahead is not None and ahead.told is not None:
        eta = {run.id: outlook.end_words(ahead, run.id, now_s) for run in (*live, *queued)}
    left_s = boxes_left(home, [*live, *queued], list(segments.values()), now_s)
    at_most = listing.COUNTED if listing.is_common(filters) else None
    picture = Picture(live, queued, recent, segments, counts, eta, left_s, at_most)
    picture = picture.cut(room or sum(counts.values()))
    columns, rows = rows_of(picture, now_s, with_ids)
    if with_ids:
        columns, rows = _with_curves(database, columns, rows, picture.shown)
    rest = picture.rest()
    table = table_lines(columns, rows, RIGHT) if rows else []
    words = outlook.night_words(ahead, now_s) if ahead is not None else None
    more = f"… {'and ' if rows else ''}{rest}; all: backprop list --sort age -n 0"
    return [*table, *([more] if rest else []), *([words] if words is not None else [])]


def _flat(
    database: "Database | None", filters: "Filters", sort: str | None, reverse: bool, limit: int
) -> "list[RunRecord]":
    from backprop.scheduler.store.reads import listing
    from backprop.scheduler.store.reads.filters import Sort

    if database is None:
        return []
    filters = listing.looked_up(database, filters)
    by = sort or SORTS[0]
    if by.startswith(PARAMETER):
        key = by.removeprefix(PARAMETER)
        return listing.list_runs(database, filters, reverse=reverse, limit=limit or None, parameter=key)
    return listing.list_runs(database, filters, Sort(by), reverse, limit or None)


def _flat_lines(
    database: "Database", filters: "Filters", sort: str | None, reverse: bool, limit: int, with_curves: bool
) -> "Sequence[str]":
    from backprop.cli.render import run_rows
    from backprop.cli.render.tables import table_lines
    from backprop.scheduler.home.credentials import masked_value

    runs, now_s = _flat(database, filters, sort, reverse, limit), time.time()
    keys = run_rows.parameters(runs)
    rows = [
        (
            run.id,
            run.name,
            run.state.value,
            str(run.segment),
            run_rows.step(run),
            run_rows.loss(run),
            duration(now_s - run.created_at_s),
            *(masked_value(key, run.spec.params.get(key, "-")) for key in keys),
            run.reason,
        )
        for run in runs
    ]
    columns = ("ID", "NAME", "STATE", "SEG", "STEP", "LOSS", "AGE", *keys, "REASON")
    if with_curves:
        columns, rows = _with_curves(database, columns, rows, runs)
    return table_lines(columns, rows, ("SEG", "STEP", "LOSS", "AGE")) if rows else []


def _with_curves(
    database: "Database",
    columns: tuple[str, ...],
    rows: list[tuple[str, ...]],
    runs: "Sequence[RunRecord]",
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the same with a small curve behind each loss. `runs`: of the rows, in their order."""
    from backprop.cli.render.plots import sparkline, style_of
    from backprop.scheduler.store.reads import recent

    plain = style_of(sys.stdout).plain
    curves = recent.curves(database, [run.id for run in runs])
    at = columns.index("LOSS") + 1
    return (*columns[:at], "CURVE", *columns[at:]), [
        (*row[:at], sparkline(curves.get(run.id, []), plain=plain), *row[at:])
        for run, row in zip(runs, rows, strict=True)
    ]


def _print_none(database: "Database | None", filters: "Filters") -> None:
    from backprop.scheduler.store.reads import listing

    if filters.given and database is not None and listing.list_runs(database, limit=1):
        click.echo("no run matches", err=True)
        return
    click.echo("no runs yet; queue one with: backprop run SCRIPT", err=True)


def _print_more(database: "Database", filters: "Filters", limit: int, shown: int) -> None:
    from backprop.scheduler.store.reads import listing

    if not limit or shown != limit:
        return
    more = listing.count(database, filters, limit + listing.COUNTED + 1) - limit
    if more > 0:
        text = f"{more} more" if more <= listing.COUNTED else f"more than {listing.COUNTED:,} more"
        click.echo(f"… and {text}; show all with -n 0", err=True)
