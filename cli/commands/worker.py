"""`backprop worker`: starts queued runs, one segment after another, until it is stopped."""

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from backprop.cli.exit_codes import INTERRUPTED
from backprop.cli.options import setting_options
from backprop.cli.options.global_options import global_options, globals_of
from backprop.scheduler.config.files import current_directory
from backprop.scheduler.config.settings import load
from backprop.scheduler.home import layout

if TYPE_CHECKING:
    from backprop.scheduler.config.settings import Effective
    from backprop.scheduler.store.connection import Database
    from backprop.worker.console.console import Console

EPILOG = """\b
First Ctrl-C (or SIGTERM): start nothing new, ask running segments to checkpoint, requeue them, exit.
Second Ctrl-C: end them now. Closing tmux or the terminal: the worker exits, segments continue, and the
next worker takes them over. Several workers may run at once; --max-parallel limits all their runs together.
Change it meanwhile with: backprop parallel N
"""


@click.command(name="worker", epilog=EPILOG)
@setting_options.accept("worker")
@click.option(
    "--drain",
    is_flag=True,
    help="Exit once nothing is left that can run. Not to be confused with `backprop drain`, which keeps all workers"
    " from starting runs.",
)
@global_options
@click.pass_context
def command(
    ctx: click.Context, drain: bool, config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Start queued runs whenever the machine has room for them."""
    from importlib.metadata import version

    given = globals_of(ctx, config, verbose, dry_run)
    flags = setting_options.chosen(values)
    effective = load(current_directory(), layout.locate().root, given.config, flags)
    from backprop.worker.console.console import Console

    # Not by click: a terminal that takes nothing is not waited for from here on.
    errors = Console(sys.stderr)
    for note in effective.notes:
        errors.line(f"note: {note}")
    if given.dry_run:
        from backprop.cli.submit.dry_run import describe_queue

        errors.close()
        return describe_queue(layout.locate(), effective.settings, own_parallel=_is_own(effective))
    home = layout.ensure(layout.locate())
    layout.refuse_remote(home.root)
    from backprop.worker.daemon import work
    from backprop.worker.maintenance.recovery import open_sound

    database = open_sound(home, errors.line)
    if _is_own(effective):
        _end_parallel(database, effective.settings.max_parallel, errors)
    errors.close()
    greeting = (
        f"backprop {version('backprop-scheduler')}, home {home.root};"
        " Ctrl-C asks running segments to checkpoint, then exits"
    )
    interrupted = work(
        home, database, effective.settings, drain=drain, verbose=given.verbose, greeting=greeting
    )
    return INTERRUPTED if interrupted and drain else 0


def _is_own(effective: "Effective") -> bool:
    """Return whether this worker is given a number of runs, which ends what `backprop parallel` has set."""
    return effective.sources["max_parallel"].layer == "flag"


def _end_parallel(database: "Database", own: int, errors: "Console") -> None:
    """Take back what `backprop parallel` has set: `-p` is the user's later word."""
    from backprop.scheduler.store import parallel

    if (known := parallel.chosen(database)) is not None:
        parallel.choose(database, None, time.time())
        errors.line(f"note: backprop parallel {known[0]} is over: this worker was given -p {own}")
