"""`backprop drain`: keeps all workers from starting runs, and lets running segments finish."""

import time
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import open_home, tell
from backprop.cli.exit_codes import INTERRUPTED
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.options.run_selection import counted
from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database

POLL_S: Final = 0.5
STAY: Final = "they go on after backprop undrain; a reboot would lose their work since their last checkpoint"
WHY_LIMIT: Final = 200


@click.command(name="drain")
@click.option("--wait", is_flag=True, help="Return once nothing is running.")
@click.option("--even-if-lost", is_flag=True, help="With --wait: do not wait for suspended runs.")
@click.option("--why", metavar="TEXT", help="Reason, shown wherever a run waits for it.")
@verb_options
@click.pass_context
def command(
    ctx: click.Context,
    wait: bool,
    even_if_lost: bool,
    why: str | None,
    config: str | None,
    verbose: bool,
    dry_run: bool,
) -> int:
    """Stop starting runs until `backprop undrain`: for an update, a reboot, or to have the machine to yourself.

    Running segments finish; runs that are queued again wait. Workers keep running. Not to be confused with
    `backprop worker --drain`, which exits once nothing is left that can run.
    """
    from backprop.scheduler.store import drain

    if even_if_lost and not wait:
        raise click.UsageError("--even-if-lost says what --wait does not wait for: add --wait")
    home, database = open_home()
    alive = _alive(home, database)
    answers.current().more = {"running": len(alive)}
    running = f"{counted(len(alive))} running" if alive else "nothing is running"
    if globals_of(ctx, config, verbose, dry_run).dry_run:
        click.echo(f"would drain the queue; {running}")
        return 0
    known = drain.drained(database)
    reason = " ".join((why or "").split())[:WHY_LIMIT]
    if known is None or (reason and reason != known[0]):
        drain.set_drained(database, reason or "by the user", time.time() if known is None else known[1])
    done = "drained" if known is None else "drained already"
    if known is not None and reason and reason != known[0]:
        done += f", now for: {reason} (was: {known[0]})"
    tell(f"{safe(done)}: {running}")
    return _wait(home, database, even_if_lost) if wait else 0


def _wait(home: "Home", database: "Database", even_if_lost: bool) -> int:
    """Wait until no segment is alive. Locks decide, so that it does not wait for the run of a dead worker.

    `even_if_lost`: suspended ones may stay, which a reboot loses.
    """
    from backprop.scheduler.lifecycle import State

    printed = -1
    try:
        while alive := _alive(home, database):
            frozen = sum(run.state is State.SUSPENDED for run in alive)
            if even_if_lost and frozen == len(alive):
                click.echo(f"{counted(frozen)} suspended: {STAY}", err=True)
                break
            if len(alive) != printed:
                if frozen:
                    click.echo(f"{counted(frozen)} of them suspended: {STAY}", err=True)
                names = ", ".join(f"{run.name} ({run.id})" for run in alive[:3])
                click.echo(
                    f"waiting for {counted(len(alive))}: {names}{', …' if len(alive) > 3 else ''}", err=True
                )
                printed = len(alive)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        click.echo("the queue stays drained", err=True)
        return INTERRUPTED
    return 0


def _alive(home: "Home", database: "Database") -> "list[RunRecord]":
    from backprop.scheduler.store.reads import queries
    from backprop.worker.executor import locks

    return [run for run in queries.live_runs(database) if locks.held(home.run_lock(run.id))]
