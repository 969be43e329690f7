"""The schema: what the steps make is what the models say, one step at a time, whoever comes first."""

import sqlite3
import subprocess
from pathlib import Path

import peewee
import pytest

from backprop.migrations import runner, step_0004, step_0005, step_0006, step_0007, step_0008
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store import schema
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from tests.support.harness import ROOT, program
from tests.support.store_rows import add_run

TYPES = {
    peewee.TextField: "TEXT",
    peewee.IntegerField: "INTEGER",
    peewee.BooleanField: "INTEGER",
    peewee.FloatField: "REAL",
    peewee.AutoField: "INTEGER",
}
TABLES = schema.Table.__subclasses__()


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_the_steps_make_what_the_models_say(tmp_path: Path, model: type[peewee.Model]) -> None:
    connection = connect(tmp_path / "x.db")
    runner.migrate(connection, tmp_path / "x.db")
    rows = connection.execute(f"PRAGMA table_info({model._meta.table_name})").fetchall()
    connection.close()
    made = {name: (kind, bool(required), bool(key)) for _, name, kind, required, _, key in rows}
    said = {
        field.column_name: (
            TYPES[type(field)],
            not field.null,
            field.name in {one.name for one in model._meta.get_primary_keys()},
        )
        for field in model._meta.sorted_fields
    }
    assert made == said


