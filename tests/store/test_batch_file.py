"""Runs queued together share one file until they need a folder of their own; nothing of it is lost meanwhile."""

import subprocess
from dataclasses import dataclass

import msgspec
import pytest

from backprop.scheduler.home import batch_file, batch_outcomes, run_folder
from backprop.scheduler.home.batch_file import Member
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import State
from backprop.scheduler.spec import GroupRules, NewRun, QueuePosition
from backprop.scheduler.store import dependencies, groups, rebuild
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import deletion, enqueue, user_requests
from backprop.worker.maintenance import completion
from tests.support.harness import program
from tests.support.store_rows import SPEC, get

NOW_S = 1_700_000_000.25
ENVIRONMENT = {"PATH": "/bin", "BYTES": "\udcff", "A": "shell"}
RULES = GroupRules(name="g", max_parallel=4)
KEPT = (
    *("name", "spec", "priority", "turn_s", "group_name", "array_index"),
    *("batch", "created_at_s", "not_before_s", "state"),
)


@pytest.fixture
def home(database: Database) -> Home:
    return database.home


def members(count: int, first: int = 0) -> list[Member]:
    return [
        Member(
            id=f"b-{number}",
            name=f"n{number}",
            number=number,
            spec=msgspec.structs.replace(SPEC, argv=("python", "train.py", f"ü{number}\n")),
            place=QueuePosition(
                group="g",
                array_index=number,
                priority=number % 3,
                after=(("p", "any"),) if number == 1 else (),
            ),
            environment={"A": f"\udcfe{number}"} if number else {},
        )
        for number in range(first, first + count)
    ]


def queued(database: Database, count: int = 3) -> list[Member]:
    made = members(count)
    batch_file.write(database.home, "b", made, ENVIRONMENT, NOW_S, RULES)
    enqueue.enqueue_all(database, made, NOW_S, group=RULES, batch="b")
    return made


def lost(database: Database) -> Database:
    """A new database in the same home."""
    home = database.home
    database.close()
    home.database.unlink()
    return open_database(home)


def stopped(segment: int = 0) -> OutcomeFile:
    return OutcomeFile(state="stopped", reason="why", segment=segment, ended_at_s=NOW_S + 9)


def test_a_member_gets_its_folder_when_it_is_needed(database: Database, home: Home) -> None:
    made = queued(database)
    assert list(home.runs.iterdir()) == []
    for number in (2, 0, 1):
        assert batch_file.materialise(home, get(database, f"b-{number}"))
        kept = run_folder.read_spec(home.run_folder(f"b-{number}"))
        assert kept is not None
        assert (kept.id, kept.name, kept.spec, kept.place) == (
            f"b-{number}", f"n{number}", made[number].spec, made[number].place
        )  # fmt: skip
        assert (kept.created_at_s, kept.group, kept.batch) == (
            get(database, kept.id).created_at_s,
            RULES,
            "b",
        )
    assert run_folder.read_environment(home.run_folder("b-0")) == ENVIRONMENT
    assert run_folder.read_environment(home.run_folder("b-2")) == ENVIRONMENT | {"A": "\udcfe2"}
    assert (home.run_folder("b-0") / "spec.json").stat().st_mode & 0o777 == 0o600
    assert (home.batches / "b.jsonl").stat().st_mode & 0o777 == 0o600


def test_what_was_changed_in_a_folder_is_not_undone(database: Database, home: Home) -> None:
    queued(database)
    run = get(database, "b-1")
    batch_file.materialise(home, run)
    changed = msgspec.structs.replace(run.spec, timebox_s=7.0)
    run_folder.change_spec(home.run_folder("b-1"), changed)
    assert batch_file.materialise(home, run)
    kept = run_folder.read_spec(home.run_folder("b-1"))
    assert kept is not None
    assert kept.spec == changed
    # Another process looked before the folder was there, and writes only now.
    found = batch_file.read(home, "b")
    assert found is not None
    late = batch_file.spec_file(found.header, members(3)[1])
    run_folder.write_first(home.run_folder("b-1"), late, {})
    kept = run_folder.read_spec(home.run_folder("b-1"))
    assert kept is not None
    assert kept.spec == changed
    assert sorted(path.name for path in home.run_folder("b-1").iterdir()) == ["spec.json"]


def test_several_make_the_same_folders_at_once(database: Database, home: Home) -> None:
    made = queued(database, 60)
    command = [*program("materialise_batch"), str(home.root)]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write(b".")
        maker.stdin.flush()
    for maker in makers:
        maker.communicate()
        assert maker.returncode == 0
    for one in made:
        folder = home.run_folder(one.id)
        kept = run_folder.read_spec(folder)
        assert kept is not None
        assert kept.spec == one.spec
        assert [path.name for path in folder.iterdir()] == ["spec.json"]


