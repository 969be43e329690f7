"""`backprop hold RUN…`: keep waiting runs from starting."""

from typing import Any, Final

import click

from backprop.cli import select
from backprop.cli.session import global_options, globals_of, need_existing

WHY: Final = "only a queued run can be held"


@click.command(name="hold")
@select.run_arguments
@global_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Hold queued RUNs: nothing starts them until `backprop release`."""
    from backprop.scheduler import bulk
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import State

    _, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    picked = select.pick(ctx, database, runs, select.filters_of(values), {State.QUEUED}, "held")
    if given.dry_run:
        return select.rehearse(picked, "hold", WHY, IllegalMove.exit_code)
    held = set(bulk.hold(database, [one.id for one in picked.able], "held by the user"))
    done = [one for one in picked.able if one.id in held]
    select.report(
        done,
        f"held {select.counted(len(done))}",
        lambda one: f"held {select.who(one)}",
        bulk=picked.bulk,
        every=given.verbose,
    )
    return select.refuse(
        [*picked.refused, *(one for one in picked.able if one.id not in held)],
        WHY,
        IllegalMove.exit_code,
    )
