"""What `list` shows first, and how it is folded; sweeps keep their parameters; `@` is the newest run."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from backprop.cli.render.run_rows import Picture, rows_of
from backprop.cli.submit.names import checked_run_name
from backprop.scheduler.errors import BadCommand, UnknownRun
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import filters, listing, queries
from backprop.scheduler.store.reads.filters import NO_FILTERS, Filters, Sort, with_states
from backprop.scheduler.store.rows import execute
from tests.support.harness import Bench
from tests.support.store_rows import SPEC, add_run, enqueue_run
from tests.support.terminal import Terminal


def picture(database: Database) -> Picture:
    live = [add_run(database, "r1", State.RUNNING, "one")]
    queued = [add_run(database, f"q{number}", name=f"waits {number}") for number in range(30)]
    recent = [add_run(database, f"f{number}", State.FAILED, f"broke {number}") for number in range(3)]
    segments = {segment.run_id: segment for segment in queries.live_segments(database)[1]}
    counts = {State.RUNNING: 1, State.QUEUED: 30, State.FAILED: 3}
    return Picture(live, queued, recent, segments, counts, left={"r1": 540.0})


def test_running_next_and_failed_come_first_and_the_rest_is_counted(database: Database) -> None:
    shown = picture(database).cut(12)
    columns, rows = rows_of(shown, 62.0, with_ids=False)
    cells = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [cell["STATE"] for cell in cells] == ["running"] + ["queued"] * 8 + ["failed"] * 3
    assert [cell["TURN"] for cell in cells[:4]] == ["", "1", "2", "3"]
    assert cells[0]["TIME"] == "9:00 left"
    assert [cell["REASON"] for cell in cells[1:4]] == ["queued", '"', '"']
    assert shown.rest() == "22 queued"
    assert "ID" not in columns
    assert "ID" in rows_of(shown, 62.0, with_ids=True)[0]


def test_ids_are_shown_where_names_do_not_tell_runs_apart(database: Database) -> None:
    twice = [add_run(database, run_id, name="same") for run_id in ("a", "b")]
    assert rows_of(Picture([], twice, [], {}, {}), 2.0, with_ids=False)[0][0] == "ID"


def test_troubles_of_the_last_day(database: Database) -> None:
    for number in range(3):
        add_run(database, f"f{number}", State.FAILED)
    add_run(database, "h", State.HELD)
    add_run(database, "c", State.COMPLETED)
    states = (State.FAILED, State.HELD)
    assert {run.id for run in listing.recently_ended(database, NO_FILTERS, states, 0.0, 9)} == {
        "f0",
        "f1",
        "f2",
        "h",
    }
    assert len(listing.recently_ended(database, NO_FILTERS, states, 0.0, 2)) == 2
    assert listing.recently_ended(database, NO_FILTERS, (State.FAILED,), 4.0, 9) == []
    assert listing.counts_by_state(database, Filters(name="none")) == {}
    counts = {State.HELD: 1, State.COMPLETED: 1, State.FAILED: 3}
    assert listing.counts_by_state(database, NO_FILTERS) == counts
    assert listing.counts_by_state(database, Filters(name="*")) == counts


def add_thousands(database: Database) -> None:
    """Add a queued run, 5,000 that have completed and 500 that have failed."""
    add_run(database, "q")
    add_run(database, "f", State.FAILED)
    add_run(database, "c", State.COMPLETED)
    new = {"id": "state || value", "ended_at_s": "value + 9000 * (state = 'failed')"}
    names = [name for _, name, *_ in database.rows("PRAGMA table_info(runs)")]
    database.rows(
        "WITH RECURSIVE numbers(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < 4999)"
        f" INSERT INTO runs SELECT {', '.join(new.get(name, name) for name in names)} FROM runs, numbers"
        " WHERE state = 'completed' OR (state = 'failed' AND value < 500)"
    )


def test_list_and_status_do_not_go_through_all_that_has_ended(database: Database) -> None:
    add_thousands(database)
    well = (State.COMPLETED, State.STOPPED)
    looks = (
        lambda: listing.recently_ended(database, NO_FILTERS, well, 0.0, 5)[0].id == "completed4999",
        lambda: (
            listing.recently_ended(database, NO_FILTERS, (State.FAILED, State.HELD), 9495.0, 5)[0].id
            == "failed499"
        ),
        lambda: queries.state_counts(database)[State.COMPLETED] == 5000,
    )
    assert all(thousands_of_steps(database, look) <= 10 for look in looks)


def test_a_name_is_looked_up_once_and_costs_no_look_at_all_that_has_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_thousands(database)
    database.write(lambda: execute("UPDATE runs SET name = 'rare' WHERE id IN ('q', 'completed7')", ()))
    monkeypatch.setattr(filters, "FEW", 100)
    monkeypatch.setattr(listing, "COUNTED", 200)
    rare = listing.looked_up(database, Filters(name="r[a]re"))
    common = listing.looked_up(database, Filters(name="tr*"))
    assert (listing.is_common(rare), listing.is_common(common)) == (False, True)
    live, well = (State.RUNNING, State.PAUSED), (State.COMPLETED, State.STOPPED)
    looks = (
        lambda: listing.counts_by_state(database, rare) == {State.QUEUED: 1, State.COMPLETED: 1},
        lambda: listing.counts_by_state(database, common) == {State.COMPLETED: 201, State.FAILED: 201},
        lambda: [run.id for run in listing.list_runs(database, rare, Sort.TURN, limit=9)] == ["q"],
        lambda: [run.id for run in listing.list_runs(database, rare, limit=9)] == ["completed7", "q"],
        lambda: len(listing.list_runs(database, common, limit=9)) == 9,
        lambda: listing.list_runs(database, with_states(common, live), limit=9) == [],
        lambda: [run.id for run in listing.recently_ended(database, rare, well, 0.0, 9)] == ["completed7"],
        lambda: listing.recently_ended(database, common, well, 0.0, 9)[0].id == "completed4999",
    )
    assert all(thousands_of_steps(database, look) <= 15 for look in looks)


def test_a_common_name_is_not_counted_to_the_end(database: Database) -> None:
    run = add_run(database, "c", State.COMPLETED)
    counts = {State.QUEUED: 3, State.COMPLETED: 201}
    shown = Picture([], [], [run], {}, counts, counted=200)
    assert shown.rest() == "3 queued, more than 199 completed"


def thousands_of_steps(database: Database, look: Callable[[], bool]) -> int:
    """Return how many thousands of SQLite's instructions a look takes, which has to return True."""
    steps: list[int] = []
    connection = database._db.connection()
    connection.set_progress_handler(lambda: steps.append(1), 1000)
    try:
        assert look()
    finally:
        connection.set_progress_handler(None, 0)
    return len(steps)


