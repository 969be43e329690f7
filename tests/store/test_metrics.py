"""What is kept of the numbers that a run reports: one value a name and five seconds, the last one; never a flood."""

import json
import sqlite3
import time

from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import MetricRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import metrics, queries
from backprop.scheduler.store.writes import claims, progress
from backprop.scheduler.store.writes.progress import SegmentReport
from tests.support.harness import Bench
from tests.support.store_rows import add_run, claimed, get


def hear(
    database: Database, run_id: str, segment: int, at_s: float, step: int | None, **values: float
) -> None:
    """One batch, as the worker stores it."""
    row = queries.segment(database, run_id, segment)
    assert row is not None
    said = [MetricRecord(run_id, segment, at_s, step, name, value) for name, value in values.items()]
    heard = SegmentReport(
        log_from=row.log_offset, log_to=row.log_offset + 1, events_from=0, events_to=0, metrics=said
    )
    assert progress.record(database, run_id, segment, heard)


def kept(database: Database, run_id: str, name: str = "loss") -> list[tuple[int | None, float]]:
    return [(one.step, one.value) for one in metrics.of_runs(database, [run_id]) if one.name == name]


def test_one_value_a_name_and_five_seconds_the_last_one(database: Database) -> None:
    claimed(database, add_run(database, "r1"))
    for tick in range(100):
        hear(database, "r1", 1, 1000.0 + tick, tick, loss=1.0 / (tick + 1), accuracy=tick / 100)
    rows = kept(database, "r1")
    assert len(rows) == 20
    assert rows[0] == (4, 1 / 5)
    assert rows[-1] == (99, 1 / 100), "the very last"
    assert len(kept(database, "r1", "accuracy")) == 20
    assert metrics.latest(database, ["r1", "nobody"], "loss") == {"r1": 1 / 100}
    assert metrics.report_times(database, "r1", 6) == [(1, 1089.0), (1, 1094.0), (1, 1099.0)], "of two names"
    assert metrics.latest_of_each(database, ["r1", "nobody"]) == {
        "r1": {"accuracy": 0.99, "loss": 1 / 100},
        "nobody": {},
    }


def test_a_new_segment_keeps_the_last_word_of_the_one_before(database: Database) -> None:
    run = claimed(database, add_run(database, "r1"))
    hear(database, "r1", 1, 1000.0, 7, loss=0.5)
    claims.apply_result(
        database, run, NextMove(Event.REQUEUED, SegmentOutcome.TEMPFAIL, "again"), SegmentResult(), 1000.5
    )
    claimed(database, get(database, "r1"))
    hear(database, "r1", 2, 1001.0, 8, loss=0.4)
    assert kept(database, "r1") == [(7, 0.5), (8, 0.4)]


def test_at_most_thirty_two_names_a_run(database: Database) -> None:
    claimed(database, add_run(database, "r1"))
    hear(database, "r1", 1, 1000.0, 1, **{f"m{number:02}": 1.0 for number in range(40)})
    hear(database, "r1", 1, 2000.0, 2, **{f"m{number:02}": 2.0 for number in reversed(range(40))})
    values = metrics.latest_of_each(database, ["r1"])["r1"]
    assert list(values) == [f"m{number:02}" for number in range(32)]
    assert set(values.values()) == {2.0}


def test_names_stay_quick_to_find_when_a_night_is_kept(database: Database) -> None:
    """Eight hours of ten names: as many index look-ups as names, not a pass over 57,600 rows."""
    claimed(database, add_run(database, "r1"))
    database_rows(
        database,
        "WITH RECURSIVE t (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t WHERE n < 57599)"
        " INSERT INTO metrics (run_id, segment, at_s, step, name, value)"
        " SELECT 'r1', 1, n / 2.0, n / 10, 'm' || (n % 10), n FROM t",
    )
    began_s = time.process_time()
    for _ in range(20):
        assert len(metrics.latest_of_each(database, ["r1"])["r1"]) == 10
    quick_s = time.process_time() - began_s
    began_s = time.process_time()
    for _ in range(20):
        database_rows(database, "SELECT DISTINCT name FROM metrics WHERE run_id = 'r1' AND +value >= 0")
    slow_s = time.process_time() - began_s
    assert quick_s < slow_s, f"{quick_s:.3f} s against {slow_s:.3f} s for reading all"


def database_rows(database: Database, statement: str) -> list[object]:
    """Behind the store's back, over the connection that is open."""
    return database.write(lambda: list(database._db.execute_sql(statement)))  # pyright: ignore[reportPrivateUsage]


def test_a_run_that_prints_its_numbers_has_them_in_the_database(bench: Bench) -> None:
    bench.script(
        "train.py",
        """
        import json
        for step in range(2000):
            print(json.dumps({"step": step, "loss": 1 / (step + 1), "metrics": {"acc": step / 2000, "loss": 9}}))
        """,
    )
    run = bench.queue("train.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    store = sqlite3.connect(bench.home / "backprop.db")
    rows = store.execute(
        "SELECT name, step, value FROM metrics WHERE run_id = ? ORDER BY serial", (run,)
    ).fetchall()
    store.close()
    assert len(rows) < 20, "2,000 steps in a moment"
    assert {name: (step, value) for name, step, value in rows} == {
        "acc": (1999, 1999 / 2000),
        "loss": (1999, 1 / 2000),
    }
    assert json.loads(bench.backprop("show", run, "--json").stdout)["last_step"] == 1999
