"""`backprop hold RUN…`: keeps queued runs from starting."""

from typing import Any, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import globals_of, verb_options

WHY: Final = "only a queued run can be held"


@click.command(name="hold")
@run_selection.run_arguments
@verb_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Hold queued RUNs: they do not start until `backprop release`. Suspended ones stay so until then."""
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.writes import suspensions, user_requests

    _, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    filters = run_selection.filters_of(values)
    # One that waits for its files, held by a worker, is released by itself unless its user holds it.
    named = {State.QUEUED, State.HELD}
    # One that is suspended stays so.
    states = {State.QUEUED, State.SUSPENDED}
    picked = run_selection.pick(ctx, database, runs, filters, states, "held", named | states)
    if given.dry_run:
        return run_selection.rehearse(picked, "hold", WHY, IllegalMove.exit_code)
    frozen = [one.id for one in picked.able if one.state is State.SUSPENDED]
    held = set(suspensions.ask(database, frozen, None))
    waiting = [one.id for one in picked.able if one.id not in held]
    held |= set(user_requests.hold(database, waiting, "held by the user"))
    done = [one for one in picked.able if one.id in held]
    return run_selection.conclude(
        picked, done, "held {}", lambda one: f"held {run_selection.who(one)}", WHY, every=given.verbose
    )