def test_runs_of_their_own_and_unknown_ones(database: Database, home: Home) -> None:
    queued(database)

    @dataclass(frozen=True)
    class One:
        id: str
        batch: str | None
        segment: int = 0

    assert not batch_file.materialise(home, One("b-9", "b"))
    assert not batch_file.materialise(home, One("b-1", "gone"))
    assert not batch_file.materialise(home, One("single", None))
    (home.runs / "single").mkdir()
    assert batch_file.materialise(home, One("single", None))
    assert not batch_file.materialise(home, One("b", "b")), "the beginning of an id is not the id"


def test_a_batch_is_written_once(database: Database, home: Home) -> None:
    queued(database)
    before = (home.batches / "b.jsonl").read_bytes()
    with pytest.raises(FileExistsError):
        batch_file.write(home, "b", members(1), {}, NOW_S, None)
    assert (home.batches / "b.jsonl").read_bytes() == before
    assert [path.name for path in home.batches.iterdir()] == ["b.jsonl"]


def test_all_come_back_into_a_new_database(database: Database, home: Home) -> None:
    """Those with a folder and those without, in their order, with what they wait for and the group's rules."""
    made = queued(database, 5)
    batch_file.materialise(home, get(database, "b-1"))
    batch_file.materialise(home, get(database, "b-4"))
    before = {run.id: run for run in queries.list_runs(database)}
    new = lost(database)
    try:
        assert completion.behind(home, new) == ["b-0", "b-2", "b-3", "b-1", "b-4"]
        assert sorted(completion.complete(home, new)) == ["b-1", "b-4"]
        assert completion.complete_batches(home, new) == {"b": 3}
        assert completion.complete_batches(home, new) == {}
        assert completion.behind(home, new) == []
        for one in made:
            now, then = get(new, one.id), before[one.id]
            for field in KEPT:
                assert getattr(now, field) == getattr(then, field), field
        assert dependencies.waits_for(new, "b-1") == [("p", "any", None, False)]
        assert groups.rules(new, "g") == RULES
        enqueue.enqueue_all(new, made, NOW_S, group=RULES, batch="b")  # the command itself, a moment later
        assert len(queries.list_runs(new)) == 5
    finally:
        new.close()


def test_a_single_run_keeps_its_place_too(database: Database, home: Home) -> None:
    place = QueuePosition(priority=7, begin_s=NOW_S + 5, group="g", after=(("x", "fail"),), held=True)
    for run_id, name in (("first", "a"), ("second", "b")):
        _, folder = run_folder.create(home, run_id)
        at_s = NOW_S if run_id == "first" else NOW_S + 1
        rules = GroupRules(name="g", max_parallel=2 if run_id == "second" else 9)
        run_folder.write_spec(folder, run_id, name, SPEC, {}, at_s, place, rules)
        enqueue.enqueue_all(
            database, [NewRun(id=run_id, name=name, spec=SPEC, place=place)], at_s, group=rules
        )
    new = lost(database)
    try:
        for run_id in ("second", "first"):
            assert completion.put_back(home, new, run_id)
        run = get(new, "first")
        assert (run.state, run.priority, run.not_before_s, run.group_name) == (State.HELD, 7, NOW_S + 5, "g")
        assert run.turn_s < get(new, "second").turn_s
        assert dependencies.waits_for(new, "first") == [("x", "fail", None, False)]
        assert groups.rules(new, "g") == GroupRules(name="g", max_parallel=2), "the last ones given"
    finally:
        new.close()


def test_ends_without_a_folder_are_kept(database: Database, home: Home) -> None:
    queued(database, 4)
    runs = [get(database, f"b-{number}") for number in range(4)]
    batch_file.materialise(home, runs[0])
    batch_outcomes.write(home, [(run, stopped()) for run in runs[:3]])
    assert run_folder.read_outcome(home.run_folder("b-0")) == stopped()
    assert not home.run_folder("b-1").exists()
    assert completion.complete_batches(home, database) == {"b": 2}, "a backup that did not know it yet"
    assert (get(database, "b-1").state, get(database, "b-1").reason) == (State.STOPPED, "why")
    new = lost(database)
    try:
        completion.complete(home, new)
        completion.complete_batches(home, new)
        states = [get(new, f"b-{number}").state for number in range(4)]
        assert states == [State.STOPPED, State.STOPPED, State.STOPPED, State.QUEUED]
    finally:
        new.close()


def test_what_goes_on_again_has_not_ended(database: Database, home: Home) -> None:
    queued(database, 2)
    run = get(database, "b-1")
    batch_outcomes.write(home, [(run, stopped())])
    batch_outcomes.clear(home, [run])
    assert completion.complete_batches(home, database) == {}
    new = lost(database)
    try:
        completion.complete_batches(home, new)
        assert get(new, "b-1").state is State.QUEUED
    finally:
        new.close()


