"""What `backprop doctor` says of a database: damage, a journal, a holder, WAL, clocks, and files that were left."""

import os
import sqlite3
import subprocess
import sys
import time

import pytest

from backprop.cli.doctor.database import check_clock, check_database, check_leftovers
from backprop.cli.doctor.finding import Finding, Level
from backprop.cli.doctor.home import check_home
from backprop.cli.exit_codes import DOCTOR_FOUND
from backprop.migrations import runner
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store import connection as databases
from backprop.scheduler.store import integrity
from backprop.scheduler.store.connection import Database, open_database
from backprop.worker.executor import locks
from backprop.worker.wakeup import wake_path
from tests.support.doctor_cases import SAVES_AND_WAITS, calm, doctor, not_well, old, seen
from tests.support.harness import Bench, alive, wait_until
from tests.support.store_rows import add_run


def damage(bench: Bench) -> None:
    """As a failing disk would: not by truncation, which a living connection might meet half-way."""
    with (bench.home / "backprop.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 20000)


def test_a_damaged_database_is_told_and_repaired(bench: Bench) -> None:
    calm(bench).script("train.py", "print(1)")
    run = bench.queue("train.py")
    damage(bench)
    before = seen(bench.home)
    code, found = doctor(bench)
    assert code == DOCTOR_FOUND
    assert "damaged" in found["database"]["told"]
    assert "backprop doctor --repair" in found["database"]["advice"]
    assert seen(bench.home) == before
    code, found = doctor(bench, "--repair")
    assert code == 0, not_well(found)
    assert "was set aside" in found["backup"]["told"]
    assert [one["id"] for one in bench.runs()] == [run]


def test_repairing_is_safe_while_a_worker_lives(bench: Bench) -> None:
    """Which of the two is first does not matter: both take recovery's lock, and the second finds all well."""
    calm(bench).script("train.py", SAVES_AND_WAITS)
    run, other = bench.queue("train.py"), bench.queue("train.py", "-n", "other")
    bench.worker("-p", "1")
    bench.wait_for_log(run, "checkpoint_saved")
    leader = bench.leader(run)
    damage(bench)
    code, found = doctor(bench, "--repair")
    assert code == 0, not_well(found)
    assert found["folders"]["level"] == "ok"
    assert {one["id"] for one in bench.runs()} == {run, other}
    assert alive(leader)
    wait_until(lambda: "repairing" in bench.output(), saw=bench.output)
    bench.backprop("stop", run)
    bench.wait_for(run, "stopped")
    bench.wait_for_log(other, "checkpoint_saved")
    bench.backprop("stop", other)
    bench.wait_for(other, "stopped")


def test_runs_that_the_database_has_forgotten(bench: Bench) -> None:
    calm(bench).script("train.py", "print(1)")
    runs = [bench.queue("train.py")]
    copy = (bench.home / "backprop.db").read_bytes()
    runs.append(bench.queue("train.py"))
    (bench.home / "backprop.db").write_bytes(copy)
    _, found = doctor(bench)
    assert found["folders"]["level"] == "note"
    assert runs[1] in found["folders"]["told"]
    (bench.home / "backprop.db").unlink()
    code, found = doctor(bench)
    assert code == DOCTOR_FOUND
    assert "is missing" in found["database"]["told"]
    assert "2 runs" in found["database"]["told"]
    assert doctor(bench, "--repair")[0] == 0
    assert {one["id"] for one in bench.runs()} == set(runs)


def ask_database(home: Home) -> Finding:
    """What is told of it, having changed nothing."""
    before = seen(home.root)
    finding, opened = check_database(home)
    if opened is not None:
        opened.close()
    assert seen(home.root) == before
    return finding


def sql(home: Home, text: str) -> None:
    connection = sqlite3.connect(home.database, isolation_level=None)
    connection.executescript(text)
    connection.close()


def test_a_wal_database_is_dangerous_on_some_engines_only(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(home).close()
    sql(home, "PRAGMA journal_mode = WAL")
    monkeypatch.setattr(databases, "corrupts_wal", lambda: True)
    told = ask_database(home)
    assert told.level is Level.BAD
    assert "PRAGMA journal_mode=DELETE" in (told.advice or "")
    sql(home, "PRAGMA journal_mode = DELETE")
    assert ask_database(home).level is Level.OK


@pytest.mark.parametrize(
    ("content", "level", "word"),
    [
        ("PRAGMA application_id = 7; CREATE TABLE notes (text)", Level.BAD, "of another program"),
        (f"PRAGMA application_id = {runner.APPLICATION_ID}; PRAGMA user_version = {runner.LATEST + 1}",
         Level.BAD, "knows up to"),
        (b"", Level.NOTE, "upgrades it"),
        (b"SQLite form", Level.BAD, "damaged"),
        (b"\0" * 5000, Level.BAD, "damaged"),
    ],
)  # fmt: skip
def test_what_its_first_bytes_forbid(home: Home, content: str | bytes, level: Level, word: str) -> None:
    if isinstance(content, str):
        sql(home, content)
    else:
        home.database.write_bytes(content)
    told = ask_database(home)
    assert (told.level, word in told.told) == (level, True), told


CRASH = """
import os, signal, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA cache_size = 1")
c.execute("BEGIN IMMEDIATE")
for n in range(300):
    c.execute("INSERT INTO workers VALUES (?, 1, 1, 1, NULL, NULL)", (f"w{n}" * 200,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_journal_left_by_a_crash_is_no_damage(home: Home) -> None:
    open_database(home).close()
    subprocess.run([sys.executable, "-c", CRASH, str(home.database)], check=False)
    assert home.database.with_name("backprop.db-journal").exists()
    told = ask_database(home)
    assert (told.level, told.advice) == (Level.NOTE, "backprop list"), told
    open_database(home).close()
    assert ask_database(home).level is Level.OK


HOLD = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_database_that_somebody_holds_does_not_hold_the_doctor(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(home).close()
    monkeypatch.setattr(integrity, "PRAGMAS", {**integrity.PRAGMAS, "busy_timeout": 100})
    monkeypatch.setattr(integrity, "PATIENCE_S", 0.1)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(home.database)], **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        told, _ = check_database(home)
        assert holder.communicate("")[0] == ""
    assert (told.level, "locked by another process" in told.told) == (Level.BAD, True)
    assert ask_database(home).level is Level.OK


def test_something_else_where_the_database_should_be(home: Home) -> None:
    os.mkfifo(home.database, 0o600)
    assert "not a regular file" in check_home(home).told


def test_a_clock_that_was_set_back(database: Database) -> None:
    add_run(database, "r1")
    now_s = time.time()
    assert "set back" not in check_clock(database, now_s).told
    told = check_clock(database, -3600.0)
    assert told.level is Level.NOTE
    assert "3601 s behind" in told.told


def test_young_files_of_a_worker_that_is_starting_are_left_alone(home: Home) -> None:
    path = locks.worker_lock_path(home.locks, "w1")
    path.touch()
    assert check_leftovers(home, time.time()).level is Level.OK
    old(path)
    assert check_leftovers(home, time.time()).level is Level.NOTE
    held = locks.take(path)
    assert held is not None
    os.mkfifo(wake_path(home.locks, "w1"))
    old(wake_path(home.locks, "w1"))
    assert check_leftovers(home, time.time()).level is Level.OK
    os.close(held)
