"""What is left of the boxes of live runs, as every view shows it: pauses, suspensions and renewals count."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backprop.cli.render.box_ends import boxes_left
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import State
from backprop.scheduler.spec import NO_TIMEBOX_S
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import pace, queries
from backprop.worker.executor import box_files
from backprop.worker.supervisor import process_tree
from tests.support.store_rows import SPEC, add_run

LEFT_S, AGO_S = 300.0, 1000.0


def write(folder: Path, name: str, **content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def pause(folder: Path, since_s: float, until_s: float | None = None) -> None:
    boot = process_tree.boot_id()
    write(
        folder, "pause.json", boot_id=boot, since_monotonic_s=since_s, until_monotonic_s=until_s, paused_s=0.0
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A segment in a box whose end the script was told."""
    found = tmp_path / "1"
    found.mkdir()
    box_files.write_deadline(found, LEFT_S)
    return found


def test_the_end_that_the_script_was_told_counts(folder: Path) -> None:
    assert box_files.left_s(folder) == pytest.approx(LEFT_S, abs=5)


def test_what_stands_still_keeps_what_it_has_left(folder: Path) -> None:
    pause(folder, time.monotonic() - AGO_S)
    assert box_files.left_s(folder) == pytest.approx(LEFT_S + AGO_S, abs=5)
    pause(folder, time.monotonic() - AGO_S, time.monotonic())
    assert box_files.left_s(folder) == pytest.approx(LEFT_S, abs=5)


def test_a_run_that_every_box_ends_is_told_no_other_end(tmp_path: Path) -> None:
    now_s, boot = time.monotonic(), process_tree.boot_id()
    ids = {"leader": [1, 1], "supervisor": [1, 1]}
    write(
        tmp_path, "processes.json", started_at_s=1.0, started_monotonic_s=now_s - AGO_S, boot_id=boot, **ids
    )
    order = {
        "spec": "",
        "program": "x",
        "argv": ["x"],
        "cwd": "/",
        "umask": 0,
        "environment": {},
        "cookie": [],
    }
    order |= {"grace_s": 1.0, "stop_signal": 2, "timebox_s": AGO_S + LEFT_S}
    write(tmp_path, "order.json", **order)
    assert box_files.left_s(tmp_path) == pytest.approx(LEFT_S, abs=5)
    pause(tmp_path, now_s - AGO_S / 2)
    assert box_files.left_s(tmp_path) == pytest.approx(LEFT_S + AGO_S / 2, abs=5)


@pytest.mark.parametrize("content", ["", "1 2", "1 x {boot}", "1 2 another"])
def test_a_file_that_says_nothing_tells_nothing(folder: Path, content: str) -> None:
    (folder / "deadline").write_text(content.format(boot=process_tree.boot_id()))
    assert box_files.left_s(folder) is None


def test_each_live_run_has_what_its_folder_says(database: Database) -> None:
    home = layout.ensure(Home(database.home.root))
    no_box = msgspec.structs.replace(SPEC, timebox_s=NO_TIMEBOX_S)
    runs = [add_run(database, run_id, State.RUNNING) for run_id in "ab"]
    runs += [add_run(database, "c", State.RUNNING, spec=no_box), add_run(database, "d")]
    home.segment_folder("a", 1).mkdir(parents=True)
    box_files.write_deadline(home.segment_folder("a", 1), LEFT_S)
    left = boxes_left(home, runs, queries.live_segments(database)[1], 102.0)
    assert left == {"a": pytest.approx(LEFT_S, abs=5), "b": 500.0, "c": None}


def test_a_suspended_run_holds_no_slot_in_what_is_told_of_the_night(database: Database) -> None:
    add_run(database, "s", State.SUSPENDED)
    add_run(database, "r", State.RUNNING)
    seen = pace.night(database, 102.0, 1, False, left={"r": 7.0})
    assert sorted(seen.paces) == ["r", "s"]
