"""Choosing runs by names, groups and filters: which are meant, in which order, and what each verb says it has done."""

import json
from datetime import datetime

import click
import pytest

from backprop.cli.options.times import read_since
from backprop.scheduler.errors import AmbiguousRun, UnknownRun
from backprop.scheduler.home import batch_outcomes, run_folder
from backprop.scheduler.lifecycle import State
from backprop.scheduler.spec import NewRun, QueuePosition
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import filters, listing, queries, selection
from backprop.scheduler.store.reads.filters import NO_FILTERS, Filters, Sort, conditions, order
from backprop.scheduler.store.reads.listing import list_runs
from backprop.scheduler.store.writes import enqueue, user_requests
from tests.support.harness import QUIET_LIMITS, Bench, wait_until
from tests.support.refusals import refused
from tests.support.store_rows import SPEC, add_run, enqueue_run, get
from tests.support.terminal import Terminal

DAY_S = 86400.0


def several(database: Database, group: str | None, *ids: str, name: str = "train", at_s: float = 1.0) -> None:
    place = QueuePosition(group=group)
    new = [NewRun(id=run_id, name=f"{name}-{run_id}", spec=SPEC, place=place) for run_id in ids]
    enqueue.enqueue_all(database, new, at_s)


def ids(runs: list[queries.RunRecord] | list[selection.Chosen]) -> list[str]:
    return [run.id for run in runs]


def listed(database: Database, **filters: object) -> list[str]:
    return ids(listing.list_runs(database, Filters(**filters)))  # type: ignore[arg-type]


def test_filters_hold_together(database: Database) -> None:
    several(database, "g", "a1", "a2", at_s=100.0)
    several(database, "h", "b1", name="wide", at_s=200.0)
    several(database, None, "c1", at_s=300.0)
    user_requests.hold(database, ["a1", "b1"], "why")
    assert listed(database) == ["c1", "b1", "a2", "a1"]
    assert listed(database, states=(State.HELD,)) == ["b1", "a1"]
    assert listed(database, states=(State.HELD, State.QUEUED), group="g") == ["a2", "a1"]
    assert listed(database, since_s=150.0) == ["c1", "b1"]
    assert listed(database, name="train-a?") == ["a2", "a1"]
    assert listed(database, name="train-a?", states=(State.QUEUED,)) == ["a2"]
    assert listed(database, name="train-[!a]*") == ["c1"]
    assert listed(database, name="TRAIN*") == []
    assert listed(database, name="*b1") == ["b1"]
    assert listed(database, name="wide-b1", group="h", since_s=200.0, states=(State.HELD,)) == ["b1"]
    assert listing.count(database, Filters(group="g"), 10) == 2
    assert listing.count(database, NO_FILTERS, 3) == 3, "no further than it is told"


def test_a_common_name_is_found_like_a_rare_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    several(database, None, *(f"r{number}" for number in range(6)))
    expected = ["r5", "r4", "r3", "r2", "r1", "r0"]
    assert listed(database, name="train-r*") == expected
    monkeypatch.setattr(filters, "FEW", 3)
    assert listed(database, name="train-r*") == expected
    assert listed(database, name="train-r[12]") == ["r2", "r1"]


