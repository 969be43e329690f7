"""`backprop unsuspend RUN…`: lets suspended runs go on in their turn."""

from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from backprop.cli.context import need_existing
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import globals_of, verb_options

if TYPE_CHECKING:
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen

WHY: Final = "only a run that its user has suspended can be let go on"


@click.command(name="unsuspend")
@run_selection.run_arguments
@click.option("--all", "every", is_flag=True, help="All suspended runs.")
@verb_options
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    every: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Let RUNs go on that `backprop suspend` has suspended: in their turn, where they stood or have saved."""
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import HAS_PROCESSES, State
    from backprop.scheduler.store.reads import queries
    from backprop.scheduler.store.writes import suspensions
    from backprop.worker.wakeup import wake_workers

    home, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    states = HAS_PROCESSES | {State.HELD, State.QUEUED}
    filters = run_selection.filters_or_all(values, states if every else ())
    picked = run_selection.pick(ctx, database, runs, filters, states, "let go on")
    asked = queries.suspended_by_users(database)
    wrong = [one for one in picked.able if one.named and one.id not in asked]
    able = [one for one in picked.able if one.id in asked]
    picked = msgspec.structs.replace(picked, able=able, refused=[*picked.refused, *wrong])
    if given.dry_run:
        return run_selection.rehearse(picked, "unsuspend", WHY, IllegalMove.exit_code)
    freed = set(suspensions.unask(database, [one.id for one in picked.able]))
    wake_workers(home.locks)
    done = [one for one in picked.able if one.id in freed]
    run_selection.report(
        done,
        f"let {run_selection.counted(len(done))} go on",
        _line,
        bulk=picked.bulk,
        every=given.verbose,
    )
    late = [one for one in picked.able if one.id not in freed and one.named]
    return run_selection.refuse([*picked.refused, *late], WHY, IllegalMove.exit_code)


def one_run(home: "Home", database: "Database", run_id: str) -> str:
    """Let one suspended run go on; return in words what was done. Raises UnknownRun, IllegalMove, DatabaseBusy."""
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.store.writes import suspensions
    from backprop.worker.wakeup import wake_workers

    one = run_selection.by_id(database, run_id)
    if not suspensions.unask(database, [run_id]):
        raise IllegalMove(f"run {one.id} is {one.state}; {WHY}")
    wake_workers(home.locks)
    return _line(one)


def _line(one: "Chosen") -> str:
    return f"{run_selection.who(one)} goes on in its turn"
