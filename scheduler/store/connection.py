"""Opens the database, runs transactions on it, and refuses files that are not safe to use.

Rollback journal, never WAL: every SQLite from 3.7.0 to 3.51.2 can corrupt a WAL database that several processes
write (sqlite.org/wal.html#walresetbug; fixed in 3.51.3, 3.50.7, 3.44.6), and most Pythons in use carry such a
version. Durable (`synchronous=EXTRA` also syncs the folder after the journal is gone). The price is a rate of about
400 commits per second, a hundred times what the queue needs.

Never open the database file by any other means while it is open here: closing a second descriptor drops the
process's POSIX locks (sqlite.org/howtocorrupt.html §2.2).

`proxy` is the one database of this process: peewee's models are bound to it, and a Backprop process has one home. It
stands here rather than beside the models, so that plain SQL can be written without making eleven classes first.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import contextlib
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, TypeVar

from peewee import DatabaseError, DatabaseProxy, SqliteDatabase, sqlite3  # pyright: ignore[reportAttributeAccessIssue]

from backprop.migrations import runner
from backprop.scheduler.errors import DatabaseBusy, DatabaseDamaged, DatabaseRefused
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.wake_pipes import wake_if_settled
from backprop.scheduler.store.sqlite_errors import RETRY_FOR_S, patiently

T = TypeVar("T")

PRAGMAS: Final = {
    "busy_timeout": 0,
    "foreign_keys": 1,
    "synchronous": "EXTRA",
    "mmap_size": 0,
    "trusted_schema": 0,
    "cell_size_check": 1,
}
COMMIT_MS: Final = 5000
"""How long a commit waits, inside SQLite, for readers to end; new ones cannot begin meanwhile."""
SAFE_WAL_VERSIONS: Final = ((3, 51, 3), (3, 50, 7), (3, 44, 6))


class Database:
    """The open database. One per process; not usable in a forked child.

    Whoever is handed one keeps it for the life of the process: `reopen` swaps the connection inside.
    """

    def __init__(self, home: Home, peewee_database: SqliteDatabase, patience_s: float = RETRY_FOR_S) -> None:
        self.home = home
        self._db = peewee_database
        self.patience_s = patience_s
        self._opened = self._identity()
        self._reopening = False

    def write(self, verb: Callable[[], T]) -> T:
        """Run `verb` in one short IMMEDIATE transaction and return its result.

        Tries again, with jitter, for up to 60 s while another process holds the lock. Raises DatabaseBusy after
        that or when the disk is full (nothing was changed), DatabaseRefused when the file is damaged.
        """
        self._require_open()
        if self._db.in_transaction():
            return verb()

        def transaction() -> T:
            with _unstoppable(), self._db.atomic("IMMEDIATE"):
                self._set_busy_ms(COMMIT_MS)
                return verb()

        try:
            result = self._patiently(transaction)
        finally:
            self._set_busy_ms(0)
        wake_if_settled(self.home.locks)
        return result

    def read(self, query: Callable[[], T]) -> T:
        """Run `query` and return its result: finished lists, never a cursor. Waits and raises as `write`."""
        self._require_open()
        return self._patiently(query)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a SELECT. `values`: for its `?`, or one mapping for its names. Waits and raises as
        `write`."""
        given = values[0] if len(values) == 1 and isinstance(values[0], dict) else values
        return self.read(lambda: self._db.execute_sql(sql, given).fetchall())

    def integrity_problem(self) -> str | None:
        """Return the first finding of a full integrity check; None when sound. Takes about 16 ms per MiB."""
        row = self.read(lambda: self._db.execute_sql("PRAGMA integrity_check(1)").fetchone())
        return None if row[0] == "ok" else str(row[0])

    def replaced(self) -> bool:
        """Return whether the path no longer leads to the open file: it was deleted, or another one was put there.

        Raises DatabaseBusy when that cannot be seen just now.
        """
        return self._identity() != self._opened

    def forget_pages(self) -> None:
        """Have the next reads come from the file. A copy that is laid over it while this process commits gets this
        process's change counter, and SQLite takes the pages it remembers for the file's. Raises DatabaseBusy."""
        self.read(lambda: self._db.execute_sql("PRAGMA shrink_memory").fetchall())

    def copy_to(self, target: Path) -> None:
        """Write a whole, compacted copy (0600) beside concurrent writers. Raises DatabaseBusy, FileExistsError."""
        if target.exists():
            raise FileExistsError(target)
        before = os.umask(0o077)
        try:
            self.read(lambda: self._db.execute_sql("VACUUM INTO ?", (str(target),)))
        finally:
            os.umask(before)

    def _patiently(self, action: Callable[[], T]) -> T:
        try:
            return patiently(self.home.database, action, self.patience_s)
        except (DatabaseError, sqlite3.DatabaseError):
            # Perhaps "no such table". A connection that met an empty file, for the moment of a copy put into it,
            # takes that for the truth and answers from memory; only the file's header tells.
            if patiently(self.home.database, self._schema, self.patience_s) != runner.LATEST:
                raise DatabaseDamaged(_emptied(self.home.database)) from None
            raise

    def _schema(self) -> int:
        return int(self._db.execute_sql("PRAGMA user_version").fetchone()[0])

    def _set_busy_ms(self, busy_ms: int) -> None:
        self._db.execute_sql(f"PRAGMA busy_timeout={busy_ms}").fetchall()

    def _identity(self) -> tuple[int, int] | None:
        """Return which file the path leads to; None for none. Raises DatabaseBusy."""
        try:
            info = self.home.database.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DatabaseBusy(f"{self.home.database} cannot be looked at: {error.strerror}") from error
        return info.st_dev, info.st_ino

    def _require_open(self) -> None:
        if self._reopening:
            raise DatabaseBusy(f"{self.home.database} cannot be used until it is repaired")

    def reopen(self, opening: Callable[[], "Database"]) -> None:
        """Swap the connection for the one of the database that `opening` returns, in the hands of every holder.

        What `opening` raises is passed on. Until a later call succeeds, every read and write raises DatabaseBusy.
        """
        self._reopening = True
        self.close()
        successor = opening()
        self._db, self._opened = successor._db, successor._opened
        self._reopening = False

    def close(self) -> None:
        self._db.close()