def test_every_table_has_a_model(tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    runner.migrate(connection, tmp_path / "x.db")
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    assert {name for (name,) in rows} - {"sqlite_sequence"} == {model._meta.table_name for model in TABLES}


def test_a_step_that_fails_leaves_the_schema_before_it(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    steps = [("CREATE TABLE a (x)",), ("CREATE TABLE b (x)", "INSERT INTO nowhere VALUES (1)")]
    connection = connect(path)
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        runner.migrate(connection, path, steps)
    assert runner.version(connection) == (runner.APPLICATION_ID, 1)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    assert not connection.in_transaction
    steps[1] = ("CREATE TABLE b (x)",)
    assert runner.migrate(connection, path, steps) == 1
    assert runner.version(connection) == (runner.APPLICATION_ID, 2)
    assert runner.migrate(connection, path, steps) == 0
    connection.close()


def test_a_killed_migration_leaves_the_schema_before_it(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    done = subprocess.run([*program("killed_migration"), str(path)], check=False)
    assert done.returncode == -9
    connection = connect(path)
    assert runner.version(connection) == (runner.APPLICATION_ID, 1)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    connection.close()


def test_a_backup_is_taken_before_a_step_changes_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "it's.db"
    one = [("CREATE TABLE a (x)", "INSERT INTO a VALUES (7)")]
    connection = connect(path)
    runner.migrate(connection, path, one)
    assert [entry.name for entry in tmp_path.iterdir()] == ["it's.db"], "there was nothing to lose"
    backup = tmp_path / "it's.db.v1.bak"
    backup.write_text("of an attempt that was killed")
    runner.migrate(connection, path, [*one, ("DROP TABLE a",)])
    connection.close()
    kept = connect(backup)
    assert kept.execute("SELECT x FROM a").fetchall() == [(7,)]
    assert runner.version(kept) == (runner.APPLICATION_ID, 1)
    kept.close()
    assert backup.stat().st_mode & 0o777 == 0o600


def test_an_older_home_is_brought_up_to_date_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = layout.ensure(Home(tmp_path / "home"))
    opened = open_database(home)
    add_run(opened, "old")
    opened.close()
    monkeypatch.setattr(runner, "STEPS", (*runner.STEPS, ("CREATE TABLE more (x)",)))
    monkeypatch.setattr(runner, "LATEST", runner.LATEST + 1)
    monkeypatch.setattr(runner.migrate, "__defaults__", (runner.STEPS,))
    opened = open_database(home)
    assert [run.id for run in queries.list_runs(opened)] == ["old"]
    opened.close()
    assert (home.root / f"backprop.db.v{runner.LATEST - 1}.bak").exists()
    connection = connect(home.database)
    assert runner.version(connection) == (runner.APPLICATION_ID, runner.LATEST)
    connection.close()


REASON = "waited for p to complete, which has failed; kept: backprop resume p"


@pytest.mark.parametrize(
    ("state", "segment", "parent", "reason", "noted"),
    [
        ("queued", 0, "p", REASON, "p"),
        ("held", 0, "p", REASON, "p"),
        ("queued", 0, "p", "waits for p to complete", None),
        ("queued", 0, "q", REASON, None),
        ("queued", 1, "p", REASON, None),
        ("stopped", 0, "p", REASON, None),
    ],
)
def test_the_parent_of_a_kept_run_is_taken_from_its_sentence(
    tmp_path: Path, state: str, segment: int, parent: str, reason: str, noted: str | None
) -> None:
    """Schema 1 knew it from there only. Whatever merely reads like it is left alone."""
    path = tmp_path / "x.db"
    connection = connect(path)
    runner.migrate(connection, path, runner.STEPS[:1])
    values = {
        "id": "c", "name": "c", "state": state, "reason": reason, "spec": "{}", "segment": segment,
        "ended_at_s": 1.0 if state == "stopped" else None,
    } | dict.fromkeys(
        ("created_at_s", "queued_at_s", "priority", "turn_s", "not_before_s", "chain_start", "chain_total_s",
         "stalled", "retries_used", "lost", "oom_retries"), 0
    )  # fmt: skip
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", tuple(values.values()))
    connection.execute("INSERT INTO dependencies VALUES ('c', ?, 'success')", (parent,))
    runner.migrate(connection, path)
    rows = connection.execute("SELECT unsatisfied_parent, reason FROM runs").fetchall()
    connection.close()
    assert rows == [(noted, reason)]


ADVICE = "backprop resume c --resume-from PATH, or --from-scratch"


@pytest.mark.parametrize(
    ("state", "reason", "noted"),
    [
        ("held", f"none of its checkpoints is good any more (/a/1.pt: it is gone); {ADVICE}", True),
        ("held", f"the checkpoint to resume from is gone: /a/1.pt; {ADVICE}", True),
        ("held", "held by the user", False),
        ("held", "can't run here: needs 40 GiB of VRAM, the largest GPU has 24 GiB", False),
        ("queued", f"the checkpoint to resume from is gone: /a/1.pt; {ADVICE}", False),
    ],
)
def test_what_a_run_is_held_for_is_taken_from_its_sentence(
    tmp_path: Path, state: str, reason: str, noted: bool
) -> None:
    path = tmp_path / "home" / "backprop.db"
    opened = open_database(layout.ensure(Home(path.parent)))
    add_run(opened, "c")
    opened.close()
    connection = connect(path)
    connection.execute("UPDATE runs SET state = ?, reason = ?", (state, reason))
    connection.execute("DROP TABLE known_requests")
    connection.execute("DROP TABLE clock_changes")
    connection.execute("DROP TABLE suspensions")
    connection.execute("DROP INDEX segments_by_end")
    connection.execute("DROP TABLE clusters")
    for index in ("runs_by_key", "runs_by_turn", "segments_by_token"):
        connection.execute(f"DROP INDEX {index}")
    connection.execute("ALTER TABLE runs DROP COLUMN cluster")
    steps = (step_0004, step_0005, step_0006, step_0007, step_0008)
    later = [statement for step in steps for statement in step.STATEMENTS]
    for added in (statement for statement in later if " ADD COLUMN " in statement):
        table, _, column = added.removeprefix("ALTER TABLE ").partition(" ADD COLUMN ")
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column.split()[0]}")
    connection.execute("ALTER TABLE runs DROP COLUMN host_faults")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    opened = open_database(Home(path.parent))
    held = queries.held_for_something(opened, 10)
    opened.close()
    assert [(run.id, run.waiting[0].rule) for run in held] == ([("c", "missing path")] if noted else [])


def test_two_processes_open_a_new_home_at_once(tmp_path: Path) -> None:
    """Twenty times: both succeed, one creates it, and neither takes the other's half for a foreign database."""
    racers = [
        subprocess.Popen(
            [*program("open_new_homes"), who, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for who in "ab"
    ]
    for _ in range(20):
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdin is not None
            racer.stdout.readline()
        for racer in racers:
            racer.stdin.write("\n")  # type: ignore[union-attr]
            racer.stdin.flush()  # type: ignore[union-attr]
    for racer in racers:
        _, errors = racer.communicate(timeout=60)
        assert (racer.returncode, errors) == (0, "")
    for number in range(20):
        opened = open_database(Home(tmp_path / str(number)))
        assert {run.id for run in queries.list_runs(opened)} == {"a", "b"}
        opened.close()


def test_the_open_database_is_the_latest(database: Database) -> None:
    assert database.read(lambda: runner.version(database._db.connection())) == (
        runner.APPLICATION_ID,
        runner.LATEST,
    )