def test_runs_are_sorted_by_a_parameter_as_a_number(database: Database) -> None:
    for run_id, lr in (("a", "1e-3"), ("b", "3e-5"), ("c", "0.1")):
        enqueue_run(database, run_id, "n", replace(SPEC, params={"lr": lr}), 1.0)
    add_run(database, "none")
    found = listing.list_runs(database, parameter="lr")
    assert [run.id for run in found] == ["b", "a", "c", "none"]
    found = listing.list_runs(database, parameter="lr", reverse=True, limit=2)
    assert [run.id for run in found] == ["c", "a"]


@pytest.mark.parametrize("name", ["lr=1e-3,seed=0", "a + b", "実験 7", "größe", "🚀", "n" * 64, "{x}"])
def test_names_of_any_letters(name: str) -> None:
    assert checked_run_name("--name", name) == name


@pytest.mark.parametrize("name", ["", " a", "a ", "-a", ".a", "@a", "a/b", "a\nb", "n" * 65, "a\x1b[2J"])
def test_names_that_would_mean_something_else(name: str) -> None:
    with pytest.raises(BadCommand):
        checked_run_name("--name", name)


def test_the_newest_run_has_a_short_name(database: Database) -> None:
    for number in range(3):
        add_run(database, f"r{number}")
    assert queries.find_run(database, "@").id == "r2"
    assert queries.find_run(database, "@~2").id == "r0"
    with pytest.raises(UnknownRun, match="not so many runs"):
        queries.find_run(database, "@~3")


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_what_fits(bench: Bench, columns: int) -> None:
    bench.script("train.py", "print(1)")
    done = bench.backprop(
        "run",
        "-q",
        "--grid",
        "lr=1,2",
        "--grid",
        "s=0..39",
        "train.py",
        "-n",
        "実験 lr={lr},s={s}",
        "--",
        "{lr}",
        "{s}",
    )
    assert done.returncode == 0, done.stderr
    with Terminal(bench, columns, "list") as terminal:
        head, *rows, rest = terminal.read_all().splitlines()
    assert head.split()[:3] == ["NAME", "STATE", "TURN"]
    assert "実験 lr=1,s=0" in rows[0]
    assert len(rows) < 80
    assert rest.startswith("… and ")
    assert "queued; all: " in rest
    (one, *_) = bench.runs()
    assert one["params"] == {"lr": "2", "s": "39"}
