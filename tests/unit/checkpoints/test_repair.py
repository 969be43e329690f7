"""What is repaired before a segment starts from it: a broken newest checkpoint, and one that was torn in place."""

import os
import sqlite3
import time
from pathlib import Path

import pytest

from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.checkpoints import repair
from backprop.worker.checkpoints.backups import Backup
from backprop.worker.checkpoints.resume import StartPoint
from backprop.worker.checkpoints.start_point import checkpoints_of, choose_start, rows_of
from tests.support.backed_up import good
from tests.support.unannounced_run import CLEAN, Watched, zip_bytes


@pytest.mark.parametrize(
    ("name", "is_dir", "pattern", "expected"),
    [
        ("checkpoint-120", True, "checkpoint-*", "torn-3-checkpoint-120"),
        ("checkpoint-120", True, "*", ".torn-3-checkpoint-120"),
        ("ckpt.pt", False, "*.pt", "ckpt.pt.torn-3"),
        ("ckpt.pt", False, "ckpt*", "torn-3-ckpt.pt"),
    ],
)
def test_what_is_set_aside_is_found_by_no_pattern(
    tmp_path: Path, name: str, is_dir: bool, pattern: str, expected: str
) -> None:
    path = tmp_path / name
    path.mkdir() if is_dir else path.write_text("torn")
    assert repair.set_aside(path, (f"{tmp_path}/{pattern}",), 3).name == expected
    path.mkdir() if is_dir else path.write_text("torn")
    second = repair.set_aside(path, (f"{tmp_path}/{pattern}",), 3)
    assert second.name != expected
    assert "torn-3" in second.name


class Ended:
    """A watched run between two segments: what does the next one begin from?"""

    def __init__(self, database: Database, folder: Path) -> None:
        self.watched = Watched(database, folder)
        self.home = Home(folder / "home")
        self.out = self.watched.out

    def saves(self, name: str, content: bytes, at_s: float = 0.0) -> Path:
        path = self.out / name
        path.write_bytes(content)
        os.utime(path, (time.time() + at_s, time.time() + at_s))
        return path

    def end(self, outcome: str = "timeboxed") -> RunRecord:
        self.watched.store(self.watched.scanner().final_scan(CLEAN))
        return self.watched.requeue(outcome)

    def back_up(self, path: Path) -> Backup:
        folder = self.home.run_folder("r1")
        folder.mkdir(parents=True, exist_ok=True)
        return good(folder, path)

    def consider(self, run: RunRecord) -> StartPoint:
        return choose_start(self.home, run, rows_of(self.watched.database, run))


@pytest.fixture
def ended(database: Database, tmp_path: Path) -> Ended:
    return Ended(database, tmp_path)


def test_a_broken_newest_is_passed_over_saying_so(ended: Ended) -> None:
    """It was never whole, so no row tells of it."""
    ended.watched.start(resumes="append", resume_words=("--load", "{checkpoint}"))
    ended.saves("1.pt", zip_bytes())
    ended.saves("2.pt", zip_bytes()[:300], 1)
    ended.saves("3.pt", b"", 1.5)
    start = ended.consider(ended.end())
    assert start.checkpoint == str(ended.out / "1.pt")
    assert [line.partition(": ")[0] for line in start.passed_over] == [
        str(ended.out / "3.pt"),
        str(ended.out / "2.pt"),
    ]
    assert not start.needs_repair, "it is told what to load, so nothing is in its way"


@pytest.mark.parametrize("plan", [{"resumes": "rerun"}, {"resumes": "append", "resume_words": ("--resume",)}])
def test_where_the_script_chooses_itself_a_broken_newest_is_set_aside(
    ended: Ended, plan: dict[str, object]
) -> None:
    ended.watched.start(**plan, globs=(f"{ended.out}/*.pt",))
    ended.saves("1.pt", zip_bytes())
    ended.saves("2.pt", zip_bytes()[:300], 1)
    run = ended.end()
    ended.saves("3.pt", zip_bytes()[:300], 60)
    start = ended.consider(run)
    assert start.set_aside == (str(ended.out / "2.pt"),), "3 is somebody else's: our segments had ended"
    (told,) = repair.repair(start, run.spec, run.segment)
    assert "renamed 2.pt.torn-1" in told
    assert not ended.consider(run).needs_repair
    assert ended.consider(run).checkpoint == str(ended.out / "1.pt")