def test_what_was_removed_stays_away(database: Database, home: Home) -> None:
    queued(database, 3)
    batch_file.materialise(home, get(database, "b-2"))
    batch_outcomes.mark_removed(home, "b", ["b-0", "b-2"])
    run_folder.remove(home.run_folder("b-2"))
    new = lost(database)
    try:
        completion.complete(home, new)
        assert completion.complete_batches(home, new) == {"b": 1}
        assert [run.id for run in queries.list_runs(new)] == ["b-1"]
        batch_outcomes.mark_removed(home, "b", ["b-1"])
        batch_file.delete_unneeded(home, "b")
        assert list(home.batches.iterdir()) == [], "nobody needs it any more"
        batch_outcomes.mark_removed(home, "b", ["b-1"])
    finally:
        new.close()


def test_the_file_goes_when_each_has_its_folder(database: Database, home: Home) -> None:
    queued(database, 3)
    for number in (0, 1):
        batch_file.materialise(home, get(database, f"b-{number}"))
    completion.complete_batches(home, database)
    assert batch_file.names(home) == ["b"]
    batch_file.materialise(home, get(database, "b-2"))
    completion.complete_batches(home, database)
    assert list(home.batches.iterdir()) == []
    assert batch_file.materialise(home, get(database, "b-2"))


@pytest.mark.parametrize("tail", [b'{"id":"b-1","outco', b"\xff\n", b'{"id": 3}\n'])
def test_a_line_cut_short_by_a_crash(database: Database, home: Home, tail: bytes) -> None:
    queued(database, 3)
    batch_outcomes.write(home, [(get(database, "b-0"), stopped())])
    with (home.batches / "b.ends.jsonl").open("ab") as file:
        file.write(tail)
    batch_outcomes.write(home, [(get(database, "b-2"), stopped())])
    found = batch_file.read(home, "b")
    assert found is not None
    assert sorted(found.outcomes) == ["b-0", "b-2"]


@pytest.mark.parametrize(
    "damage",
    ["", "no json\n", '{"format": 2, "batch": "b", "created_at_s": 1, "group": null, "environment": {}}\n'],
)
def test_a_file_that_cannot_be_read_is_left_alone(database: Database, home: Home, damage: str) -> None:
    queued(database)
    path = home.batches / "b.jsonl"
    path.write_text(damage)
    assert batch_file.read(home, "b") is None
    assert completion.complete_batches(home, database) == {}
    batch_outcomes.mark_removed(home, "b", ["b-1"])
    assert path.read_text() == damage


def test_a_worker_that_starts_undoes_neither_a_removal_nor_a_resume_of_this_moment(
    database: Database, home: Home
) -> None:
    """The batch was read before both."""
    queued(database, 3)
    runs = [get(database, f"b-{number}") for number in range(3)]
    batch_outcomes.write(home, [(run, stopped()) for run in runs])
    user_requests.stop_waiting(database, [run.id for run in runs], NOW_S + 1)
    before = batch_file.read(home, "b")
    assert before is not None
    batch_outcomes.mark_removed(home, "b", ["b-0"])
    deletion.remove(database, ["b-0"])
    user_requests.resume(database, ["b-1"], {}, None, NOW_S + 1000)
    assert rebuild.put_back_batch(database, before, lambda: batch_outcomes.removed(home, "b")) == []
    assert queries.run_by_id(database, "b-0") is None
    assert get(database, "b-1").state is State.QUEUED
    assert get(database, "b-2").state is State.STOPPED


def test_a_run_that_cannot_be_read_keeps_no_other_from_being_put_back(
    database: Database, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in the place of a file stands for a disk in trouble: an error, and not an absence."""
    monkeypatch.setattr(completion, "READ_AGAIN_S", 0.01)
    queued(database, 3)
    for run_id in ("b-0", "b-1", "b-2"):
        batch_file.materialise(home, get(database, run_id))
    (home.run_folder("b-1") / "outcome.json").mkdir()
    (home.batches / "x.jsonl").mkdir()
    told: list[str] = []
    # A backup that knows it as queued: perhaps it has ended since.
    assert completion.complete(home, database, told.append) == []
    assert get(database, "b-1").state is State.HELD
    assert "outcome.json (Is a directory)" in str(get(database, "b-1").reason)
    assert completion.complete_batches(home, database, told.append) == {}
    assert [line.split(" could")[0] for line in told] == ["run b-1", "runs queued together as x"]
    new = lost(database)
    try:
        assert sorted(completion.complete(home, new)) == ["b-0", "b-2"]
        (home.run_folder("b-1") / "outcome.json").rmdir()
        assert completion.complete(home, new) == ["b-1"]
    finally:
        new.close()
