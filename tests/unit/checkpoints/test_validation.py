"""Checkpoints: which announced paths are believed, and which survivors a run may resume from."""

import json
import os
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints.formats import looks_whole
from backprop.worker.checkpoints.roots import roots_for
from backprop.worker.checkpoints.seen.baseline import Beginning
from backprop.worker.checkpoints.validation import (
    CheckpointFile,
    Rejected,
    newest_good,
    still_good,
    validate_announced,
)
from tests.support.store_rows import checkpoint


def write_zip(path: Path, payload: bytes = b"weights" * 1000) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/data/0", payload)


def write_safetensors(path: Path, declared: int = 64, actual: int = 64) -> None:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": "F32", "shape": [16], "data_offsets": [0, declared]},
        }
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(actual))


def cut(path: Path, keep: float = 0.6) -> None:
    os.truncate(path, int(path.stat().st_size * keep))


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def announced(path: str, cwd: Path, *roots: Path) -> CheckpointFile | Rejected:
    return validate_announced(path, cwd, roots or (cwd,), Beginning(time.time()))


def known(path: Path) -> CheckpointFile:
    found = announced(str(path), path.parent)
    assert isinstance(found, CheckpointFile), found
    return found


def refusal(path: str, cwd: Path, *roots: Path) -> str:
    found = announced(path, cwd, *roots)
    assert isinstance(found, Rejected), found
    return found.why


def test_a_file_saved_during_the_segment_is_known(cwd: Path) -> None:
    (cwd / "out").mkdir()
    saved = cwd / "out" / "1.bin"
    saved.write_bytes(b"weights")
    for path in ("out/1.bin", "./out/../out/1.bin", str(saved)):
        found = announced(path, cwd)
        assert found == CheckpointFile(saved, 7, saved.stat().st_mtime_ns, is_dir=False)


def test_a_directory_is_measured_by_its_files(cwd: Path) -> None:
    folder = cwd / "checkpoint-100"
    (folder / "shards").mkdir(parents=True)
    assert "without any data" in refusal("checkpoint-100", cwd)
    (folder / "empty").touch()
    (folder / "link").symlink_to("/etc/passwd")
    assert "without any data" in refusal("checkpoint-100", cwd)
    (folder / "shards" / "0").write_bytes(b"12345")
    (folder / "index").write_bytes(b"123")
    os.utime(folder / "index", ns=(1, 1))
    newest_ns = (folder / "shards" / "0").stat().st_mtime_ns
    (folder / "empty").unlink()
    assert announced("checkpoint-100", cwd) == CheckpointFile(folder, 8, newest_ns, is_dir=True)


def test_a_path_out_of_the_roots_is_refused(cwd: Path, tmp_path: Path) -> None:
    outside = tmp_path / "work2" / "1.bin"
    outside.parent.mkdir()
    outside.write_bytes(b"x")
    (cwd / "link").symlink_to(outside)
    (cwd / "folder").symlink_to(outside.parent)
    for path in ("../work2/1.bin", str(outside), "link", "folder/1.bin"):
        assert "outside the run's folders" in refusal(path, cwd)
        assert isinstance(announced(path, cwd, outside.parent), CheckpointFile)
        assert isinstance(announced(path, cwd, outside), CheckpointFile), "a root may be a single file"
    assert "outside" in refusal("../work2/1.bin", cwd, tmp_path / "wor"), "a root is no prefix"


def test_a_link_that_stays_inside_is_followed(cwd: Path) -> None:
    (cwd / "1.bin").write_bytes(b"x")
    (cwd / "last").symlink_to("1.bin")
    found = announced("last", cwd)
    assert isinstance(found, CheckpointFile)
    assert found.path == cwd / "1.bin", "what the link named then, not what it names later"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "not a path"),
        ("a\0b", "not a path"),
        ("a" * 4097, "not a path"),
        ("a" * 300, "File name too long"),
        ("missing.pt", "No such file"),
        ("\ud800", "not UTF-8"),
        ("loop", "Too many levels"),
        ("empty", "it is empty"),
        ("fifo", "neither a file nor a directory"),
        ("file/below", "Not a directory"),
    ],
)
def test_what_is_no_checkpoint(cwd: Path, path: str, why: str) -> None:
    (cwd / "loop").symlink_to("loop")
    (cwd / "empty").touch()
    (cwd / "file").write_bytes(b"x")
    os.mkfifo(cwd / "fifo")
    assert why in refusal(path, cwd)


