"""Waits for a locked database, and translates SQLite's errors into Backprop's."""

# peewee is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from peewee import DatabaseError, sqlite3  # pyright: ignore[reportAttributeAccessIssue]

from backprop.scheduler.errors import DatabaseBusy, DatabaseDamaged, DatabaseRefused

T = TypeVar("T")

RETRY_FOR_S: Final = 60.0
EAGER_S: Final = 5.0
"""How long the lock is tried some thousand times per second. A writer without pauses leaves gaps of some microseconds,
which SQLite's own ten tries per second miss for half a minute; this way the wait is tenths of a second, at a fifth of a
core meanwhile (benchmarks/locking.py). After that nobody leaves gaps, and a try now and then will do."""
SQLITE_BUSY, SQLITE_LOCKED, SQLITE_READONLY, SQLITE_IOERR = 5, 6, 8, 10
SQLITE_CORRUPT, SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_NOTADB = 11, 13, 14, 26
SQLITE_READONLY_DBMOVED = SQLITE_READONLY | 4 << 8


def patiently(path: Path, action: Callable[[], T], patience_s: float = RETRY_FOR_S) -> T:
    """Run `action` and return its result; again while another process holds the lock, for up to `patience_s`.

    What it raises is translated: DatabaseBusy, DatabaseDamaged, DatabaseRefused.
    """
    begun_s = time.monotonic()
    while True:
        try:
            return action()
        # peewee wraps SQLite's errors; the migrations, which know no peewee, do not.
        except (DatabaseError, sqlite3.DatabaseError) as error:
            if _code(error) not in (SQLITE_BUSY, SQLITE_LOCKED) or time.monotonic() > begun_s + patience_s:
                raise _translated(error, path) from error
        import random  # here: imports hashlib, for the few that have to wait

        eager = time.monotonic() < begun_s + EAGER_S
        time.sleep(random.uniform(0.0, 0.0001) if eager else random.uniform(0.002, 0.05))


def _code(error: BaseException) -> int | None:
    """The primary SQLite result code behind a peewee error."""
    code = _extended_code(error)
    return None if code is None else code & 0xFF


def _extended_code(error: BaseException) -> int | None:
    """The SQLite result code behind a peewee error, with the detail in its higher bits.

    peewee's rollback of a transaction that SQLite has rolled back already raises over the real error, which is
    then found only in `__context__`; so the oldest code in the chain is the cause.
    """
    cause: int | None = None
    visited: set[int] = set()
    while error and id(error) not in visited:
        visited.add(id(error))
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(code, int) and code != 1:
            cause = code
        following = error.__cause__ or error.__context__
        if following is None:
            break
        error = following
    return cause


def _translated(error: Exception, path: Path) -> Exception:
    """Backprop's error for SQLite's, or the error itself when it is a bug."""
    match _code(error):
        case code if code in (SQLITE_BUSY, SQLITE_LOCKED):
            return DatabaseBusy(f"{path} is locked by another process; see which: fuser {path}")
        case code if code == SQLITE_FULL:
            return DatabaseBusy(
                f"no room left on the disk of {path}; nothing was changed; free some space and try again"
            )
        case code if code == SQLITE_IOERR:
            # Over a quota or a file size limit, SQLite calls it this; a failing disk, too.
            return DatabaseBusy(
                f"the disk of {path} refused a write or a read ({error}); nothing was changed; look for a quota, a"
                " full or a failing disk"
            )
        case code if code == SQLITE_READONLY and _extended_code(error) == SQLITE_READONLY_DBMOVED:
            return DatabaseDamaged(
                f"{path} was deleted or replaced while it was open; nothing was changed; its runs live on in"
                f" {path.parent}/runs; put it together again with: backprop worker"
            )
        case code if code in (SQLITE_CORRUPT, SQLITE_NOTADB):
            return DatabaseDamaged(
                f"{path} is damaged ({error}); its runs live on in {path.parent}/runs; repair it with: backprop worker"
            )
        case code if code == SQLITE_CANTOPEN and _may_write(path):
            # Its journal could not be made: no inode or no file descriptor left.
            return DatabaseBusy(
                f"{path} cannot be opened just now ({error}); nothing was changed; look for a full disk or too many"
                " open files (ulimit -n)"
            )
        case code if code in (SQLITE_READONLY, SQLITE_CANTOPEN):
            return DatabaseRefused(f"{path} cannot be opened for writing ({error}); check its owner and mode")
        case _:
            return error


def _may_write(path: Path) -> bool:
    """Whether nothing but a passing shortage keeps this process from writing the database and a journal beside it."""
    return path.is_file() and os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)
