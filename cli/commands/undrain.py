"""`backprop undrain`: lets workers start runs again."""

import time

import click

from backprop.cli.context import open_existing, say_who_works, tell
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.render import answers


@click.command(name="undrain")
@verb_options
@click.pass_context
def command(ctx: click.Context, config: str | None, verbose: bool, dry_run: bool) -> int:
    """Start runs again after `backprop drain`."""
    from backprop.scheduler.store import drain
    from backprop.worker.wakeup import wake_workers

    home, database = open_existing()
    if database is None or drain.drained(database) is None:
        answers.current().note("the queue is not drained")
        click.echo("the queue is not drained", err=True)
        return 0
    if globals_of(ctx, config, verbose, dry_run).dry_run:
        click.echo("would start runs again")
        return 0
    drain.set_drained(database, None, time.time())
    awake = wake_workers(home.locks)
    tell("starting runs again")
    say_who_works(home, awake)
    return 0
