"""`backprop prune`: deletes runs that ended long ago, or compresses their logs."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import open_existing, tell
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import Globals, globals_of, verb_options
from backprop.cli.options.numbers import whole
from backprop.cli.options.times import read_since
from backprop.cli.render import answers

if TYPE_CHECKING:
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen

EPILOG: Final = """\b
Examples:
  backprop prune --older-than 30d --keep-last 100 --dry-run
  backprop prune --older-than 7d --state failed,stopped
  backprop prune --compress-logs --older-than 1d        keeps everything, in less space
"""


@click.command(name="prune", epilog=EPILOG)
@click.option("--older-than", metavar="TIME", help="Ended before then: 30d (ago; w, d, h, m, s), or a date.")
@click.option("--keep-last", type=whole(), metavar="N", help="Keep the N runs that ended last.")
@click.option(
    "--compress-logs",
    is_flag=True,
    help="Delete nothing; compress logs instead. `backprop logs` still reads them.",
)
@run_selection.filter_options
@verb_options
@click.pass_context
def command(
    ctx: click.Context,
    older_than: str | None,
    keep_last: int | None,
    compress_logs: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Delete runs that have ended: their logs, folders, backups and rows. Checkpoints that scripts wrote stay.

    Runs that waiting runs depend on are kept.
    """
    if older_than is None and keep_last is None:
        raise click.UsageError("no limit given: use --older-than, --keep-last or both", ctx)
    given = globals_of(ctx, config, verbose, dry_run)
    before_s = read_since(older_than, time.time(), "--older-than") if older_than is not None else None
    filters = run_selection.filters_of(values)
    home, database = open_existing()
    if database is None:
        click.echo("nothing has been queued yet")
        return 0
    answers.current().database = database
    chosen = _chosen(database, filters, before_s, keep_last or 0)
    if compress_logs:
        return _compress(home, chosen, given)
    return _remove(home, database, chosen, given)


def _chosen(database: "Database", filters: Any, before_s: float | None, keep_last: int) -> "list[Chosen]":
    from backprop.scheduler.lifecycle import FINAL
    from backprop.scheduler.store.reads import selection
    from backprop.scheduler.store.writes import deletion

    found = {one.id: one for one in selection.choose(database, (), filters) if one.state in FINAL}
    return [found[run_id] for run_id in deletion.outlived(database, found, before_s, keep_last)]


def _remove(home: "Home", database: "Database", chosen: "list[Chosen]", given: Globals) -> int:
    import shutil

    from backprop.cli.commands.rm import report_kept
    from backprop.cli.render.json_views import size
    from backprop.worker.maintenance import removal

    never = removal.never_queued(home, database, time.time())
    if given.dry_run:
        freed = sum(removal.size_of(path) for path in [*never, *(home.run_folder(one.id) for one in chosen)])
        head = f"would remove {run_selection.counted(len(chosen))}, {size(freed)}"
        run_selection.report(chosen, head, _line, bulk=True, every=given.verbose, rehearsed=True)
        return 0
    freed = removal.sweep(home)
    for folder in never:
        freed += removal.size_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
    gone = removal.remove(home, database, [one.id for one in chosen], waiting=False)
    ids = set(gone.ids)
    done = [one for one in chosen if one.id in ids]
    answers.current().touch(done)
    answers.current().more = {"freed_bytes": freed + gone.freed_bytes}
    head = f"removed {run_selection.counted(len(done))}, {size(freed + gone.freed_bytes)} freed"
    run_selection.report(done if given.verbose else [], head, _line, bulk=True, every=True)
    return report_kept(gone)


def _compress(home: "Home", chosen: "list[Chosen]", given: Globals) -> int:
    from backprop.cli.render.json_views import size
    from backprop.worker.maintenance import log_archive

    if given.dry_run:
        logs = [path for one in chosen for path in log_archive.plain_logs(home.run_folder(one.id))]
        held = sum(path.stat().st_size for path in logs)
        click.echo(f"would compress {len(logs)} logs of {run_selection.counted(len(chosen))}, {size(held)}")
        return 0
    answers.current().touch(chosen)
    count, saved = log_archive.compress_all(home, [one.id for one in chosen])
    answers.current().more = {"freed_bytes": saved}
    tell(f"compressed {count} logs of {run_selection.counted(len(chosen))}, {size(saved)} freed")
    return 0


def _line(one: "Chosen") -> str:
    return f"{run_selection.who(one)}, {one.state}"
