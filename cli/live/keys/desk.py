"""Reads what `backprop top` draws, and does what its keys ask for: all that needs the database, in one thread.

A connection belongs to its thread. It is made anew where another file was put in the place of the database, and where
that was damaged; what is wrong is said by the errors that each method raises.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from backprop.cli.context import NO_WORKER, open_existing
from backprop.cli.live.live_screen import picture
from backprop.cli.live.screen import Screen
from backprop.cli.render.machine_view import overview
from backprop.scheduler.errors import DatabaseBusy, DatabaseRefused, UnknownRun
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.reads import queries
from backprop.worker.machine.reader import OneOffReader

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database


class OneRun(Protocol):
    """Does something to one run, by its id, and returns in words what was done."""

    def __call__(self, home: Home, database: "Database", run_id: str, /) -> str: ...


class Deed(StrEnum):
    """What a key does to a run."""

    STOP = "stop"
    SUSPEND = "suspend"
    FIRST = "first"


class Verbs(msgspec.Struct, frozen=True):
    """What the commands of these names do. `became`: what came of asking for a suspension; None for nothing yet."""

    stop: OneRun
    suspend: OneRun
    unsuspend: OneRun
    first: OneRun
    why: Callable[[Home, "Database", RunRecord], list[str]]
    became: Callable[["Database", str], str | None]


class Desk:
    """Serves a screen with keys. Each method may wait for the database, and raises BackpropError or OSError."""

    def __init__(self, home: Home, verbs: Verbs) -> None:
        self._home = home
        self._verbs = verbs
        self._reader = OneOffReader(home)
        self._database: Database | None = None
        self._was_there = False
        self._asked: list[str] = []

    def look(self, name: str | None, most: int) -> tuple[Screen, list[str]]:
        """Return what is drawn, and in words what has come of requests. `name`, `most`: as for `picture`."""
        with self._opened() as database:
            shown = overview(self._home, database, self._reader.read(), self._reader.settings)
            return picture(shown, database, NO_WORKER, name, most), self._news(database)

    def do(self, deed: Deed, run_id: str) -> str:
        """Do it to a run; return in words what was done. A run that its user has suspended is let go on."""
        with self._opened() as database:
            run, database = _found(database, run_id)
            if deed is Deed.STOP:
                return self._verbs.stop(self._home, database, run_id)
            if deed is Deed.FIRST:
                return self._verbs.first(self._home, database, run_id)
            if run.suspension is not None:
                return self._verbs.unsuspend(self._home, database, run_id)
            said = self._verbs.suspend(self._home, database, run_id)
            self._asked.append(run_id)
            return said

    def why(self, run_id: str) -> list[str]:
        """Return in words why a run is where it is."""
        with self._opened() as database:
            run, database = _found(database, run_id)
            return self._verbs.why(self._home, database, run)

    def close(self) -> None:
        """Let go of the database and of the GPUs."""
        self._let_go()
        self._reader.close()

    def _news(self, database: "Database | None") -> list[str]:
        if database is None:
            return []
        told = {run_id: self._verbs.became(database, run_id) for run_id in self._asked}
        self._asked = [run_id for run_id in self._asked if told[run_id] is None]
        return [words for words in told.values() if words is not None]

    @contextmanager
    def _opened(self) -> "Generator[Database | None]":
        """Hand out the database as it is now; None where nothing was ever queued."""
        try:
            if self._database is not None and self._database.replaced():
                self._let_go()
            if self._database is None:
                self._database = open_existing()[1]
                if self._database is None and self._was_there:
                    raise DatabaseBusy(
                        f"{self._home.database} is gone; put it together again with: backprop worker"
                    )
                self._was_there = self._database is not None
            yield self._database
        except DatabaseRefused:
            self._let_go()
            raise

    def _let_go(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _found(database: "Database | None", run_id: str) -> "tuple[RunRecord, Database]":
    run = queries.run_by_id(database, run_id) if database is not None else None
    if database is None or run is None:
        raise UnknownRun(f"run {run_id} was removed meanwhile")
    return run, database
