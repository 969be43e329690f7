"""`backprop move RUN…`: moves waiting runs within the queue."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.help.completion import complete_runs
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import globals_of, verb_options

if TYPE_CHECKING:
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.store.connection import Database

WHY: Final = "only a waiting run can be moved"


@click.command(name="move")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_runs)
@click.option("--first", is_flag=True, help="To the very front, whatever the priorities.")
@click.option("--last", is_flag=True, help="To the very back.")
@click.option(
    "--before", metavar="OTHER", shell_complete=complete_runs, help="Right before this waiting run."
)
@click.option("--after", metavar="OTHER", shell_complete=complete_runs, help="Right after it.")
@verb_options
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    first: bool,
    last: bool,
    before: str | None,
    after: str | None,
    config: str | None,
    verbose: bool,
    dry_run: bool,
) -> int:
    """Move waiting RUNs (ids, names, groups) within the queue, in the order given; they get the priority there.

    This positions only the next segment. Afterwards a run takes turns with the others as before.
    """
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.reads import queries
    from backprop.scheduler.store.reads.filters import NO_FILTERS
    from backprop.scheduler.store.writes import ordering
    from backprop.scheduler.store.writes.ordering import TargetSlot
    from backprop.worker.wakeup import wake_workers

    positions = [
        (where, other)
        for where, given, other in (
            (TargetSlot.FIRST, first, None),
            (TargetSlot.LAST, last, None),
            (TargetSlot.BEFORE, before is not None, before),
            (TargetSlot.AFTER, after is not None, after),
        )
        if given
    ]
    if len(positions) != 1:
        raise click.UsageError(
            "no position given: use one of --first, --last, --before OTHER, --after OTHER", ctx
        )
    where, other = positions[0]
    home, database = need_existing()
    states = {State.QUEUED, State.HELD, State.SUSPENDED}
    picked = run_selection.pick(ctx, database, runs, NO_FILTERS, states, "moved")
    given = globals_of(ctx, config, verbose, dry_run)
    if given.dry_run:
        return run_selection.rehearse(picked, "move", WHY, IllegalMove.exit_code)
    other_id = queries.find_run(database, other).id if other is not None else None
    ids = _in_order(database, runs, [one.id for one in picked.able])
    moved = set(ordering.move_to(database, ids, where, other_id, time.time()))
    wake_workers(home.locks)
    done = {one.id: one for one in picked.able if one.id in moved}
    in_order = [done[run_id] for run_id in ids if run_id in done]
    return run_selection.conclude(
        picked, in_order, "moved {}", lambda one: f"moved {run_selection.who(one)}", WHY, every=given.verbose
    )


def one_to_the_front(home: "Home", database: "Database", run_id: str) -> str:
    """Move one waiting run to the very front; return in words what was done. Raises UnknownRun, IllegalMove,
    DatabaseBusy."""
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.store.writes import ordering
    from backprop.worker.wakeup import wake_workers

    one = run_selection.by_id(database, run_id)
    if not ordering.move_to(database, [run_id], ordering.TargetSlot.FIRST, None, time.time()):
        raise IllegalMove(f"run {one.id} is {one.state}; {WHY}")
    wake_workers(home.locks)
    return f"moved {run_selection.who(one)} to the front of the queue"


def _in_order(database: "Database", words: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Return the ids in the order of the words, members of a group in the order of the queue."""
    from backprop.scheduler.store.reads import selection
    from backprop.scheduler.store.reads.filters import NO_FILTERS

    in_order: dict[str, None] = {}
    for word in words:
        matches = {run.id for run in selection.choose(database, [word], NO_FILTERS)}
        in_order |= dict.fromkeys(
            selection.in_queue_order(database, [run_id for run_id in ids if run_id in matches])
        )
    return list(in_order)
