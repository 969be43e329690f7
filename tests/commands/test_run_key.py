"""`run --key K`: the same submission twice is one run, whoever is killed or races meanwhile."""

import json
import shutil
import subprocess
from typing import Any

import msgspec
import pytest

from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.home import run_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import NewRun
from backprop.scheduler.store import keys
from backprop.scheduler.store.connection import Database, open_database
from backprop.worker.maintenance import completion, recovery, removal
from tests.support.harness import COMMAND, QUIET_LIMITS, Bench
from tests.support.store_rows import SPEC, get


@pytest.fixture
def once(bench: Bench) -> Bench:
    bench.script("train.py", "print(1)")
    return bench


def answer(bench: Bench, *words: str, **more: Any) -> dict[str, Any]:
    done = bench.backprop("run", "--json", *QUIET_LIMITS, *words, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ids(told: dict[str, Any]) -> list[str]:
    return [run["id"] for run in told["runs"]]


def test_the_same_submission_twice_is_one(once: Bench) -> None:
    first = answer(once, "--key", "k", "train.py", "--", "1")
    assert (first["existing"], first["runs"][0]["existing"]) == (False, False)
    (once.project / "train.py").unlink()
    again = answer(once, "--key", "k", "train.py", "--", "1")
    assert (again["queued"], again["existing"], ids(again)) == (True, True, ids(first))
    assert again["runs"][0] | {"existing": False} == first["runs"][0]
    told = once.backprop("run", *QUIET_LIMITS, "--key", "k", "train.py", "--", "1")
    assert told.stdout == f"queued before by the same key: train, id {ids(first)[0]} (queued)\n"
    assert once.queue("--key", "k", "train.py", "--", "1") == ids(first)[0]
    assert [run["key"] for run in once.runs()] == ["k"]
    assert "key          k\n" in once.backprop("show", ids(first)[0]).stdout
    assert [folder.name for folder in (once.home / "runs").iterdir()] == ids(first)


def test_the_same_key_for_something_else_is_refused(once: Bench) -> None:
    run = once.queue("--key", "k", "train.py", "--", "1")
    elsewhere = once.project / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(once.project / "train.py", elsewhere)
    for other, where in (
        (("train.py", "--", "2"), once.project),
        (("-m", "3", "train.py", "--", "1"), once.project),
        (("train.py", "--", "1"), elsewhere),
    ):
        done = once.backprop("run", *QUIET_LIMITS, "--key", "k", *other, cwd=where)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1)
        assert f"--key k is that of run {run} (queued)" in done.stderr
    assert len(once.runs()) == 1
    bad = once.backprop("run", "--key", "a\tb", "train.py")
    assert (bad.returncode, "--key" in bad.stderr) == (6, True)


def test_the_key_of_a_removed_run_is_free(once: Bench) -> None:
    run = once.queue("--key", "k", "train.py")
    assert once.backprop("rm", run).returncode == 0
    told = answer(once, "--key", "k", "train.py", "--", "2")
    assert not told["existing"]
    assert ids(told) != [run]
    copy = once.backprop("resume", "--as-new", *ids(told))
    assert copy.returncode == 0, copy.stderr
    assert sorted(str(run["key"]) for run in once.runs()) == ["None", "k"]


def test_each_member_of_a_sweep_has_a_key(once: Bench) -> None:
    def sweep(values: str) -> dict[str, Any]:
        return answer(once, "--key", "s", "--grid", f"lr={values}", "train.py", "--", "{lr}")

    first = sweep("1,2")
    assert [run["key"] for run in first["runs"]] == ["s/lr=1", "s/lr=2"]
    more = sweep("1,3,2")
    assert [run["existing"] for run in more["runs"]] == [True, False, True]
    assert [ids(more)[0], ids(more)[2]] == ids(first)
    assert (more["existing"], more["group"]) == (False, first["group"])
    again = sweep("3,1")
    assert (again["existing"], ids(again)) == (True, [ids(more)[1], ids(more)[0]])
    assert len(once.runs()) == 3
    done = once.backprop("run", "--key", "s", "--grid", "lr=1,9", "train.py", "--", "{lr}", "--x")
    assert (done.returncode, len(once.runs())) == (6, 3)