def test_every_order_both_ways_with_what_is_missing_last(database: Database) -> None:
    for number, (step, loss) in enumerate([(5, 0.5), (9, None), (None, 0.1)]):
        add_run(database, f"r{number}", name="cab"[number])
        raw(database, "UPDATE runs SET last_step = ?, last_loss = ? WHERE id = ?", step, loss, f"r{number}")
        raw(database, "UPDATE runs SET created_at_s = ? WHERE id = ?", float(number), f"r{number}")
    add_run(database, "done", State.COMPLETED, name="d")
    raw(database, "UPDATE runs SET created_at_s = 9 WHERE id = 'done'")

    def order(sort: Sort, reverse: bool = False) -> list[str]:
        every = ids(listing.list_runs(database, sort=sort, reverse=reverse))
        for limit in (1, 3):
            assert ids(listing.list_runs(database, sort=sort, reverse=reverse, limit=limit)) == every[:limit]
        return every

    assert order(Sort.AGE) == ["done", "r2", "r1", "r0"]
    assert order(Sort.AGE, reverse=True) == ["r0", "r1", "r2", "done"]
    assert order(Sort.NAME) == ["r1", "r2", "r0", "done"]
    assert order(Sort.STEP) == ["r1", "r0", "done", "r2"]
    assert order(Sort.STEP, reverse=True) == ["r0", "r1", "done", "r2"]
    assert order(Sort.LOSS) == ["r2", "r0", "done", "r1"]
    assert order(Sort.LOSS, reverse=True) == ["r0", "r2", "done", "r1"]
    assert order(Sort.SEGMENTS) == ["done", "r2", "r1", "r0"]
    assert order(Sort.ENDED) == ["done", "r2", "r1", "r0"]
    assert order(Sort.STATE) == ["r2", "r1", "r0", "done"]
    assert order(Sort.STATE, reverse=True) == ["done", "r2", "r1", "r0"]


def raw(database: Database, statement: str, *values: object) -> None:
    from backprop.scheduler.store.connection import proxy

    database.write(lambda: proxy.execute_sql(statement, values))


def test_the_newest_of_several_states_are_the_newest_of_all(database: Database) -> None:
    for number in range(6):
        several(database, None, f"r{number}", at_s=float(number))
    user_requests.stop_waiting(database, ["r0", "r3", "r5"], 10.0)
    both = Filters(states=(State.STOPPED, State.QUEUED))
    assert ids(listing.list_runs(database, both, limit=3)) == ["r5", "r4", "r3"]
    assert ids(listing.list_runs(database, both, Sort.AGE, True, 3)) == ["r0", "r1", "r2"]


def test_a_word_is_an_id_a_group_a_name_or_the_beginning_of_an_id(database: Database) -> None:
    several(database, "sweep", "s-1", "s-2", at_s=0.5)
    add_run(database, "abc1", name="base")
    assert ids(selection.choose(database, ["sweep", "abc1"], NO_FILTERS)) == ["s-1", "s-2", "abc1"]
    assert ids(selection.choose(database, ["base"], NO_FILTERS)) == ["abc1"]
    assert ids(selection.choose(database, ["ab", "abc1"], NO_FILTERS)) == ["abc1"]
    assert [one.named for one in selection.choose(database, ["sweep", "s-1"], NO_FILTERS)] == [True, False]
    assert ids(selection.choose(database, ["sweep"], Filters(name="*-2"))) == ["s-2"]
    assert selection.choose(database, ["abc1"], Filters(states=(State.FAILED,))) == []
    with pytest.raises(UnknownRun, match="no run has the id or name nope"):
        selection.choose(database, ["sweep", "nope"], NO_FILTERS)
    add_run(database, "abc2", name="base")
    with pytest.raises(AmbiguousRun, match="2 runs are named base"):
        selection.choose(database, ["base"], NO_FILTERS)
    add_run(database, "xyz", name="sweep")
    with pytest.raises(
        AmbiguousRun, match="sweep is a group, and the name of run xyz too; say --group sweep"
    ):
        selection.choose(database, ["sweep"], NO_FILTERS)


def test_a_bulk_verb_leaves_alone_what_has_moved_on(database: Database) -> None:
    for run_id, state in (
        ("q", State.QUEUED),
        ("h", State.HELD),
        ("r", State.RUNNING),
        ("c", State.COMPLETED),
    ):
        add_run(database, run_id, state)
    every = ["q", "h", "r", "c", "gone"]
    assert user_requests.hold(database, every, "why") == ["q"]
    assert user_requests.release(database, every) == ["q", "h"]
    assert user_requests.stop_waiting(database, every, 9.0) == ["q", "h"]
    assert (get(database, "q").state, get(database, "q").ended_at_s) == (State.STOPPED, 9.0)
    assert user_requests.resume(database, every, {}, None, 20.0) == ["q", "h", "c"]
    assert get(database, "r").state is State.RUNNING
    assert [run.id for run in queries.queue(database, 30.0)] == ["q", "h", "c"], (
        "in the order they were given"
    )
    again = get(database, "c")
    assert (again.chain_start, again.ended_at_s, again.queued_at_s) == (1, None, 20.0)


