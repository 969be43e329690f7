"""A home that 0.1.0 left behind when its machine lost its power: today's program loses nothing of it and goes on.

The home is described in `tests/support/past.py`, its contents in `fixtures/home_0_1_0/scenes.py`. Only what stays is
looked at: commands, their `--json`, files of the home, and raw rows. Fields that 0.1.0 had must say the same; new ones
may come. Words for people may change, but none may be missing.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import past
from tests.support.harness import Bench

IN_WORDS = {"reason", "note", "keep_best", "refused"}
GOING_ON = ("running", "paused", "unseen", "chain", "silent")


class Past:
    """The recorded home, in the bench's place."""

    def __init__(self, bench: Bench, told: dict[str, Any]) -> None:
        self.bench, self.told = bench, told
        self.ids = {run["name"]: run["id"] for run in told["list"]}

    def says(self, *words: str) -> Any:
        done = self.bench.backprop(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return past.rows(self.bench.home, query)

    def begun_at(self, run: str) -> dict[int, int]:
        """Segment → the step that it began at, as the run's script has noted. Fails for one that was started twice."""
        lines = (self.bench.project / f"starts-{self.ids[run]}").read_text().splitlines()
        starts = [tuple(map(int, line.split()[:2])) for line in lines]
        assert len(dict(starts)) == len(starts), lines
        return dict(starts)


@pytest.fixture
def left(bench: Bench, tmp_path: Path) -> Past:
    bench.environment["TZ"] = "UTC"
    return Past(bench, past.unpack_home(tmp_path))


def assert_same(then: Any, now: Any, where: str) -> None:
    """Everything that was said then is said now; of mappings more may be."""
    if isinstance(then, dict):
        for name, value in then.items():
            assert name in now, f"{where}.{name} is gone"
            if name in IN_WORDS:
                assert bool(now[name]) == bool(value), f"{where}.{name}: {value!r}, now {now[name]!r}"
            else:
                assert_same(value, now[name], f"{where}.{name}")
    elif isinstance(then, list):
        assert len(then) == len(now), where
        for number, (before, after) in enumerate(zip(then, now, strict=True)):
            assert_same(before, after, f"{where}[{number}]")
    else:
        assert then == now, where


def newest_on_disk(left: Past, run: str) -> str:
    """The newest checkpoint that the run's script saved before the power went, heard of or not."""
    name = left.ids[run]
    saved = list(left.bench.project.glob(f"*/{name}-*.ckpt"))
    last = max(int(path.read_text()) for path in saved)
    return next(str(path) for path in saved if int(path.read_text()) == last)


def files(home: Path) -> dict[str, bytes]:
    """What runs and batches hold on disk."""
    kept = (path for name in ("runs", "batches") for path in sorted((home / name).rglob("*")))
    return {str(path): path.read_bytes() for path in kept if path.is_file()}


def newest_schema(folder: Path) -> int:
    """The schema that today's program gives a new home."""
    fresh = Bench(folder)
    fresh.script("train.py", "print(1)")
    fresh.queue("train.py")
    return int(past.rows(fresh.home, "PRAGMA user_version")[0][0])


def test_it_is_found_as_it_was_left(left: Past, tmp_path: Path) -> None:
    on_disk = files(left.bench.home)
    asked_for = dict(left.rows("SELECT id, spec FROM runs"))
    assert_same(left.told["list"], left.says("list", "-n", "0", "--json"), "list")
    turn = left.says("list", "-n", "0", "--sort", "turn", "--json")
    assert [run["id"] for run in turn] == left.told["turn"]
    for run, said in left.told["show"].items():
        assert_same(said, left.says("show", run, "--json"), f"show {run}")
    assert_same(left.told["groups"], left.says("groups", "--json"), "groups")
    for group, said in left.told["rankings"].items():
        assert_same(said, left.says("groups", group, "--json"), f"groups {group}")
    assert_same(left.told["status"], left.says("status", "--json"), "status")
    settings = {one["key"]: one for one in left.says("config", "--json")}
    for one in left.told["config"]:
        assert_same(one, settings[one["key"]], "config")
    exported = left.says("export", "--what", "all", "--name", "[!t]*")
    assert_same(left.told["export"], exported, "export")

    assert files(left.bench.home) == on_disk, "who only looks changes nothing"
    for run, spec in left.rows("SELECT id, spec FROM runs"):
        assert_same(json.loads(asked_for.pop(run)), json.loads(spec), f"spec of {run}")
    assert not asked_for
    assert left.rows("PRAGMA integrity_check") == [("ok",)]
    assert left.rows("PRAGMA foreign_key_check") == []
    assert left.rows("PRAGMA user_version") == [(newest_schema(tmp_path / "fresh"),)]


def test_what_0_1_0_kept_in_sentences_means_the_same(left: Past) -> None:
    """A run kept although its parent had failed waits for it again once it is resumed; and what a drained queue kept
    waiting says so no longer once it is open."""
    bench, ids = left.bench, left.ids
    before = dict(left.rows("SELECT name, reason FROM runs"))
    assert before["hopes"].endswith(f"; kept: backprop resume {ids['broken']}")
    shut = {name for name, reason in before.items() if reason.startswith("waits: the queue is drained")}
    assert {"chain", "next", "sweep-1-1"} <= shut
    for words in (("resume", ids["broken"]), ("undrain",)):
        done = bench.backprop(*words)
        assert done.returncode == 0, done.stderr
    after = {run["name"]: run["reason"] for run in bench.runs()}
    assert after["hopes"] == f"waits for {ids['broken']}, which was resumed"
    assert {name for name, reason in after.items() if reason != before[name]} == {*shut, "hopes", "broken"}
    assert {after[name] for name in shut} == {"queued"}


def test_a_worker_goes_on_with_it(left: Past) -> None:
    bench, ids = left.bench, left.ids
    sample = [ids[f"thousand-{number}"] for number in (1, 2, 500, 989)]
    for words in (("hold", "thousand"), ("hold", "sweep"), ("release", *sample), ("undrain",)):
        done = bench.backprop(*words)
        assert done.returncode == 0, done.stderr
    newest = {run: newest_on_disk(left, run) for run in GOING_ON}
    (bench.project / "go").touch()  # what was in the middle of its work has one step to go
    bench.worker("-p", "4", "--gpu-probe", "none")
    for run in (*GOING_ON, "first", "urgent", "next", "waits"):
        bench.wait_for(ids[run], "completed")
    for run in sample:
        bench.wait_for(run, "completed")

    outcomes = {run: [one["outcome"] for one in bench.show(ids[run])["segments"]] for run in GOING_ON}
    assert outcomes["running"] == outcomes["paused"] == ["lost", "completed"]
    assert outcomes["unseen"] == ["timeboxed", "completed"], "its end was on disk"
    assert outcomes["chain"][-1] == outcomes["silent"][-1] == "completed"
    for run in GOING_ON:
        assert bench.show(ids[run])["segments"][-1]["checkpoint_used"] == newest[run]
        assert left.begun_at(run)[len(outcomes[run])] == int(Path(newest[run]).read_text()) > 0
    parent, child = bench.show(ids["running"]), bench.show(ids["waits"])
    assert child["started_at"] >= parent["ended_at"]
    assert not (bench.project / "doubles").exists()

    states = {run["name"]: run["state"] for run in bench.runs()}
    assert states.keys() == ids.keys()
    for run in ("held", "kept-back", "prepare", "everything", "thousand-995"):
        assert states[run] == "held"
    for run in ("someday", "after-any", "use", "hopes"):
        assert states[run] == "queued"
    ended = {run["name"]: run["state"] for run in left.told["list"] if run["ended_at"]}
    assert ended.items() <= states.items(), "what had ended is left alone"
    assert sum(state == "completed" for name, state in states.items() if name.startswith("thousand")) == 4
    assert left.rows("PRAGMA integrity_check") == [("ok",)]
