"""Opens the home and its database for a command."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.exit_codes import OUTPUT_LOST
from backprop.cli.render import answers
from backprop.scheduler.errors import BackpropError, HomeRefused
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database

NO_WORKER: Final = "no worker is running. Start one: tmux new -d 'backprop worker'"
LOOKED_AT: Final = 200
"""Runs of one command whose code is compared with today's."""


class OutputLost(BackpropError):
    exit_code = OUTPUT_LOST
    code = "output-lost"


def tell(text: str, in_short: str | None = None) -> None:
    """Print what has been done. Where stdout takes nothing, say on stderr that it was done all the same.

    `in_short`: what is said then, where `text` is no sentence or too long. Raises OutputLost.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(
            f"{in_short or text.strip()}: done, do not repeat it; its output cannot be written: {error.strerror}"
        ) from error


def silent_workers(home: Home) -> list[str]:
    """Return which living workers do not tick, each with what to do. Raises nothing."""
    from backprop.worker.executor.heartbeat import silences

    return [silence.sentence() for silence in silences(home.locks)]


def say_who_works(home: Home, awake: int) -> None:
    """Say on stderr what keeps what was queued from starting: no worker, or those that do not tick. `awake`: what
    `wake_workers` returned."""
    for line in silent_workers(home) if awake else [NO_WORKER]:
        answers.current().note(line)
        click.echo(line, err=True)


def say_findings(notes: Sequence[str], warnings: Sequence[str]) -> None:
    """Say on stderr what was found out about a command before it is carried out."""
    from backprop.cli.render.terminal_text import safe

    for kind, lines in (("note", notes), ("warning", warnings)):
        for line in lines:
            click.echo(f"{kind}: {safe(line)}", err=True)


def say_code_changes(
    home: Home, database: "Database", ids: Sequence[str], *, noted: bool, copied: bool = False
) -> None:
    """Say on stderr, and in the answer, which of these runs, the first of them, have other code now than when they were
    queued. Those with a snapshot keep to it, unless it was `copied` anew. `noted`: note what they go on with."""
    from backprop.cli.render.terminal_text import safe
    from backprop.scheduler.store.reads import queries
    from backprop.worker.environment.provenance import since

    records = [run for run_id in ids[:LOOKED_AT] if (run := queries.run_by_id(database, run_id)) is not None]
    changes = since.changes_since(home, [run for run in records if copied or run.spec.code is None])
    answers.current().touch(records)
    for run in records:
        if (change := changes.get(run.id)) is None:
            continue
        answers.current().add(run.id, code_changed=bool(change.files))
        if change.files and noted:
            since.note_again(home, run, change)
    if (line := since.in_words(changes)) is not None:
        answers.current().note(line)
        click.echo(f"note: {safe(line)}", err=True)


def open_home() -> "tuple[Home, Database]":
    """Return the home, created if needed, and its database. Raises HomeRefused, DatabaseRefused, DatabaseBusy."""
    from backprop.scheduler.store.connection import open_database

    home = layout.locate()
    try:
        layout.ensure(home)
    except OSError as error:
        raise _unreadable(home, error) from error
    return home, open_database(home)


def open_existing(patience_s: float | None = None) -> "tuple[Home, Database | None]":
    """As `open_home`, but create nothing: the database is None where nothing was ever queued. `patience_s`: see
    `open_database`."""
    from backprop.scheduler.store.connection import open_database

    home = layout.locate()
    try:
        is_there = layout.check(home) and home.database.exists()
    except OSError as error:
        raise _unreadable(home, error) from error
    if not is_there:
        return home, None
    return home, open_database(home) if patience_s is None else open_database(home, patience_s)


def _unreadable(home: Home, error: OSError) -> HomeRefused:
    return HomeRefused(f"cannot use {error.filename or home.root}: {error.strerror or error}; try again")


def need_existing(patience_s: float | None = None) -> "tuple[Home, Database]":
    """As `open_existing`, but raise UnknownRun where nothing was ever queued."""
    from backprop.scheduler.errors import UnknownRun

    home, database = open_existing(patience_s)
    if database is None:
        raise UnknownRun(f"nothing has been queued in {home.root} yet; start with: backprop run SCRIPT")
    return home, database
