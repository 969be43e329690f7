"""`backprop release RUN…`: let held runs start again."""

from typing import Any, Final

import click

from backprop.cli import select
from backprop.cli.session import global_options, globals_of, need_existing

WHY: Final = "only a held run can be released"


@click.command(name="release")
@select.run_arguments
@global_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Put held RUNs back into the queue, at the places they had."""
    from backprop.scheduler import bulk
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import State
    from backprop.worker.wake import wake_workers

    home, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    picked = select.pick(ctx, database, runs, select.filters_of(values), {State.HELD}, "released")
    if given.dry_run:
        return select.rehearse(picked, "release", WHY, IllegalMove.exit_code)
    released = set(bulk.release(database, [one.id for one in picked.able]))
    wake_workers(home.locks)
    done = [one for one in picked.able if one.id in released]
    select.report(
        done,
        f"released {select.counted(len(done))}",
        lambda one: f"released {select.who(one)}",
        bulk=picked.bulk,
        every=given.verbose,
    )
    return select.refuse(
        [*picked.refused, *(one for one in picked.able if one.id not in released)],
        WHY,
        IllegalMove.exit_code,
    )