def test_thousands_are_stopped_in_one_transaction(database: Database) -> None:
    many = [f"r{number}" for number in range(3000)]
    several(database, "g", *many)
    chosen = selection.choose(database, ["g"], NO_FILTERS)
    assert ids(chosen) == many
    assert user_requests.stop_waiting(database, ids(chosen), 5.0) == many
    assert queries.state_counts(database) == {State.STOPPED: 3000}


NOON = datetime(2026, 11, 23, 12, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOON - 7200),
        ("1d12h", NOON - 1.5 * DAY_S),
        ("0.5h30s", NOON - 1830),
        ("1w", NOON - 7 * DAY_S),
        ("11:30", NOON - 1800),
        ("22:00", datetime(2026, 11, 22, 22, 0).timestamp()),
        ("2026-11-20", datetime(2026, 11, 20).timestamp()),
        ("2026-11-20T22:00", datetime(2026, 11, 20, 22, 0).timestamp()),
        ("2026-11-20T22:00+00:00", 1795212000.0),
    ],
)
def test_since(text: str, expected: float) -> None:
    assert read_since(text, NOON) == expected


@pytest.mark.parametrize("text", ["", "2", "2 hours", "-2h", "25:00", "2026-13-01", "yesterday", "9999999d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises((click.BadParameter, UnknownRun)):
        read_since(text, NOON)
        raise UnknownRun("nine million days are a time, if a useless one")


def test_list_filters_sorts_and_counts(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    for number in range(4):
        bench.queue("train.py", "--run-id", f"r{number}", "-n", f"n{3 - number}")
    bench.backprop("hold", "r1", "r2")

    def rows(*words: str) -> list[str]:
        done = bench.backprop("list", *words)
        assert done.returncode == 0, done.stderr
        return [line.split()[0] for line in done.stdout.splitlines()[1:]]

    assert rows("--state", "held") == ["r2", "r1"]
    assert rows("--state", "held,queued", "--sort", "name") == ["r3", "r2", "r1", "r0"]
    assert rows("--sort", "name", "--reverse", "-n", "2") == ["r0", "r1"]
    assert rows("--name", "n[01]") == ["r3", "r2"]
    assert rows("--since", "1h") == ["r3", "r2", "r1", "r0"]
    found = json.loads(bench.backprop("list", "--json", "--state", "held", "--reverse").stdout)
    assert [one["id"] for one in found] == ["r1", "r2"]
    more = bench.backprop("list", "-n", "1", "--state", "held")
    assert more.stderr == "… and 1 more; show all with -n 0\n"
    none = bench.backprop("list", "--state", "failed")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "no run matches\n")
    assert "unknown state no; use one or more of queued, submitted, running" in refused(
        bench, 2, "list", "--state", "held,no"
    )
    assert "soon is not a valid time" in refused(bench, 2, "list", "--since", "soon")


@pytest.mark.parametrize("columns", [80, 200])
def test_a_filtered_list_fits_the_terminal(bench: Bench, columns: int) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py", "--run-id", "r1", "-n", "n" * 60, "--group", "g")
    with Terminal(bench, columns, "list", "--group", "g", "--sort", "ended") as terminal:
        lines = terminal.read_all().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= columns for line in lines)


def test_filters_alone_say_first_how_many(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    done = bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-25", "--group", "g", "train.py")
    assert done.returncode == 0, done.stderr
    bench.queue("train.py", "--run-id", "other")
    for words, verb in ((("hold",), "held"), (("release",), "released"), (("stop",), "stopped")):
        rehearsed = bench.backprop(*words, "--group", "g", "--dry-run").stdout.splitlines()
        assert rehearsed[0] == f"would {words[0]} 25 runs"
        assert len(rehearsed) == 26, "all of them"
        lines = bench.backprop(*words, "g").stdout.splitlines()
        assert lines[0] == f"{verb} 25 runs"
        assert (len(lines), lines[-1]) == (22, "  … and 5 more")
    assert bench.state("other") == "queued"
    assert "no run that matches --group g can be stopped: 25 stopped" in refused(
        bench, 3, "stop", "--group", "g"
    )
    assert "no run matches --state failed --group g" in refused(
        bench, 3, "hold", "--group", "g", "--state", "failed"
    )
    again = bench.backprop("resume", "--group", "g", "--name", "*-1?", "-m", "3")
    assert again.stdout.splitlines()[0] == "queued 10 runs again"
    spec = json.loads(str(bench.column(bench_id(bench, "train-12"), "spec")))
    assert spec["timebox_s"] == 180
    assert "no runs given: name one" in refused(bench, 2, "stop")


def bench_id(bench: Bench, name: str) -> str:
    return next(run["id"] for run in bench.runs() if run["name"] == name)


def test_resume_leaves_completed_members_alone(bench: Bench) -> None:
    bench.script("train.py", "import sys; sys.exit(int(sys.argv[1]))")
    for code in (0, 1):
        bench.queue("train.py", "--run-id", f"r{code}", "--group", "g", "--", str(code))
    bench.worker("--drain").wait(timeout=60)
    assert (bench.state("r0"), bench.state("r1")) == ("completed", "failed")
    assert bench.backprop("resume", "g").stdout.splitlines()[0] == "queued 1 run again"
    assert (bench.state("r0"), bench.state("r1")) == ("completed", "queued")
    assert bench.backprop("resume", "r0").returncode == 0
    bench.backprop("stop", "g")
    assert bench.backprop("resume", "--group", "g", "--state", "stopped,completed").returncode == 0
    assert (bench.state("r0"), bench.state("r1")) == ("queued", "queued")
    bench.backprop("stop", "g")
    assert "--follow takes one run, and these are 2" in refused(bench, 2, "resume", "--follow", "g")


def test_running_and_waiting_members_are_stopped_alike(bench: Bench) -> None:
    bench.script("train.py", "import time\nprint('up', flush=True)\ntime.sleep(100)")
    for number in range(3):
        bench.queue("train.py", "--run-id", f"r{number}", "--group", "g", "--grace-seconds", "1")
    bench.worker("-p", "1")
    bench.wait_for_log("r0", "up")
    done = bench.backprop("stop", "--group", "g")
    assert done.stdout.splitlines()[0] == "stopped 2 runs, asked 1 run to save and end"
    assert "stopping train (r0): it has 1 s to save" in done.stdout
    bench.wait_for("r0", "stopped")
    assert {bench.state(f"r{number}") for number in range(3)} == {"stopped"}


def test_a_stopped_member_stays_stopped_when_the_database_is_lost(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-4", "--group", "g", "train.py")
    bench.backprop("stop", "g")
    bench.backprop("resume", "--group", "g", "--name", "*-1")
    bench.backprop("hold", "--group", "g", "--state", "queued")
    (bench.home / "backprop.db").unlink()
    bench.worker("--drain").wait(timeout=60)
    states = {run["name"]: run["state"] for run in bench.runs()}
    assert states == {
        "train-1": "held",
        "train-2": "stopped",
        "train-3": "stopped",
        "train-4": "stopped",
    }


def test_the_outcomes_of_many_are_written_without_waiting_for_the_disk(database: Database) -> None:
    home = database.home
    several(database, None, *(f"r{number}" for number in range(batch_outcomes.MANY + 1)))
    chosen = selection.choose(database, [], Filters(name="*"))
    for one in chosen:
        home.run_folder(one.id).mkdir()
    outcome = run_folder.OutcomeFile(state="stopped", reason="why", segment=0, ended_at_s=2.0)
    batch_outcomes.write(home, [(one, outcome) for one in chosen])
    assert all(run_folder.read_outcome(home.run_folder(one.id)) == outcome for one in chosen)


def test_logs_of_several_have_the_name_before_each_line(bench: Bench) -> None:
    bench.script("train.py", "import sys\nfor n in range(2): print(sys.argv[1], n)\nprint('end', end='')")
    for name in ("one", "two", "two"):
        bench.queue("train.py", "-n", name, "--group", "g", "--", name)
    bench.worker("--drain").wait(timeout=60)
    ids = [run["id"] for run in bench.runs()][::-1]
    done = bench.backprop("logs", "g")
    assert done.stdout.splitlines() == [
        *("one: one 0", "one: one 1", "one: end"),
        *(f"two/{ids[1]}: two 0", f"two/{ids[1]}: two 1", f"two/{ids[1]}: end"),
        *(f"two/{ids[2]}: two 0", f"two/{ids[2]}: two 1", f"two/{ids[2]}: end"),
    ]
    assert bench.backprop("logs", "--name", "one").stdout == "one 0\none 1\nend"
    assert bench.backprop("logs", "--state", "completed", "--segment", "2").stdout == ""
    assert "no run matches" in refused(bench, 3, "logs", "--state", "failed")


def test_following_several_ends_with_the_last(bench: Bench) -> None:
    bench.script(
        "train.py", "import sys, time\nprint('up', flush=True)\ntime.sleep(float(sys.argv[1]))\nprint('end')"
    )
    for name, seconds in (("a", "0.2"), ("b", "1")):
        bench.queue("train.py", "-n", name, "--group", "g", "--", seconds)
    bench.worker("-p", "2")
    done = bench.backprop("logs", "-f", "g")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("a: ")] == ["a: ==> segment 1 <==", "a: up", "a: end"]
    assert lines[-1] == "b: end"
    wait_until(lambda: set(bench.states()) == {"completed"})


def test_a_list_walks_an_index(database: Database) -> None:
    """The queries of a plain list walk an index, whatever the table holds: no scan, no sort of it all."""
    from backprop.scheduler.store.connection import proxy
    from backprop.scheduler.store.schema import Run

    asked: list[str] = []
    several(database, "g", "r1", "r2")
    for one in (NO_FILTERS, Filters(states=(State.FAILED,)), Filters(since_s=1.0), Filters(group="g")):
        query = Run.select().where(*conditions(one)).order_by(*order(Sort.AGE, False))
        sql, values = query.limit(50).sql()
        asked += [row[3] for row in proxy.execute_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert asked == [
        "SCAN t1 USING INDEX runs_by_age",
        "SEARCH t1 USING INDEX runs_by_state (state=?)",
        "SEARCH t1 USING INDEX runs_by_age (created_at_s>?)",
        "SEARCH t1 USING INDEX runs_by_group (group_name=?)",
        "USE TEMP B-TREE FOR ORDER BY",
    ]


def test_the_queue_is_listed_in_its_own_order(database: Database) -> None:
    for run_id, priority in (("a", 0), ("b", 5), ("c", 0)):
        enqueue_run(database, run_id, "n", SPEC, 1.0 + ord(run_id), place=QueuePosition(priority=priority))
    add_run(database, "done", State.COMPLETED)
    assert [run.id for run in list_runs(database, sort=Sort.TURN)] == ["b", "a", "c"]
    assert [run.id for run in list_runs(database, sort=Sort.TURN, reverse=True, limit=2)] == ["c", "a"]
    assert list_runs(database, Filters(states=(State.COMPLETED,)), Sort.TURN) == []
