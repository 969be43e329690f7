"""Backups of what is overwritten in place, and what is repaired before a segment starts from it."""

import errno
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import CheckpointRecord, RunRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.checkpoints import backups, copying, repair
from backprop.worker.checkpoints.background import BackgroundJob, BackgroundJobs
from backprop.worker.checkpoints.backups import Backup, BackupRefused, backups_of
from backprop.worker.checkpoints.resume import StartPoint
from backprop.worker.checkpoints.start_point import checkpoints_of, choose_start, rows_of
from tests.support.harness import Bench, wait_until
from tests.support.store_rows import checkpoint
from tests.support.unannounced_run import CLEAN, Watched, zip_bytes


def never() -> bool:
    return False


def back_up(run_folder: Path, path: Path, segment: int = 1) -> Backup | BackupRefused:
    record = checkpoint("r1", path, segment=segment)
    return backups.back_up(run_folder, record, 0, never)


def good(run_folder: Path, path: Path, segment: int = 1) -> Backup:
    found = back_up(run_folder, path, segment)
    assert isinstance(found, Backup), found
    return found


@pytest.fixture
def original(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "ckpt.pt"
    path.write_bytes(zip_bytes())
    return path


def test_a_backup_shares_nothing_with_its_original(original: Path, tmp_path: Path) -> None:
    whole = original.read_bytes()
    made = good(tmp_path, original)
    assert made.folder == tmp_path / "kept" / "1-1"
    assert made.path.read_bytes() == whole
    assert made.path.stat().st_nlink == 1, "a hard link would be written into"
    assert made.path.stat().st_mtime_ns == original.stat().st_mtime_ns
    with original.open("r+b") as file:
        file.write(b"torn")
    assert made.path.read_bytes() == whole
    assert backups_of(tmp_path) == [made]
    assert made.source.path == str(original)


def test_the_newest_two_stay_and_nothing_else_is_touched(original: Path, tmp_path: Path) -> None:
    other = original.with_name("other.pt")
    other.write_bytes(zip_bytes())
    good(tmp_path, other)
    for _ in range(3):
        good(tmp_path, original)
    good(tmp_path, original, segment=2)
    names = [one.folder.name for one in backups_of(tmp_path) if one.source.path == str(original)]
    assert names == ["2-1", "1-4"]
    assert [one.folder.name for one in backups_of(tmp_path) if one.source.path == str(other)] == ["1-1"]
    (tmp_path / "kept" / "2-1" / "copy" / "ckpt.pt").write_bytes(b"PK damaged")
    backups.prune(tmp_path, str(original))
    assert {one.folder.name for one in backups_of(tmp_path)} == {"2-1", "1-4", "1-1"}, "two good ones"
    backups.drop(tmp_path)
    assert backups_of(tmp_path) == []
    assert original.exists()
    assert other.exists()


def test_copies_stay_while_the_original_is_torn(original: Path, tmp_path: Path) -> None:
    good(tmp_path, original)
    original.write_bytes(original.read_bytes()[:100])
    backups.drop(tmp_path)
    assert len(backups_of(tmp_path)) == 1


def test_what_changes_meanwhile_is_not_backed_up(original: Path, tmp_path: Path) -> None:
    record = checkpoint("r1", original)
    with original.open("ab") as file:
        file.write(b"more")
    found = backups.back_up(tmp_path, record, 0, never)
    assert isinstance(found, BackupRefused)
    assert found.retry
    changes = iter([True])

    def change() -> bool:
        """Called between two pieces of the copy."""
        if next(changes, False):
            with original.open("ab") as file:
                file.write(b"more")
        return False

    found = backups.back_up(tmp_path, checkpoint("r1", original), 0, change)
    assert isinstance(found, BackupRefused)
    assert "changed while it was copied" in found.why
    assert backups_of(tmp_path) == []
    assert list((tmp_path / "kept").iterdir()) == [], "nothing half-done is left"


def test_half_of_a_checkpoint_is_not_backed_up(original: Path, tmp_path: Path) -> None:
    original.write_bytes(original.read_bytes()[:200])
    found = back_up(tmp_path, original)
    assert isinstance(found, BackupRefused)
    assert "not whole" in found.why


def test_a_full_disk_is_left_as_it_is(original: Path, tmp_path: Path) -> None:
    """But for a reflink, which takes nothing."""
    room = os.statvfs(tmp_path)
    floor_mib = room.f_bavail * room.f_frsize // 2**20 + 1024
    found = backups.back_up(tmp_path, checkpoint("r1", original), floor_mib, never)
    if isinstance(found, BackupRefused):
        assert "would be left free" in found.why
        assert list((tmp_path / "kept").iterdir()) == []


def test_told_to_stop_it_stops(original: Path, tmp_path: Path) -> None:
    found = backups.back_up(tmp_path, checkpoint("r1", original), 0, lambda: True)
    assert (
        isinstance(found, BackupRefused) or backups_of(tmp_path)[0].path.read_bytes() == original.read_bytes()
    )


def test_what_a_dead_worker_left_half_done_is_cleared(original: Path, tmp_path: Path) -> None:
    left = tmp_path / "kept" / ".draft-999999999" / "copy"
    left.mkdir(parents=True)
    (left / "ckpt.pt").write_text("half")
    good(tmp_path, original)
    assert [one.name for one in (tmp_path / "kept").iterdir()] == ["1-1"]


def test_folders_are_copied_whole(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a.npz").write_bytes(zip_bytes())
    (folder / "deeper" / "b").write_text("b")
    (folder / "link").symlink_to("a.npz")
    copying.copy(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "deeper" / "b").read_text() == "b"
    assert (tmp_path / "copy" / "link").readlink() == Path("a.npz")
    assert (tmp_path / "copy" / "a.npz").read_bytes() == zip_bytes()


def test_a_copy_is_put_back_and_the_torn_file_only_renamed(original: Path, tmp_path: Path) -> None:
    made, whole = good(tmp_path, original), original.read_bytes()
    original.write_bytes(b"PK torn")
    aside = repair.restore(made, (f"{original.parent}/*.pt",))
    assert aside == original.with_name("ckpt.pt.torn-1")
    assert aside.read_bytes() == b"PK torn"
    assert original.read_bytes() == whole
    assert made.path.exists()
    original.unlink()
    assert repair.restore(made, ()) is None, "it was gone"
    assert sorted(one.name for one in original.parent.iterdir()) == ["ckpt.pt", "ckpt.pt.torn-1"]


def test_what_somebody_writes_is_left_alone(original: Path, tmp_path: Path) -> None:
    """Several runs may save in one folder."""
    made = good(tmp_path, original)
    with original.open("ab"), pytest.raises(OSError, match="a process is writing it") as caught:
        repair.restore(made, ())
    assert caught.value.errno == errno.ETXTBSY
    assert sorted(one.name for one in original.parent.iterdir()) == ["ckpt.pt"]


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


def test_errands_are_done_in_order_and_told_by_who_asks(tmp_path: Path) -> None:
    errands, told = BackgroundJobs(), list[object]()

    def work(_: object) -> str:
        (tmp_path / "done").touch()
        return "result"

    def fails(_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    errands.send(BackgroundJob(("r1", "a"), work, told.append))
    errands.send(BackgroundJob(("r1", "b"), fails, told.append))
    wait_until(lambda: (errands.report(), len(told) == 2)[1])
    assert told[0] == "result"
    assert isinstance(told[1], OSError)
    errands.close(5)


IN_PLACE = """
    import os, time, zipfile
    def whole(step):
        with zipfile.ZipFile("out/ckpt.npz", "w") as archive:
            archive.writestr("step", str(step))
            archive.writestr("weights", b"w" * 5000)
    os.makedirs("out", exist_ok=True)
    step = 0
    if os.path.exists("out/ckpt.npz"):
        step = int(zipfile.ZipFile("out/ckpt.npz").read("step"))
    print("begins at", step, flush=True)
    while step < 3:
        step += 1
        whole(step)
        if step == 2 and not os.path.exists("torn"):
            open("torn", "w").close()
            data = open("out/ckpt.npz", "rb").read()
            open("out/ckpt.npz", "wb").write(data[: len(data) // 2])
            print("torn", flush=True)
            time.sleep(600)
        while not os.path.exists(f"go-{step}"):
            time.sleep(0.05)
    print("done")
"""


def test_a_file_torn_in_place_is_restored_and_the_chain_goes_on(bench: Bench) -> None:
    bench.script("train.py", IN_PLACE)
    words = ("--checkpoint-glob", "out/ckpt.npz", "--resume-arg", "none")
    run = bench.queue("train.py", *words, "--grace-seconds", "1")
    first = bench.worker()
    folder = bench.home / "runs" / run / "kept"
    wait_until((folder / "1-1" / "source.json").exists, saw=bench.output)
    (bench.project / "go-1").touch()
    bench.wait_for_log(run, "torn")
    bench.end_worker(first, signal.SIGTERM)
    for step in (2, 3):
        (bench.project / f"go-{step}").touch()
    bench.worker()
    bench.wait_for(run, "completed")
    assert "begins at 1" in bench.log(run, 2)
    assert "repaired" in bench.output(1)
    assert "is restored; what was there is renamed ckpt.npz.torn-1" in bench.output(1)
    assert sorted(one.name for one in (bench.project / "out").iterdir()) == ["ckpt.npz", "ckpt.npz.torn-1"]
    wait_until(lambda: not backups_of(folder.parent), saw=lambda: list(folder.iterdir()))


CHOOSES = """
    import os, time, zipfile
    os.makedirs("out", exist_ok=True)
    saved = [int(name.split("-")[1]) for name in os.listdir("out") if name.startswith("checkpoint-")]
    step = max(saved, default=0)
    if step:
        assert zipfile.ZipFile(f"out/checkpoint-{step}/model.npz").read("step") == str(step).encode()
    print("begins at", step, flush=True)
    while step < 4:
        step += 1
        os.mkdir(f"out/checkpoint-{step}")
        with zipfile.ZipFile(f"out/checkpoint-{step}/model.npz", "w") as archive:
            archive.writestr("step", str(step))
            archive.writestr("weights", b"w" * 5000)
        if step == 3 and not os.path.exists("torn"):
            open("torn", "w").close()
            os.truncate(f"out/checkpoint-{step}/model.npz", 2000)
            print("torn", flush=True)
            time.sleep(600)
"""


def test_a_script_that_takes_its_newest_checkpoint_is_kept_from_a_torn_one(bench: Bench) -> None:
    bench.script("train.py", CHOOSES)
    words = ("--checkpoint-glob", "out/checkpoint-*", "--resume-arg", "none")
    run = bench.queue("train.py", *words, "--grace-seconds", "1")
    first = bench.worker()
    bench.wait_for_log(run, "torn")
    bench.end_worker(first, signal.SIGTERM)
    bench.worker()
    bench.wait_for(run, "completed")
    assert "begins at 2" in bench.log(run, 2)
    assert "renamed torn-1-checkpoint-3" in bench.output(1)
    left = sorted(one.name for one in (bench.project / "out").iterdir())
    assert left == [*(f"checkpoint-{step}" for step in range(1, 5)), "torn-1-checkpoint-3"]


SLOW = """
    import argparse, os, pickle, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--load")
    options = parser.parse_args()
    step = pickle.load(open(options.load, "rb")) if options.load else 0
    print("begins at", step, flush=True)
    os.makedirs("out", exist_ok=True)
    while step < 100 and not os.path.exists("finish"):
        time.sleep(0.05)
        step += 1
        with open("out/draft", "wb") as file:
            pickle.dump(step, file)
        os.replace("out/draft", f"out/model-{step}.pkl")
"""


def test_a_lost_database_does_not_send_a_silent_script_back_to_zero(bench: Bench) -> None:
    """What was seen from outside is in no log, so it has to be seen again."""
    bench.script("train.py", SLOW)
    words = ("--checkpoint-glob", "out/model-*.pkl", "--resume-arg", "--load {checkpoint}")
    run = bench.queue("train.py", "-m", "0.02", "--at-timebox", "end", *words)
    first = bench.worker()
    wait_until(lambda: bench.column(run, "segment") == 2, saw=bench.output)
    bench.end_worker(first, signal.SIGTERM)
    for name in ("backprop.db", "backups"):
        path = bench.home / name
        copying.remove(path)
    last = max(int(one.name) for one in (bench.home / "runs" / run).iterdir() if one.name.isdecimal())
    bench.worker()
    wait_until(lambda: "begins at" in bench.log(run, last + 1), saw=lambda: bench.output(1))
    assert "begins at 0" not in bench.log(run, last + 1)
    (bench.project / "finish").touch()
    bench.wait_for(run, "completed")


def test_records_of_copies_are_read_back_as_they_were_written(original: Path, tmp_path: Path) -> None:
    made = good(tmp_path, original)
    record = made.record()
    assert isinstance(record, CheckpointRecord)
    assert (record.path, record.segment, record.size_bytes) == (str(made.path), 1, original.stat().st_size)
    (made.folder / "source.json").write_text("{")
    assert backups_of(tmp_path) == []