def test_a_checkpoint_of_before_the_segment_is_no_progress(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cwd / "old.bin").write_bytes(b"x")
    saved_s = (cwd / "old.bin").stat().st_mtime
    monkeypatch.setattr(time, "time", lambda: saved_s + 60)
    late = validate_announced("old.bin", cwd, (cwd,), Beginning(saved_s + 2.5))
    assert isinstance(late, Rejected)
    assert "before this segment started" in late.why
    in_time = validate_announced("old.bin", cwd, (cwd,), Beginning(saved_s + 1.5))
    assert isinstance(in_time, CheckpointFile), "clocks are coarse"
    monkeypatch.setattr(time, "time", lambda: saved_s + 1)
    set_back = validate_announced("old.bin", cwd, (cwd,), Beginning(saved_s + 3600))
    assert isinstance(set_back, CheckpointFile), "the clock was set back an hour during the segment"


def test_somebody_elses_file_is_refused(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cwd / "1.bin").write_bytes(b"x")
    saved = known(cwd / "1.bin")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert "not by you" in refusal("1.bin", cwd)
    assert "not by you" in str(still_good(saved))


def test_an_unchanged_checkpoint_is_good(cwd: Path) -> None:
    for name in ("a.pt", "b.bin", "c.log.json"):
        (cwd / name).write_bytes(b'{"one": 1}\n{"two": 2}\n')
        assert still_good(known(cwd / name)) is None


def test_what_became_of_a_checkpoint(cwd: Path) -> None:
    path = cwd / "1.bin"
    path.write_bytes(b"weights")
    saved = known(path)
    path.unlink()
    assert still_good(saved) == "it is gone"
    path.touch()
    assert still_good(saved) == "it is empty"
    path.unlink()
    path.mkdir()
    (path / "x").write_bytes(b"x")
    assert still_good(saved) == "a directory now, a file before"
    (path / "x").unlink()
    path.rmdir()
    (cwd / "2.bin").write_bytes(b"weights")
    path.symlink_to("2.bin")
    assert still_good(saved) == "its path leads through a link now"


def test_a_changed_checkpoint_is_good_if_whole(cwd: Path) -> None:
    """The script replaced its file and was killed before it could say so."""
    path = cwd / "last.pt"
    write_zip(path)
    saved = known(path)
    write_zip(cwd / "new", b"newer" * 5000)
    (cwd / "new").replace(path)
    assert still_good(saved) is None
    cut(path)
    assert "cut off" in str(still_good(saved))


def test_a_torn_file_is_not_good_even_if_announced_so(cwd: Path) -> None:
    path = cwd / "last.pt"
    write_zip(path)
    cut(path)
    assert "cut off" in str(still_good(known(path)))


def test_the_newest_good_one_is_taken_and_the_others_named(cwd: Path) -> None:
    """By the order in which they were announced: after a jump of the wall clock the file times mislead."""
    saved: list[CheckpointRecord] = []
    now_ns = time.time_ns()
    for number, jump in ((4, -1), (3, -1), (2, 0), (1, 0)):
        path = cwd / f"{number}.pt"
        write_zip(path)
        os.utime(path, ns=(0, now_ns + jump * 10**9))
        saved.append(checkpoint("r1", path))
    (cwd / "4.pt").unlink()
    cut(cwd / "3.pt")
    good, rejected = newest_good(saved)
    assert good is not None
    assert good.path == str(cwd / "2.pt")
    assert [Path(each.path).name for each, _ in rejected] == ["4.pt", "3.pt"]
    assert rejected[0][1] == "it is gone"
    (cwd / "1.pt").unlink()
    (cwd / "2.pt").unlink()
    assert newest_good(saved)[0] is None
    assert newest_good([]) == (None, [])


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "a.npz", "a.keras", "a.zip"])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.99])
def test_a_zip_cut_anywhere_is_not_whole(cwd: Path, name: str, keep: float) -> None:
    path = cwd / name
    write_zip(path)
    assert looks_whole(path) is None
    cut(path, keep)
    assert looks_whole(path) is not None


def test_a_zip_whose_front_is_missing_is_not_whole(cwd: Path) -> None:
    """A directory that reads, and entries that are not there: zipfile itself would only notice on reading."""
    path = cwd / "a.npz"
    write_zip(path)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 20 : entry + 24] = struct.pack("<I", 2**30)
    path.write_bytes(data)
    assert "do not fit" in str(looks_whole(path))


def test_formats_that_only_may_be_zip(cwd: Path) -> None:
    (cwd / "old.pt").write_bytes(b"\x80\x02ctorch")
    (cwd / "old.npz").write_bytes(b"\x80\x02ctorch")
    assert looks_whole(cwd / "old.pt") is None
    assert "zip" in str(looks_whole(cwd / "old.npz"))


def test_safetensors(cwd: Path) -> None:
    path = cwd / "model.safetensors"
    write_safetensors(path)
    assert looks_whole(path) is None
    write_safetensors(path, actual=63)
    assert "its header says" in str(looks_whole(path))
    for data in (b"\x01", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 2) + b"[]", bytes(100)):
        path.write_bytes(data)
        assert looks_whole(path) is not None


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b'{"step": 3, "loss": NaN}', True),
        (b"[]", True),
        (b'{"step": 3', False),
        (b"[" * 100_000, False),
        (b"\0" * 50, False),
    ],
)
def test_json(cwd: Path, data: bytes, whole: bool) -> None:
    (cwd / "state.json").write_bytes(data)
    assert (looks_whole(cwd / "state.json") is None) == whole


