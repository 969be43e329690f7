"""`backprop parallel [N]`: shows and changes how many runs may run at once, while the workers are at work."""

import time
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import open_existing, open_home, say_who_works, tell
from backprop.cli.options.global_options import global_options, globals_of
from backprop.cli.options.numbers import whole

if TYPE_CHECKING:
    from pathlib import Path

    from backprop.cli.render.slots import Slots
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.store.connection import Database

MOST: Final = 1024


@click.command(name="parallel")
@click.argument("number", required=False, type=whole(1, MOST), metavar="[N]")
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    number: int | None,
    as_json: bool,
    config: str | None,
    verbose: bool,
    dry_run: bool,
) -> None:
    """Let at most N runs run at once, from now on; without N, say what holds and why.

    N holds for all workers of this home, whatever each was started with, until a worker is started with -p. Nothing is
    ended: where more than N run, the next start waits. To start nothing at all: backprop drain.
    """
    from backprop.cli.render.json_views import print_json

    given = globals_of(ctx, config, verbose, dry_run)
    if number is None or given.dry_run:
        home, database = open_existing()
        slots, running = _slots(home, database, given.config)
        if as_json:
            print_json(slots.view() | {"running": running})
        elif number is not None:
            click.echo(f"would let at most {number} run at once; now {slots.sentence()}")
        else:
            _print(slots, running)
        return
    _set(number, as_json, given.config)


def _set(number: int, as_json: bool, config: "Path | None") -> None:
    from backprop.cli.render.json_views import print_json
    from backprop.scheduler.store import parallel
    from backprop.worker.wakeup import wake_workers

    home, database = open_home()
    before, _ = _slots(home, database, config)
    parallel.choose(database, number, time.time())
    awake = wake_workers(home.locks)
    slots, running = _slots(home, database, config)
    if as_json:
        print_json(slots.view() | {"running": running})
    else:
        was = f" (before: {before.at_most})" if before.at_most != number else ""
        over = f"; {running} are running, and none starts until fewer are" if running > number else ""
        tell(f"{parallel.words(number)}{was}{over}")
    say_who_works(home, awake)


def _print(slots: "Slots", running: int) -> None:
    from backprop.cli.render.slots import CHANGE

    click.echo(f"{slots.sentence()}; {running} running")
    for line in (slots.own_words(), CHANGE):
        if line:
            click.echo(f"  {line}")


def _slots(home: "Home", database: "Database | None", config: "Path | None") -> "tuple[Slots, int]":
    """Return what holds, and how many runs hold a slot."""
    from backprop.cli.render.slots import slots_of
    from backprop.scheduler.config.files import current_directory
    from backprop.scheduler.config.settings import load
    from backprop.scheduler.store.reads import queries
    from backprop.worker.executor.locks import worker_alive

    living = (
        [worker for worker in queries.workers(database) if worker_alive(home.locks, worker.id)]
        if database is not None
        else []
    )
    effective = load(current_directory(), home.root, config, {})
    slots = slots_of(database, living, effective)
    if slots is None:
        raise AssertionError("settings always have a number")
    return slots, queries.slot_count(database) if database is not None else 0
