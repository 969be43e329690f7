"""`backprop hold RUN…`: keeps queued runs from starting."""

from typing import Any, Final

import click

from backprop.cli import run_selection
from backprop.cli.context import need_existing
from backprop.cli.global_options import global_options, globals_of

WHY: Final = "only a queued run can be held"


@click.command(name="hold")
@run_selection.run_arguments
@global_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Hold queued RUNs: they do not start until `backprop release`."""
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.writes import user_requests

    _, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    filters = run_selection.filters_of(values)
    # One that waits for its files, held by a worker, is released by itself unless its user holds it.
    named = {State.QUEUED, State.HELD}
    picked = run_selection.pick(ctx, database, runs, filters, {State.QUEUED}, "held", named)
    if given.dry_run:
        return run_selection.rehearse(picked, "hold", WHY, IllegalMove.exit_code)
    held = set(user_requests.hold(database, [one.id for one in picked.able], "held by the user"))
    done = [one for one in picked.able if one.id in held]
    return run_selection.conclude(
        picked, done, "held {}", lambda one: f"held {run_selection.who(one)}", WHY, every=given.verbose
    )