@contextlib.contextmanager
def _unstoppable() -> Generator[None]:
    """Let Ctrl-Z wait for the end of a transaction: stopped inside, it would lock everybody else out."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTSTP,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def open_database(home: Home, patience_s: float = RETRY_FOR_S) -> Database:
    """Open the home's database, creating or migrating it as needed. `patience_s`: how long this and each later read or
    write waits while another process holds it.

    Raises DatabaseRefused (newer schema, another program's, damaged, WAL on an engine that can corrupt it),
    DatabaseBusy.
    """
    database = SqliteDatabase(str(home.database), pragmas=PRAGMAS, autoconnect=False, timeout=0)
    proxy.initialize(database)
    os.register_at_fork(after_in_child=lambda: _abandon(database))

    def prepare() -> None:
        database.connect(reuse_if_open=True)
        _refuse_unsafe_journal(database, home.database)
        _bring_up_to_date(database, home)

    before = os.umask(0o077)
    try:
        patiently(home.database, prepare, patience_s)
    except BaseException:
        database.close()
        raise
    finally:
        os.umask(before)
    try:
        return Database(home, database, patience_s)
    except BaseException:
        database.close()
        raise


def _abandon(database: SqliteDatabase) -> None:
    """In a forked child: forget the connection without closing it. A child that closes an inherited connection
    corrupts the file (sqlite.org/howtocorrupt.html §2.6). Python closes one when its last reference goes, so one
    reference is leaked."""
    import ctypes

    if not database.is_closed():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(database.connection()))
    database.dispose()
    proxy.initialize(None)


def corrupts_wal() -> bool:
    """Return whether this process's SQLite can corrupt a database in WAL mode."""
    version = sqlite3.sqlite_version_info
    own_branch = (safe for safe in SAFE_WAL_VERSIONS if safe[:2] == version[:2])
    return version < SAFE_WAL_VERSIONS[0] and not any(version >= safe for safe in own_branch)


def _refuse_unsafe_journal(database: SqliteDatabase, path: Path) -> None:
    mode = str(database.execute_sql("PRAGMA journal_mode").fetchone()[0])
    if mode == "wal" and corrupts_wal():
        raise DatabaseRefused(
            f"{path} was put into WAL mode, which SQLite {sqlite3.sqlite_version} can corrupt; with no Backprop "
            f"process running: sqlite3 {path} 'PRAGMA journal_mode=DELETE'"
        )


def _bring_up_to_date(database: SqliteDatabase, home: Home) -> None:
    connection = database.connection()
    if _refuse_foreign(connection, home.database) == runner.LATEST:
        return
    from filelock import FileLock, Timeout

    try:
        with FileLock(home.locks / "migration.lock", timeout=RETRY_FOR_S, mode=0o600, fallback_to_soft=False):
            if _refuse_foreign(connection, home.database) < runner.LATEST:
                runner.migrate(connection, home.database)
    except Timeout as error:
        raise DatabaseBusy(
            f"another process has been migrating {home.database} for {RETRY_FOR_S:g} s"
        ) from error


def _refuse_foreign(connection: Any, path: Path) -> int:
    """Return the schema version, once the file is known to be Backprop's and not newer than this program."""
    # Emptiness first: a database that another process creates meanwhile must not look like a foreign one.
    empty = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
    application, schema = runner.version(connection)
    if application != runner.APPLICATION_ID and (application or schema or not empty):
        raise DatabaseRefused(f"{path} is some other program's SQLite database; move it away")
    if schema > runner.LATEST:
        raise DatabaseRefused(
            f"{path} has schema {schema}, this backprop knows up to {runner.LATEST}: upgrade with"
            " pip install -U backprop-scheduler"
        )
    return schema


def _emptied(path: Path) -> str:
    return (
        f"the tables of {path} were taken away while it was open; nothing was changed; its runs live on in"
        f" {path.parent}/runs; put it together again with: backprop worker"
    )


proxy: Final = DatabaseProxy()
