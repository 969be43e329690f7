"""Brings a database from its schema to this program's.

Each step is a tuple of SQL statements run in one transaction together with the `user_version` that records it, so
a crash leaves the old schema or the new one. The caller holds the migration lock; a backup is taken first when
there is something to lose. Imports nothing of the product but the steps.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from backprop.migrations import (
    step_0001,
    step_0002,
    step_0003,
    step_0004,
    step_0005,
    step_0006,
    step_0007,
    step_0008,
)

APPLICATION_ID: Final = 0x42505250
"""'BPRP': tells our file from any other SQLite database."""

STEPS: Final[tuple[Sequence[str], ...]] = (
    step_0001.STATEMENTS,
    step_0002.STATEMENTS,
    step_0003.STATEMENTS,
    step_0004.STATEMENTS,
    step_0005.STATEMENTS,
    step_0006.STATEMENTS,
    step_0007.STATEMENTS,
    step_0008.STATEMENTS,
)
LATEST: Final = len(STEPS)


class Cursor(Protocol):
    def fetchone(self) -> tuple[object, ...] | None: ...


class Connection(Protocol):
    """What we need of a DB-API connection in autocommit mode (isolation_level None)."""

    def execute(self, sql: str, /) -> Cursor: ...


def version(connection: Connection) -> tuple[int, int]:
    """(application_id, user_version) of the open database; (0, 0) for an empty file."""
    # The schema first: read the other way round, a database created between the two would look like a foreign one.
    schema = _number(connection, "PRAGMA user_version")
    return _number(connection, "PRAGMA application_id"), schema


def migrate(connection: Connection, path: Path, steps: Sequence[Sequence[str]] = STEPS) -> int:
    """Apply the steps that `path` lacks; return how many. The caller holds the migration lock.

    A database that already has a schema is copied to `<path>.v<N>.bak` before its first new step. Raises what
    the connection raises; the failing step is rolled back, the ones before it stay.
    """
    _, at = version(connection)
    todo = steps[at:]
    if todo and at > 0:
        _back_up(connection, path.with_name(f"{path.name}.v{at}.bak"))
    enforced = _number(connection, "PRAGMA foreign_keys")
    # A table that is made anew is dropped first, and would take with it all that refers to its rows.
    connection.execute("PRAGMA foreign_keys = 0")
    try:
        for number, statements in enumerate(todo, start=at + 1):
            _apply(connection, number, statements)
    finally:
        connection.execute(f"PRAGMA foreign_keys = {enforced}")
    return len(todo)


def _apply(connection: Connection, number: int, statements: Sequence[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _back_up(connection: Connection, target: Path) -> None:
    target.unlink(missing_ok=True)
    before = os.umask(0o077)
    try:
        connection.execute(f"VACUUM INTO '{str(target).replace(chr(39), chr(39) * 2)}'")
    finally:
        os.umask(before)


def _number(connection: Connection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return row[0] if row is not None and isinstance(row[0], int) else 0
