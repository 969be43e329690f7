"""Examines the database without changing it, and without the repairs that opening it would make.

`read_header` needs no SQLite, so it also describes a file that SQLite refuses. Call it before the database is opened
in this process: closing a second descriptor would drop its locks (sqlite.org/howtocorrupt.html §2.2).
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import struct
from typing import Any, Final

import msgspec
from peewee import SqliteDatabase, sqlite3  # pyright: ignore[reportAttributeAccessIssue]

from backprop.migrations import runner
from backprop.scheduler.home.file_reading import open_regular
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database, proxy
from backprop.scheduler.store.schema import Checkpoint, Run, Segment, Worker
from backprop.scheduler.store.sqlite_errors import patiently

ENGINE: Final = str(sqlite3.sqlite_version)
"""The version of the SQLite that peewee chose."""
LATEST: Final = runner.LATEST
"""The newest schema this program knows."""
PATIENCE_S: Final = 5
PRAGMAS: Final = {"busy_timeout": PATIENCE_S * 1000, "query_only": 1, "mmap_size": 0, "trusted_schema": 0}

HEADER_BYTES: Final = 100
MAGIC: Final = b"SQLite format 3\0"
WAL: Final = 2


class DatabaseHeader(msgspec.Struct, frozen=True):
    """The first bytes of the file (sqlite.org/fileformat.html §1.3). `sound` False: it is not a database."""

    sound: bool
    empty: bool = False
    wal: bool = False
    schema: int = 0
    application_id: int = 0

    @property
    def ours(self) -> bool:
        """Whether Backprop made it, or it is empty."""
        return self.empty or self.application_id == runner.APPLICATION_ID

    @property
    def newer(self) -> bool:
        """Whether a newer program than this one made it."""
        return self.schema > runner.LATEST


def read_header(home: Home) -> DatabaseHeader | None:
    """Return the database's header; None when there is no file. Raises OSError."""
    try:
        with open(open_regular(home.database), "rb") as file:  # noqa: PTH123
            head = file.read(HEADER_BYTES)
    except FileNotFoundError:
        return None
    if not head:
        return DatabaseHeader(sound=True, empty=True)
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        return DatabaseHeader(sound=False)
    (schema,) = struct.unpack_from(">i", head, 60)
    (application_id,) = struct.unpack_from(">I", head, 68)
    return DatabaseHeader(sound=True, wal=WAL in head[18:20], schema=schema, application_id=application_id)


def open_to_look(home: Home) -> Database:
    """Open the database for reading alone: nothing is created, migrated or changed through it.

    Waits 5 s, not a minute, for whoever holds the lock. Raises DatabaseRefused (also where a crash left a journal
    that only a writer may roll back), DatabaseDamaged, DatabaseBusy.
    """
    uri = f"{home.database.as_uri()}?mode=ro"
    database = SqliteDatabase(uri, uri=True, pragmas=PRAGMAS, autoconnect=False, timeout=PATIENCE_S)
    proxy.initialize(database)

    def prepare() -> None:
        database.connect(reuse_if_open=True)
        list(database.execute_sql("SELECT 1 FROM sqlite_master LIMIT 1"))

    try:
        patiently(home.database, prepare, 0)
    except BaseException:
        database.close()
        raise
    return Database(home, database, 0)


def newest_time_s(database: Database) -> float | None:
    """Return the latest time that any process stored (Unix seconds); None where none did."""

    def query() -> float | None:
        from peewee import fn

        columns = (
            Run.created_at_s,
            Run.started_at_s,
            Run.ended_at_s,
            Segment.started_at_s,
            Segment.ended_at_s,
            Checkpoint.saved_at_s,
            Worker.started_at_s,
            Worker.stopped_at_s,
        )
        times: list[Any] = [column.model.select(fn.MAX(column)).scalar() for column in columns]
        return max((time for time in times if time is not None), default=None)

    return database.read(query)
