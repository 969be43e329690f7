"""Databases that are refused: newer, damaged, another program's, or not to be read."""

import contextlib
import errno
import os
from pathlib import Path

import pytest
from peewee import OperationalError

from backprop.migrations import runner
from backprop.scheduler.errors import BackpropError, DatabaseDamaged, DatabaseRefused
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store import connection as databases
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import user_requests
from tests.support.database_files import create, fill, refusal
from tests.support.store_rows import add_run


def test_a_newer_schema_is_refused_and_left_alone(home: Home) -> None:
    create(home)
    newer = runner.LATEST + 1
    before = fill(home, f"PRAGMA user_version = {newer}")
    why = refusal(home)
    assert f"schema {newer}" in why
    assert "upgrade" in why
    assert home.database.read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA application_id = 7; CREATE TABLE runs (id)",
        "PRAGMA user_version = 1; CREATE TABLE runs (id)",
        "PRAGMA application_id = 7",
        "CREATE TABLE notes (text)",
    ],
)
def test_another_programs_database_is_refused_and_left_alone(home: Home, sql: str) -> None:
    before = fill(home, sql)
    assert "some other program's" in refusal(home)
    assert home.database.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 37, 2), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 46, 1), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 0), True),
    ],
)
def test_wal_is_refused_where_the_engine_can_corrupt_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], safe: bool
) -> None:
    create(home)
    fill(home, "PRAGMA journal_mode = WAL")
    monkeypatch.setattr(databases.sqlite3, "sqlite_version_info", version)
    if safe:
        open_database(home).close()
    else:
        assert "PRAGMA journal_mode=DELETE" in refusal(home)


def cut_short(data: bytearray) -> None:
    del data[len(data) // 2 :]


def not_sqlite(data: bytearray) -> None:
    data[:100] = b"x" * 100


@pytest.mark.parametrize("damage", [cut_short, not_sqlite])
def test_a_damaged_file_is_refused_and_left_as_it_is(home: Home, damage: object) -> None:
    create(home, 20)
    data = bytearray(home.database.read_bytes())
    damage(data)  # type: ignore[operator]
    home.database.write_bytes(data)
    why = refusal_on_use(home)
    assert "is damaged" in why
    assert f"its runs live on in {home.runs}; repair it with: backprop worker" in why
    assert home.database.read_bytes() == bytes(data)


def refusal_on_use(home: Home) -> str:
    """The refusal, at the latest when the runs are asked for."""
    with pytest.raises(DatabaseRefused) as caught:
        opened = open_database(home)
        try:
            queries.list_runs(opened)
        finally:
            opened.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_quiet_damage_is_found_by_the_check_of_a_starting_worker(home: Home) -> None:
    create(home, 20)
    opened = open_database(home)
    assert opened.integrity_problem() is None
    opened.close()
    data = bytearray(home.database.read_bytes())
    page = data.rindex(b"/project/train.py") // 4096 * 4096
    data[page + 8 : page + 200] = os.urandom(192)
    home.database.write_bytes(data)
    opened = open_database(home)
    try:
        problem = opened.integrity_problem()
    except DatabaseRefused as error:
        problem = str(error)
    opened.close()
    assert problem


def test_tables_taken_away_while_it_is_open_are_damage(home: Home) -> None:
    """A copy put into the file by another program empties it first. Whoever looked then is told "no such table" by
    SQLite from there on, whatever comes to lie in the file."""
    database = open_database(home)
    run = add_run(database, "aaaa1111")
    size = home.database.stat().st_size
    os.truncate(home.database, 0)
    with pytest.raises(DatabaseDamaged, match="taken away while it was open"):
        queries.workers(database)
    with pytest.raises(DatabaseDamaged, match="taken away while it was open"):
        user_requests.ask_to_stop(database, run, 1.0)
    with home.database.open("r+b") as file:
        file.write(b"nothing to see here\n" * (size // 20))
    with pytest.raises(DatabaseDamaged, match="is damaged"):
        queries.workers(database)
    database.close()


def test_a_mistake_in_sql_is_no_damage(home: Home) -> None:
    database = open_database(home)
    with pytest.raises(OperationalError, match="no such table: absent"):
        database.rows("SELECT 1 FROM absent")
    database.close()


def test_a_file_that_may_not_be_read_or_written_is_refused(home: Home) -> None:
    home.database.mkdir()
    assert "cannot be opened" in refusal(home)


@pytest.mark.parametrize("number", range(1, 6))
def test_a_look_that_fails_while_it_is_opened_is_one_refusal(
    database: Database, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    stat, looks = Path.stat, list[Path]()

    def fails(path: Path, **options: bool) -> os.stat_result:
        if path == database.home.database:
            looks.append(path)
            if len(looks) == number:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", fails)
    with contextlib.suppress(BackpropError):
        open_database(database.home).close()
    assert looks
