"""`backprop rm RUN…`: deletes runs with everything that Backprop stores about them."""

from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.render import answers

if TYPE_CHECKING:
    from backprop.worker.maintenance.removal import RemovedRun

WHY: Final = "it is alive; stop it first: backprop stop"


@click.command(name="rm")
@run_selection.run_arguments
@verb_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Delete RUNs that have ended, are held or queued: their logs, folders, backups and rows.

    Checkpoints and all other files that the scripts wrote stay where they are.
    """
    from backprop.cli.render.json_views import size
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.store.writes.deletion import REMOVABLE, WAITING
    from backprop.worker.maintenance import removal

    home, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    picked = run_selection.pick(ctx, database, runs, run_selection.filters_of(values), REMOVABLE, "removed")
    if given.dry_run:
        return run_selection.rehearse(picked, "remove", WHY, IllegalMove.exit_code)
    waiting = any(one.state in WAITING for one in picked.able)
    gone = removal.remove(home, database, [one.id for one in picked.able], waiting=waiting)
    answers.current().more = {"freed_bytes": gone.freed_bytes}
    ids = set(gone.ids)
    done = [one for one in picked.able if one.id in ids]
    run_selection.report(
        done,
        f"removed {run_selection.counted(len(done))}, {size(gone.freed_bytes)} freed",
        lambda one: f"removed {run_selection.who(one)}",
        bulk=picked.bulk,
        every=given.verbose,
    )
    refused = run_selection.refuse(picked.refused, WHY, IllegalMove.exit_code)
    return report_kept(gone) or refused


def report_kept(gone: "RemovedRun") -> int:
    """Print which runs were kept and why; return the exit code, 0 when there is none."""
    from backprop.scheduler.errors import IllegalMove

    for run_id, by in gone.needed.items():
        answers.refuse(run_id, f"run {run_id} is needed by {by}, which waits for it; remove {by} first")
    for run_id in gone.alive:
        answers.refuse(run_id, f"processes of run {run_id} are still alive; see: backprop show {run_id}")
    for run_id in gone.moved:
        answers.refuse(run_id, f"run {run_id} changed state just now; see: backprop show {run_id}")
    return IllegalMove.exit_code if gone.needed or gone.alive or gone.moved else 0
