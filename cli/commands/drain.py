"""`backprop drain`: start nothing any more, let what runs go on to its end."""

import time
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import open_home
from backprop.cli.exit_codes import INTERRUPTED
from backprop.cli.global_options import global_options, globals_of
from backprop.cli.render.terminal_text import safe
from backprop.cli.run_selection import counted

if TYPE_CHECKING:
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database

POLL_S: Final = 0.5
WHY_LIMIT: Final = 200


@click.command(name="drain")
@click.option("--wait", is_flag=True, help="Return once nothing runs any more.")
@click.option("--why", metavar="TEXT", help="Shown wherever a run waits for it.")
@global_options
@click.pass_context
def command(
    ctx: click.Context, wait: bool, why: str | None, config: str | None, verbose: bool, dry_run: bool
) -> int:
    """Let no worker start anything, until `backprop undrain`: for an update, a reboot, or the machine to oneself.

    Running segments go on to their end; a run that is queued again waits. Workers stay; `backprop worker --drain` is
    another thing: a worker that exits once it has nothing left to run.
    """
    from backprop.scheduler.store import drain

    home, database = open_home()
    alive = _alive(home, database)
    running = f"{counted(len(alive))} running" if alive else "nothing is running"
    if globals_of(ctx, config, verbose, dry_run).dry_run:
        click.echo(f"would drain the queue; {running}")
        return 0
    known = drain.drained(database)
    told = " ".join((why or "").split())[:WHY_LIMIT]
    if known is None or (told and told != known[0]):
        drain.set_drained(database, told or "by the user", time.time() if known is None else known[1])
    done = "drained" if known is None else "drained already"
    if known is not None and told and told != known[0]:
        done += f", now for: {told} (was: {known[0]})"
    click.echo(f"{safe(done)}: {running}")
    return _wait(home, database) if wait else 0


def _wait(home: "Home", database: "Database") -> int:
    """Until no segment lives. Locks tell, so that a dead worker's run, which nobody settles, is not waited for."""
    said = -1
    try:
        while alive := _alive(home, database):
            if len(alive) != said:
                names = ", ".join(f"{run.name} ({run.id})" for run in alive[:3])
                click.echo(
                    f"waiting for {counted(len(alive))}: {names}{', …' if len(alive) > 3 else ''}", err=True
                )
                said = len(alive)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        click.echo("the queue stays drained", err=True)
        return INTERRUPTED
    return 0


def _alive(home: "Home", database: "Database") -> "list[RunRecord]":
    from backprop.scheduler.store.reads import queries
    from backprop.worker.executor import locks

    return [run for run in queries.live_runs(database) if locks.held(home.run_lock(run.id))]
