"""`backprop logs RUN…`: prints the output of scripts."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.exit_codes import INTERRUPTED
from backprop.cli.options import run_selection
from backprop.cli.options.numbers import whole
from backprop.cli.render.json_views import is_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backprop.cli.live.log_stream import LogStream
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen

POLL_S: Final = 0.3
TERMINAL_LINES: Final = 50
TAIL_LINES: Final = 40


@click.command(name="logs")
@run_selection.run_arguments
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Keep printing new output, through all segments, until the run has ended.",
)
@click.option("--segment", type=whole(1), metavar="N", help="Only segment N.  [default: all]")
@click.option(
    "-n",
    "--lines",
    type=whole(),
    metavar="N",
    help="Only the last N lines of each run (0 = all).  [default: 50 on a terminal, all elsewhere]",
)
@click.option("--raw", is_flag=True, help="Don't filter escape sequences.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The last lines as JSON: 40 unless -n says otherwise, at most 8 KB.",
)
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    follow: bool,
    segment: int | None,
    lines: int | None,
    raw: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Print the output of RUN, of all segments or one; on a terminal the last lines.

    Without RUN and filters: of the run that was started last, of those that live if any does. With several RUNs, each
    line starts with the run's name. A terminal is told how each segment ended, in dim lines.
    """
    from backprop.scheduler.errors import UnknownRun
    from backprop.scheduler.lifecycle import State

    if as_json and (follow or raw):
        raise click.UsageError("--json goes with neither --follow nor --raw", ctx)
    home, database = need_existing()
    filters = run_selection.filters_of(values)
    if not runs and not filters.given:
        runs = _last_started(database)
    picked = run_selection.pick(ctx, database, runs, filters, set(State), "shown")
    found = picked.able
    if len(found) == 1 and segment is not None and segment > found[0].segment:
        raise UnknownRun(f"run {found[0].id} has no segment {segment}, only {found[0].segment}")
    if as_json:
        tails = [_tail(home, one, segment, TAIL_LINES if lines is None else lines) for one in found]
        click.echo(json.dumps(tails))
        return 0
    if len(found) == 1 and not found[0].segment and not follow:
        click.echo(f"run {found[0].id} has not started yet ({_reason(database, found[0].id)})", err=True)
        return 0
    if lines is None:
        lines = TERMINAL_LINES if is_terminal(sys.stdout) and segment is None else 0
    if follow:
        shown = [(one, _stream(home, database, one, found, segment, raw, follow, lines)) for one in found]
        return _follow(database, shown, segment)
    for one in found:
        if one.segment >= (segment or 1):
            _stream(home, database, one, found, segment, raw, follow, lines).finish(segment)
    return 0


def _last_started(database: "Database") -> tuple[str, ...]:
    """Return the live run that was started last, else the run that ended last, and say which; none where none ran."""
    from backprop.cli.render.terminal_text import safe
    from backprop.scheduler.store.reads import listing, queries
    from backprop.scheduler.store.reads.filters import Sort

    live = sorted(queries.live_runs(database), key=lambda run: run.started_at_s or 0.0)
    run = next(iter(live[-1:] or listing.list_runs(database, sort=Sort.ENDED, limit=1)), None)
    if run is None or not run.segment:
        return ()
    click.echo(f"{safe(run.name)} ({run.id}), {run.state}:", err=True)
    return (run.id,)


def _tail(home: "Home", one: "Chosen", segment: int | None, lines: int) -> dict[str, Any]:
    """Return the last lines of a run as JSON; no text where it has not started, or not that segment."""
    from backprop.cli.live.last_text import last_text

    shown = segment or one.segment
    text, whole = "", True
    if 0 < shown <= one.segment:
        text, whole = last_text(home, one.id, shown, lines)
    return {
        "id": one.id,
        "name": one.name,
        "state": one.state.value,
        "segment": shown or None,
        "text": text,
        "whole": whole,
    }


def _stream(
    home: "Home",
    database: "Database",
    one: "Chosen",
    among: "Sequence[Chosen]",
    segment: int | None,
    raw: bool,
    follow: bool,
    lines: int,
) -> "LogStream":
    from backprop.cli.live.log_stream import LogStream, last_lines

    marks = segment is None and one.segment != 1
    first, skip = segment or 1, 0
    if lines and one.segment:
        first, skip = last_lines(home, one.id, segment or one.segment, lines, alone=segment is not None)
    return LogStream(
        home,
        one.id,
        first,
        sys.stdout.buffer,
        raw=raw,
        marks=marks or follow,
        prefix=_prefix(one, among),
        skip=skip,
        end_of=lambda number: _end(database, one.id, number),
    )


def _end(database: "Database", run_id: str, number: int) -> str | None:
    """Return how a segment ended; None for one that lives, or is not on record."""
    from backprop.scheduler.store.reads import queries

    row = queries.segment(database, run_id, number)
    return row.reason or row.outcome if row is not None and row.outcome is not None else None


def _prefix(one: "Chosen", among: "Sequence[Chosen]") -> str | None:
    """Return the name that starts each line, with the id where several runs share the name; None for one run alone."""
    if len(among) == 1:
        return None
    return f"{one.name}/{one.id}" if sum(other.name == one.name for other in among) > 1 else one.name


def _reason(database: "Database", run_id: str) -> str:
    from backprop.scheduler.store.reads import queries

    run = queries.run_by_id(database, run_id)
    return run.reason if run is not None else "it was removed"


def _follow(database: "Database", shown: "list[tuple[Chosen, LogStream]]", segment: int | None) -> int:
    from backprop.cli.live.follow import has_ended, run_now
    from backprop.scheduler.store.reads import queries

    left = list(shown)
    try:
        while left:
            for one, stream in tuple(left):
                ended = has_ended(run_now(database, one.id))
                if segment is not None and not ended:
                    row = queries.segment(database, one.id, segment)
                    ended = row is not None and row.outcome is not None
                stream.pump(segment)
                if ended:
                    stream.finish(segment)
                    left.remove((one, stream))
            if left:
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
