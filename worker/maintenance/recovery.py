"""Repairs a database that is damaged, gone or behind: sets it aside, restores a backup, has it completed.

A run's folder is self-sufficient, so nothing queued and nothing finished is lost with the database. Live runs are not
touched: their locks say that they live.
"""

import contextlib
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

from backprop.scheduler.errors import BackpropError, DatabaseBusy, DatabaseDamaged
from backprop.scheduler.home.file_reading import is_there
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database, open_database
from backprop.worker.maintenance import backups_of_database, completion
from backprop.worker.supervisor import failpoint

PATIENCE_S: Final = 120.0
"""How long to wait for another worker's repair."""

Say = Callable[[str], None]


def open_sound(home: Home, say: Say) -> Database:
    """Open the home's database for a worker: fully checked, repaired when it is damaged or gone, and completed.

    `say`: called with each step, as one line. Raises DatabaseRefused for a file that is not damaged but cannot be used
    (a newer schema, another program's database), DatabaseBusy.
    """
    with _alone(home):
        database = _open_checked(home, say)
        _catch_up(home, database, say)
        return database


def catch_up(home: Home, database: Database, say: Say = lambda _: None) -> None:
    """Complete a sound database that is older than its home, as a worker would that starts. Raises DatabaseBusy."""
    with _alone(home):
        _catch_up(home, database, say)


@contextlib.contextmanager
def _alone(home: Home) -> Generator[None]:
    """Keep others from repairing the same database. Raises DatabaseBusy."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(home.locks / "recovery.lock", timeout=PATIENCE_S, mode=0o600, fallback_to_soft=False):
            yield
    except Timeout as error:
        raise DatabaseBusy(
            f"another worker has been repairing {home.database} for {PATIENCE_S:g} s"
        ) from error
    except OSError as error:
        raise DatabaseBusy(f"{home.database} cannot be checked or repaired just now: {error}") from error


def _catch_up(home: Home, database: Database, say: Say) -> None:
    for run_id in completion.complete(home, database, say):
        say(f"run {run_id} put back from its folder")
    for batch, count in completion.complete_batches(home, database, say).items():
        say(f"{count} runs put back that were queued together as {batch}")
    if count := completion.ask_again(home, database):
        say(f"{count} requests of users asked again: the database was older")


def _open_checked(home: Home, say: Say) -> Database:
    if is_there(home.database):
        database, problem = _checked(home)
        if problem is None and database is not None:
            return database
        say(f"the database is damaged: {problem}")
        say(f"set aside as {_set_aside(home)}")
    elif not backups_of_database.newest_first(home):
        return open_database(home)
    else:
        say(f"{home.database} is gone")
        _set_aside(home)
    failpoint.at("set aside")
    restored = backups_of_database.restore_newest(home, lambda: _is_sound(home))
    failpoint.at("restored")
    say(f"restored from {restored}" if restored else "no good backup found: starting a new database")
    return open_database(home)


def _checked(home: Home) -> tuple[Database | None, str | None]:
    """Open and check the database; return what is wrong with it, or None. A damaged one is closed again.

    Raises DatabaseRefused for a file that is not damaged but cannot be used, DatabaseBusy.
    """
    database = None
    try:
        database = open_database(home)
        problem = database.integrity_problem()
    except DatabaseDamaged as error:
        problem = str(error)
    if problem is not None and database is not None:
        database.close()
    return database, problem


def _is_sound(home: Home) -> bool:
    """Return whether the file in the database's place passes a full check."""
    try:
        database, problem = _checked(home)
    except BackpropError:
        return False
    if database is not None:
        database.close()
    return problem is None


def _set_aside(home: Home) -> Path:
    """Rename the database together with its journal; return the new path. Nothing is deleted.

    Beside another database, SQLite would roll the journal back into that one.
    """
    aside = home.database.with_name(time.strftime("backprop.db.damaged-%Y%m%d-%H%M%S"))
    while aside.exists():
        aside = aside.with_name(f"{aside.name}+")
    for suffix in ("-journal", "-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{home.database}{suffix}").rename(f"{aside}{suffix}")
    return aside
