"""Writes what a user asks for into a file first, and into the database then, in one transaction.

A database is restored from a backup, or an older copy is laid over it: what was asked in between is in the file, and
`replay` asks it again. The database keeps the number of the last request that it knows.
"""

# peewee is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.home import request_log
from backprop.scheduler.home.request_log import Request, Verb
from backprop.scheduler.store.connection import Database, proxy

T = TypeVar("T")

ROWS_PER_STATEMENT: Final = 500


class Note:
    """Records requests inside the transaction that carries them out."""

    def __init__(self, database: Database) -> None:
        self._home = database.home
        self._own: list[int] = []
        self._behind = False

    def __call__(self, verb: Verb, run_ids: Sequence[str] | None = None, **more: Any) -> None:
        """Record one request; none where it is about no run at all. `run_ids` None: it is about the queue. `more`:
        fields of `Request`. Raises DatabaseBusy."""
        if run_ids is not None and not run_ids:
            return
        try:
            newest, known = request_log.newest(self._home), known_number()
            # A transaction that is tried again finds its own first line.
            self._behind = self._behind or (newest > known and newest not in self._own)
            number = max(newest, known) + 1
            self._own.append(number)
            values: dict[str, Any] = {"at_s": time.time(), "runs": segments_of(run_ids or ())} | more
            request_log.append(self._home, [Request(number=number, verb=verb, **values)])
        except OSError as error:
            raise DatabaseBusy(
                f"{self._home.requests} cannot be written: {error.strerror}; nothing was changed"
            ) from error
        if not self._behind:
            # An older copy keeps its number, so that what it has missed is asked again with this request.
            set_known_number(number)

    def take_back(self) -> None:
        """Cancel what was recorded, because the transaction failed. Raises nothing."""
        lines = [Request(number=number, verb=Verb.VOID, at_s=time.time()) for number in self._own]
        with contextlib.suppress(OSError):
            if lines:
                request_log.append(self._home, lines)


def write(database: Database, verb: Callable[[Note], T], undo: Callable[[], None] = lambda: None) -> T:
    """Run `verb` as a transaction, and hand it what records requests. Raises what `Database.write` raises.

    `undo`: takes back what `verb` has changed outside the database, where the transaction fails. A request whose traces
    cannot be taken back stays.
    """
    note = Note(database)
    try:
        return database.write(lambda: verb(note))
    except BaseException:
        undo()
        note.take_back()
        raise


def behind(database: Database) -> bool:
    """Return whether users have asked for more than the database knows. Raises DatabaseBusy.

    Right inside a transaction alone: outside of one, a request may be under way.
    """
    try:
        return request_log.newest(database.home) > known_number()
    except OSError as error:
        raise DatabaseBusy(f"{database.home.requests} cannot be read: {error.strerror}") from error


def known_number() -> int:
    """Return the number of the last request that the database knows. Call inside a transaction."""
    row: Any = proxy.execute_sql("SELECT MAX(number) FROM known_requests").fetchone()
    return int(row[0] or 0)


def set_known_number(number: int) -> None:
    """Note that the database knows all requests up to this one. Call inside a transaction."""
    proxy.execute_sql("DELETE FROM known_requests")
    proxy.execute_sql("INSERT INTO known_requests (number) VALUES (?)", (number,))


def segments_of(run_ids: Sequence[str]) -> dict[str, int]:
    """Return the newest segment of each run that exists. Call inside a transaction."""
    found: dict[str, int] = {}
    for at in range(0, len(run_ids), ROWS_PER_STATEMENT):
        some = run_ids[at : at + ROWS_PER_STATEMENT]
        query = f"SELECT id, segment FROM runs WHERE id IN ({', '.join('?' * len(some))})"
        cursor: Any = proxy.execute_sql(query, list(some))
        found |= dict(cursor.fetchall())
    return found
