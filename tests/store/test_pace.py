"""Speeds and totals out of the rows of runs, and the words that are made of them."""

import time

from msgspec.structs import replace

from backprop.cli.render import outlook
from backprop.scheduler.config.active_hours import parse_all
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import pace, queries
from backprop.scheduler.store.writes import claims
from tests.support.store_rows import SPEC, add_run, enqueue_run


def stepped(database: Database, run_id: str, step: int, total: int | None) -> None:
    """Let a live run of the store, started at 2.0, have come to its first step after 10 s, and then to `step`."""
    database.write(
        lambda: database_execute(
            "UPDATE runs SET last_step = ?, step_total = ?, step_source = 'log' WHERE id = ?",
            step,
            total,
            run_id,
        )
    )
    database.write(
        lambda: database_execute(
            "UPDATE segments SET first_step = 0, first_step_s = 10.0 WHERE run_id = ?", run_id
        )
    )


def database_execute(statement: str, *values: object) -> None:
    from backprop.scheduler.store.connection import proxy

    proxy.execute_sql(statement, values)


def test_a_measured_run_is_told_from_its_speed(database: Database) -> None:
    add_run(database, "a", State.RUNNING)
    stepped(database, "a", 100, 400)
    seen = pace.night(database, 112.0, 2, False)
    found = seen.paces["a"]
    assert (found.total, found.total_source, found.steps_per_s, found.restart_s) == (400, "log", 1.0, 10.0)
    assert found.work_s == 300
    assert found.source == "400 steps from its output, 1 per second"
    assert seen.told is not None
    assert seen.told.ends == {"a": 300}
    assert outlook.end_words(seen, "a", 0.0) == f"≈{time.strftime('%H:%M', time.localtime(300))}"


def test_siblings_tell_of_what_has_not_begun(database: Database) -> None:
    add_run(database, "a", State.RUNNING)
    stepped(database, "a", 100, 400)
    add_run(database, "b")
    found = pace.night(database, 112.0, 2, False).paces["b"]
    assert (found.work_s, found.restart_s, found.source) == (400, 10.0, "as long as another run like it")


def test_nothing_is_told_where_nothing_is_known(database: Database) -> None:
    add_run(database, "a", State.RUNNING)
    enqueue_run(database, "b", "b", replace(SPEC, script="/other.py"), 1.0)
    seen = pace.night(database, 50.0, 2, False)
    assert {one.work_s for one in seen.paces.values()} == {None}
    assert outlook.end_words(seen, "a", 50.0) == "?"
    assert outlook.night_words(seen, 50.0) is None, "rather than a bad number"
    for slots, closed in ((0, False), (2, True)):
        assert pace.night(database, 50.0, slots, closed).told is None
    assert outlook.night_words(pace.night(database, 50.0, 0, False), 50.0) is None


def test_a_total_of_the_command_line(database: Database) -> None:
    run = add_run(
        database, "a", State.RUNNING, spec=replace(SPEC, argv=("python", "train.py", "--steps", "200"))
    )
    stepped(database, run.id, 50, None)
    found = pace.night(database, 62.0, 1, False).paces["a"]
    assert (found.total, found.total_source, found.work_s) == (200, "argv", 150)


def test_those_that_have_completed_tell_how_long_it_takes(database: Database) -> None:
    add_run(database, "done", State.COMPLETED)
    database.write(lambda: database_execute("UPDATE runs SET chain_total_s = 70.0 WHERE id = ?", "done"))
    add_run(database, "next")
    assert pace.night(database, 9.0, 1, False).paces["next"].work_s == 70


def test_a_chain_of_dependencies_is_told_in_its_order(database: Database) -> None:
    add_run(database, "done", State.COMPLETED)
    database.write(lambda: database_execute("UPDATE runs SET chain_total_s = 70.0 WHERE id = ?", "done"))
    for run_id in ("a", "b", "c", "mends", "h", "of held"):
        add_run(database, run_id, State.HELD if run_id == "h" else State.QUEUED)
    links = [("b", "a", "success"), ("c", "b", "any"), ("mends", "a", "fail"), ("of held", "h", "success")]
    for link in (*links, ("a", "done", "success")):
        database.write(lambda link=link: database_execute("INSERT INTO dependencies VALUES (?, ?, ?)", *link))
    told = pace.night(database, 9.0, 4, False).told
    assert told is not None
    assert told.ends == {"a": 70, "b": 140, "c": 210}, "the others wait for a failure, or for their user"
    assert told.all_s == 210


def test_the_hours_of_living_workers_count(database: Database) -> None:
    claims.worker_started(database, "w1", 1, 2, 1.0, ("22:00-08:00",))
    claims.worker_started(database, "w2", 1, 2, 2.0)
    one, two = queries.workers(database)
    assert (one.active_hours, two.active_hours) == (("22:00-08:00",), ())
    assert outlook.hours_of([one]) == parse_all(("22:00-08:00",))
    assert outlook.hours_of([one, two]) == outlook.hours_of([]) == (), "one of them starts runs at any time"
    old = replace(one, active_hours=None)
    assert outlook.hours_of([old]) == ()