@pytest.mark.parametrize(("version", "at", "width_at"), [(0, 40, 13), (1, 44, 13), (2, 28, 9), (3, 28, 9)])
@pytest.mark.parametrize("user_block", [0, 512])
def test_hdf5(cwd: Path, version: int, at: int, width_at: int, user_block: int) -> None:
    """Offsets as h5py writes them: whole files of each kind pass, and cut anywhere they do not."""
    block = bytearray(b"\x89HDF\r\n\x1a\n" + bytes(992))
    block[8], block[width_at] = version, 8
    struct.pack_into("<Q", block, at, user_block + len(block))
    path = cwd / "model.h5"
    path.write_bytes(bytes(user_block) + block)
    assert looks_whole(path) is None
    for keep in (0.999, 0.6, 0.05):
        path.write_bytes((bytes(user_block) + block)[: int((user_block + 1000) * keep)])
        assert looks_whole(path) is not None
    path.write_bytes(bytes(2000))
    assert looks_whole(path) == "not an HDF5 file"


def test_an_unknown_format_is_whole_if_not_empty(cwd: Path) -> None:
    (cwd / "model.onnx").touch()
    assert looks_whole(cwd / "model.onnx") == "it is empty"
    (cwd / "model.onnx").write_bytes(b"x")
    assert looks_whole(cwd / "model.onnx") is None


def spoil_shard(folder: Path) -> None:
    cut(folder / "sub" / "shard.pt")


def leave_tmp(folder: Path) -> None:
    (folder / "model.safetensors.tmp").write_bytes(b"x")


def leave_marker(folder: Path) -> None:
    (folder / ".incomplete").touch()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [(spoil_shard, "shard.pt"), (leave_tmp, "did not finish"), (leave_marker, "did not finish")],
)
def test_a_directory_is_whole_if_all_in_it_is(cwd: Path, spoil: Callable[[Path], None], why: str) -> None:
    folder = cwd / "checkpoint-1"
    (folder / "sub").mkdir(parents=True)
    assert "without any file" in str(looks_whole(folder))
    write_zip(folder / "sub" / "shard.pt")
    (folder / "state.json").write_text("{}")
    (folder / "marker").touch()
    saved = known(folder)
    assert looks_whole(folder) is None
    spoil(folder)
    (folder / "state.json").write_text('{"step": 2}')
    assert why in str(looks_whole(folder))
    assert why in str(still_good(saved))


def test_roots_are_the_runs_folder_and_what_the_user_named(
    cwd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "disk").mkdir()
    (cwd / "ckpts").symlink_to(tmp_path / "disk")
    argv = [
        "python3",
        "train.py",
        "--out=/data/runs/a",
        "--log",
        "/data/logs/x.txt",
        "../sibling/out",
        "inside/out",
        "lr=0.1",
        "adam",
        "s3://bucket/key",
        "--save-dir",
        "ckpts",
        "/data/runs/a/deeper",
        "x\0y",
        "z" * 5000,
        "\ud800",
    ]
    assert roots_for(cwd, argv, Path("/models/base/1.pt"), [Path("/extra")]) == (
        cwd,
        Path("/extra"),
        Path("/models/base"),
        Path("/data/runs/a"),
        Path("/data/logs"),
        tmp_path / "sibling/out",
        tmp_path / "disk",
    )


def test_no_root_is_broad_or_the_systems(cwd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    broad = [
        "/",
        "/tmp",
        "/etc",
        "/etc/x",
        "/usr/local/y",
        "/home",
        "/var/tmp",
        str(home),
        str(tmp_path),
        "..",
    ]
    assert roots_for(cwd, broad, Path("/usr/x.pt"), [Path("/"), home]) == (cwd,)
    assert roots_for(Path("/"), [], None, []) == ()
    for own in (home, Path("/tmp"), tmp_path):
        assert roots_for(own, [str(home / "inside")], None, [])[0] == own, (
            "its own folder counts, whatever it is"
        )
    assert roots_for(cwd, [f"--save={home}/a.pt", "/tmp/b.pt"], None, []) == (
        cwd,
        home / "a.pt",
        Path("/tmp/b.pt"),
    )
    assert roots_for(cwd, [], home / "a.pt", []) == (cwd, home / "a.pt")


def test_the_interpreters_folder_is_no_root(cwd: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    assert roots_for(cwd, [str(python), "train.py"], None, []) == (cwd,)


def test_the_number_of_roots_is_bounded(cwd: Path) -> None:
    assert len(roots_for(cwd, [f"/data/{n}" for n in range(500)], None, [])) == 64
