"""Backups of what is overwritten in place: when one is made, and what it is."""

import errno
import os
from pathlib import Path

import pytest

from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints import backups, copying, repair
from backprop.worker.checkpoints.background import BackgroundJob, BackgroundJobs
from backprop.worker.checkpoints.backups import BackupRefused, backups_of
from tests.support.backed_up import back_up, good, never
from tests.support.harness import wait_until
from tests.support.store_rows import checkpoint
from tests.support.unannounced_run import zip_bytes


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
    assert (tmp_path / "copy" / "a.npz").read_bytes() == (folder / "a.npz").read_bytes()


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


def test_records_of_copies_are_read_back_as_they_were_written(original: Path, tmp_path: Path) -> None:
    made = good(tmp_path, original)
    record = made.record()
    assert isinstance(record, CheckpointRecord)
    assert (record.path, record.segment, record.size_bytes) == (str(made.path), 1, original.stat().st_size)
    (made.folder / "source.json").write_text("{")
    assert backups_of(tmp_path) == []