def test_lines_of_a_batch_have_keys_of_their_own(once: Bench) -> None:
    batch = once.project / "night.txt"
    batch.write_text("--key a train.py -- 1\n--key b -n second train.py -- 2\n")
    first = answer(once, "--batch", "night.txt")
    batch.write_text("--key a train.py -- 1\n--key c train.py -- 3\n--key b -n second train.py -- 2\n")
    more = answer(once, "--batch", "night.txt")
    assert [ids(more)[0], ids(more)[2]] == ids(first)
    assert len(once.runs()) == 3
    batch.write_text("--key a train.py -- 1\n--key a train.py -- 2\n")
    done = once.backprop("run", "--batch", "night.txt")
    assert "line 2: --key a has been given before: --batch night.txt, line 1" in done.stderr
    assert once.backprop("run", "--key", "k", "--batch", "night.txt").returncode == 2


@pytest.mark.parametrize("many", [False, True])
def test_racing_submitters_queue_one(once: Bench, many: bool) -> None:
    sweep = ("--grid", "lr=1,2", "train.py", "--", "{lr}") if many else ("train.py",)
    racers = [
        subprocess.Popen(
            [str(COMMAND), "run", "-q", *QUIET_LIMITS, "--key", "k", *sweep],
            env=once.environment, cwd=once.project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(5)
    ]  # fmt: skip
    told = [racer.communicate(timeout=60) for racer in racers]
    assert len(set(told)) == 1, told
    assert {racer.returncode for racer in racers} == {0}
    assert sorted(run["id"] for run in once.runs()) == sorted(told[0][0].split())


@pytest.mark.parametrize("at", ["key noted", "key in folder", "batch written"])
def test_a_submitter_killed_at_any_point_leaves_one_or_none(once: Bench, at: str) -> None:
    many = at == "batch written"
    sweep = ("--grid", "lr=1,2", "train.py", "--", "{lr}") if many else ("train.py",)
    words = ("run", "-q", *QUIET_LIMITS, "--key", "k", *sweep)
    once.queue("train.py")
    killed = subprocess.run(
        [str(COMMAND), *words],
        env=once.environment | {"BACKPROP_FAILPOINT": f"{at}:kill"}, cwd=once.project, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -9
    first, again = once.backprop(*words), once.backprop(*words)
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    recovery.open_sound(Home(once.home), lambda _: None).close()
    keyed = [run["id"] for run in once.runs() if run["key"] is not None]
    assert sorted(keyed) == sorted(first.stdout.split())
    assert len(once.runs()) == len(keyed) + 1


@pytest.mark.parametrize("trouble", ["older", "gone"])
def test_a_restored_database_knows_the_key_again(once: Bench, trouble: str) -> None:
    """No worker is there to repair it: the submitter does so before it believes that the key is new."""
    other = once.queue("train.py")
    older = shutil.copy(once.home / "backprop.db", once.home / "older.db")
    run = once.queue("--key", "k", "train.py")
    (once.home / "backprop.db").unlink()
    if trouble == "older":
        shutil.copy(older, once.home / "backprop.db")
    assert once.queue("--key", "k", "train.py") == run
    assert sorted(one["id"] for one in once.runs()) == sorted([run, other])


def keyed(database: Database, run_id: str) -> dict[str, Any]:
    """Queue a run with the key `k` by this process."""
    spec = msgspec.structs.replace(SPEC, key="k", asked="x")
    folder = database.home.run_folder(run_id)
    folder.mkdir()
    write = lambda: run_folder.write_spec(folder, run_id, run_id, spec, {}, 1.0)  # noqa: E731
    return keys.enqueue_once(database, [NewRun(id=run_id, name=run_id, spec=spec)], 1.0, write)


def test_the_key_of_a_removed_run_is_its_successors_in_a_restored_database(database: Database) -> None:
    keyed(database, "a")
    copy = database.home.root / "copy.db"
    database.copy_to(copy)
    removal.remove(database.home, database, ["a"], waiting=True)
    assert keyed(database, "b") == {}
    assert list(keyed(database, "c")) == ["k"]
    shutil.rmtree(database.home.run_folder("c"))
    database.close()
    shutil.copy(copy, database.home.database)
    again = open_database(database.home)
    with pytest.raises(DatabaseBusy, match="is older than its home"):
        keys.runs_with(again, ["k"])
    recovery.catch_up(again.home, again)
    assert {key: run.id for key, run in keys.runs_with(again, ["k"]).items()} == {"k": "b"}
    again.close()


def test_of_two_folders_with_one_key_both_runs_are_kept(database: Database) -> None:
    """Somebody has copied a folder by hand: no run is lost for that."""
    keyed(database, "a")
    shutil.copytree(database.home.run_folder("a"), database.home.run_folder("b"))
    spec_file = database.home.run_folder("b") / "spec.json"
    spec_file.write_text(spec_file.read_text().replace('"id": "a"', '"id": "b"'))
    assert completion.complete(database.home, database) == ["b"]
    assert [get(database, run_id).key for run_id in "ab"] == ["k", None]
