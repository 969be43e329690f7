"""`backprop release RUN…`: puts held runs back into the queue."""

from typing import Any, Final

import click

from backprop.cli.context import need_existing
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import globals_of, verb_options

WHY: Final = "only a held run can be released"


@click.command(name="release")
@run_selection.run_arguments
@verb_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Release held RUNs: they return to their old positions in the queue."""
    from backprop.cli.submit import startable
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.writes import suspensions, user_requests
    from backprop.worker.wakeup import wake_workers

    home, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    picked = run_selection.pick(
        ctx, database, runs, run_selection.filters_of(values), {State.HELD, State.SUSPENDED}, "released"
    )
    picked, wrong = startable.startable(home, database, picked)
    if given.dry_run:
        code = run_selection.rehearse(picked, "release", WHY, IllegalMove.exit_code)
        return startable.say_unstartable(wrong) or code
    frozen = [one.id for one in picked.able if one.state is State.SUSPENDED]
    released = set(suspensions.unask(database, frozen))
    held = [one.id for one in picked.able if one.id not in frozen]
    released |= set(user_requests.release(database, held))
    wake_workers(home.locks)
    done = [one for one in picked.able if one.id in released]
    code = run_selection.conclude(
        picked,
        done,
        "released {}",
        lambda one: f"released {run_selection.who(one)}",
        WHY,
        every=given.verbose,
    )
    return startable.say_unstartable(wrong) or code