def test_what_has_become_whole_meanwhile_stays(ended: Ended) -> None:
    ended.watched.start(resumes="rerun", globs=(f"{ended.out}/*.pt",))
    ended.saves("2.pt", zip_bytes()[:300])
    run = ended.end()
    start = ended.consider(run)
    assert start.set_aside
    ended.saves("2.pt", zip_bytes())
    assert repair.repair(start, run.spec, run.segment) == []
    assert (ended.out / "2.pt").exists()


def test_torn_in_place_the_copy_goes_back(ended: Ended) -> None:
    ended.watched.start(resumes="append", resume_words=("--init_from=resume",), in_place=True)
    path = ended.saves("ckpt.pt", zip_bytes())
    ended.watched.store(ended.watched.scanner().final_scan(CLEAN))
    copy = ended.back_up(path)
    assert [
        Path(one.path)
        for one in checkpoints_of(ended.home, run_of(ended), rows_of(ended.watched.database, run_of(ended)))
    ] == [
        path,
        copy.path,
    ], "the original comes first"
    ended.saves("ckpt.pt", zip_bytes()[:300], 1)
    run = ended.end()
    start = ended.consider(run)
    assert (start.checkpoint, start.restore) == (str(path), copy)
    assert "cut off" in start.passed_over[0]
    (told,) = repair.repair(start, run.spec, run.segment)
    assert "the backup of segment 1 is restored; what was there is renamed .torn-1-ckpt.pt" in told
    again = ended.consider(run)
    assert not again.needs_repair
    assert again.checkpoint == str(path)


def run_of(ended: Ended) -> RunRecord:
    from tests.support.store_rows import get

    return get(ended.watched.database, "r1")


def test_an_older_original_gives_way_to_the_copy_a_newer_one_does_not(ended: Ended) -> None:
    ended.watched.start(resumes="rerun", in_place=True)
    path = ended.saves("ckpt.pt", zip_bytes())
    copy = ended.back_up(path)
    run = ended.end()
    os.utime(path, (time.time() - 600, time.time() - 600))
    assert ended.consider(run).restore == copy
    os.utime(path, (time.time() + 10, time.time() + 10))
    assert not ended.consider(run).needs_repair


def test_what_was_saved_last_is_kept_though_the_clock_was_set_back(ended: Ended) -> None:
    ended.watched.start(resumes="rerun", in_place=True)
    ended.watched.note_before()
    path = ended.saves("ckpt.pt", zip_bytes())
    ended.watched.store(ended.watched.scanner().final_scan(CLEAN))
    ended.back_up(path)
    ended.saves("ckpt.pt", zip_bytes() + b"more", -40)
    start = ended.consider(ended.end())
    assert (start.checkpoint, start.restore) == (str(path), None)


def test_a_run_whose_rows_are_gone_is_found_again_on_disk(ended: Ended, tmp_path: Path) -> None:
    """Never from zero in silence. What is from before the run, or from after it, is not taken."""
    ended.watched.start(step_pattern=r"(\d+)")
    ended.saves("0.pt", zip_bytes(), -3600)
    ended.saves("1.pt", zip_bytes())
    ended.saves("2.pt", zip_bytes(), 1)
    run = ended.end()
    ended.saves("9.pt", zip_bytes(), 3600)
    database = sqlite3.connect(tmp_path / "home" / "backprop.db")
    database.execute("DELETE FROM checkpoints")
    database.commit()
    database.close()
    found = checkpoints_of(ended.home, run, rows_of(ended.watched.database, run))
    assert [(one.step, one.segment) for one in found] == [(2, 1), (1, 1)]
    assert ended.consider(run).checkpoint == str(ended.out / "2.pt")
