"""What lay where a segment may save as it began: noted at a bounded cost, and told from what it has written since."""

import os
import time
from pathlib import Path

import pytest

from backprop.worker.checkpoints.seen import baseline
from backprop.worker.checkpoints.seen.baseline import Beginning, beginning_of, note
from backprop.worker.executor import segment_files

NONE = Path("/none")


def is_old(began: Beginning, path: Path, announced: bool = True) -> bool:
    return began.is_all_old(str(path), announced)


def written(path: Path, text: str, off_s: float = 0.0) -> Path:
    """Write a file by a clock that is off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() + off_s,) * 2)
    return path


@pytest.mark.parametrize("off_s", [-86400.0, -5.0, 0.0, 86400.0])
def test_neither_old_nor_new_is_told_by_the_clock(tmp_path: Path, off_s: float) -> None:
    old = written(tmp_path / "out" / "old.pt", "old", off_s)
    began = Beginning(time.time(), note([str(tmp_path)], NONE))
    assert is_old(began, old)
    assert is_old(began, old.rename(tmp_path / "moved.pt")), "under another name"
    new = [written(tmp_path / name, "new", -off_s) for name in ("moved.pt", "out/new.pt", "run/7/new.pt")]
    assert not any(is_old(began, each) for each in new)


def test_a_folder_is_new_once_anything_in_it_is(tmp_path: Path) -> None:
    for name in ("model", "optimizer"):
        written(tmp_path / "last" / name, name)
    began = Beginning(time.time(), note([str(tmp_path)], NONE))
    assert is_old(began, tmp_path / "last")
    written(tmp_path / "last" / "model", "more", -3600)
    assert not is_old(began, tmp_path / "last")


def test_a_copy_that_keeps_an_old_time_counts_only_where_it_is_announced(tmp_path: Path) -> None:
    began = Beginning(time.time(), note([str(tmp_path)], NONE))
    copied = written(tmp_path / "pretrained.pt", "from a hub", -3600)
    assert is_old(began, copied, announced=False)
    assert not is_old(began, copied)


def test_where_nothing_was_noted_the_time_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for depth in ("a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "data"):
        written(tmp_path / depth / "old.pt", depth, -60)
        written(tmp_path / depth / "new.pt", depth)
    monkeypatch.setattr(baseline, "MAX_DEPTH", 2)
    noted = note([str(tmp_path)], NONE)
    for before in (None, noted):
        began = Beginning(time.time(), before)
        for depth in ("a/b/c", "a/b/c/d/e", "data"):
            assert is_old(began, tmp_path / depth / "old.pt")
            assert not is_old(began, tmp_path / depth / "new.pt")


def test_a_great_folder_is_not_noted_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        written(tmp_path / "many" / f"{number}.pt", str(number))
    written(tmp_path / "few" / "a.pt", "few")
    monkeypatch.setattr(baseline, "MAX_ENTRIES", 20)
    assert set(note([str(tmp_path)], NONE).folders) == {str(tmp_path), str(tmp_path / "few")}
    monkeypatch.setattr(baseline, "WITHIN_S", 0.0)
    assert note([str(tmp_path)], NONE).folders == {}


def test_a_note_outlives_the_worker_and_holds_any_name(tmp_path: Path) -> None:
    work, folder = tmp_path / "work", tmp_path / "1"
    folder.mkdir()
    odd = written(work / os.fsdecode(b"odd-\xff") / os.fsdecode(b"\xfe.pt"), "odd")
    segment_files.write_before(folder, note([str(work), str(work / "missing")], NONE))
    began = beginning_of(folder, time.time())
    assert is_old(began, odd)
    assert not is_old(began, written(odd.with_name("new.pt"), "new", -3600))
    assert not is_old(began, written(work / "missing" / "new.pt", "new", -3600))
