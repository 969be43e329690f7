"""What a file by torch.save holds, without torch: storages that are missing, and results that are no checkpoints."""

import argparse
import io
import os
import pickle
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.checkpoints.content.torch_file import content_at
from backprop.worker.checkpoints.formats import looks_torn, looks_whole
from backprop.worker.checkpoints.start_point import RunRows, rows_of, start_of
from backprop.worker.environment.leader import LOAD_ALL, LOAD_WEIGHTS, leave_to_load
from tests.support.store_rows import get
from tests.support.unannounced_run import CLEAN, Watched, names

BYTES_EACH = {"FloatStorage": 4, "LongStorage": 8, "OddStorage": 3}
TORCH = ModuleType("torch")
for kind in BYTES_EACH:
    setattr(TORCH, kind, type(kind, (), {"__module__": "torch"}))


class Tensor:
    """Stands for a tensor: its storage is named in the pickle, and lies in an entry of its own."""

    def __init__(self, count: int, kind: str = "FloatStorage") -> None:
        self.count, self.kind = count, kind


def torch_save(path: Path, saved: object, drop: str = "", cut: str = "") -> Path:
    """Write as torch.save does. `drop`: a storage that an interrupt left out. `cut`: one that it left half."""
    storages: list[Tensor] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> object:
            if not isinstance(obj, Tensor):
                return None
            storages.append(obj)
            return ("storage", getattr(TORCH, obj.kind), str(len(storages) - 1), "cpu", obj.count)

    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", TORCH)
        Pickler(buffer, 2).dump(saved)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        for number, tensor in enumerate(storages):
            size = tensor.count * BYTES_EACH[tensor.kind]
            if str(number) != drop:
                archive.writestr(
                    f"archive/data/{number}", os.urandom(size // 2 if str(number) == cut else size)
                )
        archive.writestr("archive/version", "3")
    return path


def full(epoch: int = 1) -> dict[str, object]:
    weights = OrderedDict(weight=Tensor(1000), bias=Tensor(10, "LongStorage"), odd=Tensor(7, "OddStorage"))
    optimizer = {"state": {0: {"momentum": Tensor(1000)}}, "groups": [{"lr": 0.1}]}
    return {"epoch": epoch, "model": weights, "optimizer": optimizer}


def stripped() -> dict[str, object]:
    return full() | {"optimizer": None}


def test_what_an_interrupted_save_left_out_is_missed(tmp_path: Path) -> None:
    """The directory of its zip is written all the same."""
    path = torch_save(tmp_path / "a.pt", full())
    assert (looks_whole(path), looks_torn(path)) == (None, None)
    for part in ({"drop": "0"}, {"drop": "3"}, {"cut": "0"}, {"cut": "1"}, {"drop": "2"}):
        torch_save(path, full(), **part)
        for look in (looks_whole, looks_torn):
            assert "its save was interrupted" in str(look(path)), part
    torch_save(path, full(), cut="2")
    assert looks_whole(path) is None, "of an unknown kind nobody knows the size"


def test_its_keys_are_those_with_a_value(tmp_path: Path) -> None:
    def keys(saved: object) -> frozenset[str] | None:
        content = content_at(torch_save(tmp_path / "a.pt", saved))
        return content.keys if content is not None else None

    assert keys(full()) == {"epoch", "model", "optimizer"}
    assert keys(stripped()) == {"epoch", "model"}
    assert keys(OrderedDict(a=Tensor(1))) == {"a"}
    odd = [Tensor(1), (1, 2.5, "x", None, True, {3, 4}, frozenset({5}), b"y", 1 << 80)]
    assert keys(odd) == frozenset()
    shared = [1]
    assert keys({"same": shared, "again": shared, "path": Path("x")}) == {"same", "again", "path"}


def test_what_torch_load_refuses_without_leave_is_told_from_what_it_takes(tmp_path: Path) -> None:
    def holds_objects(saved: object) -> bool:
        content = content_at(torch_save(tmp_path / "a.pt", saved))
        assert content is not None
        return content.holds_objects

    assert not holds_objects(full())
    assert not holds_objects(OrderedDict(a=Tensor(1), b={1, 2}, c=b"bytes", d=1j))
    assert holds_objects({"args": argparse.Namespace(lr=0.1), "model": Tensor(1)})
    assert holds_objects({"path": Path("x")})


def test_leave_is_given_for_what_the_run_itself_saved(database: Database, tmp_path: Path) -> None:
    watched, home = Watched(database, tmp_path), Home(tmp_path / "home")
    watched.start(resumes="append", resume_words=("--load", "{checkpoint}"))

    def given(name: str | None, saved: object, **shell: str) -> dict[str, str]:
        if name is not None:
            torch_save(watched.out / name, saved)
            watched.store(watched.scanner().final_scan(CLEAN))
        run = get(database, "r1")
        start = start_of(home, run, rows_of(database, run))
        assert start.checkpoint == (str(watched.out / name) if name is not None else None)
        return leave_to_load(start.holds_objects, shell)

    objects = {"model": Tensor(1), "args": argparse.Namespace(lr=0.1)}
    assert given(None, None) == {}
    assert given("a.pt", {"model": Tensor(1)}) == {}
    assert given("b.pt", objects) == {LOAD_ALL: "1"}
    assert given("c.pt", objects, **{LOAD_WEIGHTS: "1"}) == {}
    theirs = torch_save(tmp_path / "theirs.pt", objects)
    run = get(database, "r1")
    told = msgspec.structs.replace(run.spec, resume_from=str(theirs))
    start = start_of(home, msgspec.structs.replace(run, spec=told), RunRows([], []))
    assert (start.checkpoint, start.holds_objects) == (str(theirs), False)


@pytest.mark.parametrize(
    "pickled", [b"", b".", b"0.", b"garbage", b"u.", b"\x80\x02}(.", b"t.", b"s.", b"h\x07."]
)
def test_what_is_no_pickle_says_nothing(pickled: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    content = content_at(tmp_path / "a.pt")
    assert content is None or not content.keys
    assert looks_whole(tmp_path / "a.pt") is None
    (tmp_path / "b.pt").write_bytes(b"PK")
    assert content_at(tmp_path / "b.pt") is content_at(tmp_path / "none.pt") is None


class Saves:
    """The saves of a run, as a worker that begins at each look finds them."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.watched, self.database, self.count = Watched(database, folder), database, 0
        self.watched.start()

    def save(self, name: str, saved: object = None, size: int = 0) -> None:
        path = self.watched.out / name
        if size:
            path.write_bytes(os.urandom(size))
        else:
            torch_save(path, saved)
        self.count += 1
        os.utime(path, (time.time() + self.count / 10, time.time() + self.count / 10))

    def look(self) -> list[str]:
        """Return what is taken as a checkpoint."""
        scanner = self.watched.scanner()
        found = [scanner.without_result(each) for each in scanner.final_scan(CLEAN)]
        self.watched.store(found)
        return names([one for one in found if one.record.refused is None])

    def refused(self) -> list[str]:
        return [one.refused for one in queries.checkpoints(self.database, "r1") if one.refused is not None]


@pytest.fixture
def saves(database: Database, tmp_path: Path) -> Saves:
    return Saves(database, tmp_path)


@pytest.mark.parametrize("result", [stripped(), OrderedDict(weight=Tensor(1000))])
@pytest.mark.parametrize("looks", [1, 2])
def test_a_result_at_the_end_is_no_checkpoint(saves: Saves, result: object, looks: int) -> None:
    saves.save("1.pt", full(1))
    saves.save("2.pt", full(2))
    if looks == 2:
        assert saves.look() == ["1.pt", "2.pt"]
    saves.save("final.pt", result)
    assert "final.pt" not in saves.look()
    assert "a result, no checkpoint: without the optimizer" in saves.refused()[0]


def test_one_that_was_stripped_in_place_is_no_checkpoint(saves: Saves) -> None:
    saves.save("last.pt", full())
    assert saves.look() == ["last.pt"]
    saves.save("last.pt", stripped())
    assert saves.look() == []
    assert "a result, no checkpoint" in saves.refused()[0]


def test_a_larger_file_of_another_run_makes_no_result_of_a_save(saves: Saves) -> None:
    saves.save("others.bin", size=1000)
    saves.save("own.bin", size=100)
    scanner = saves.watched.scanner()
    others, own = scanner.final_scan(CLEAN)
    assert names([others, own]) == ["others.bin", "own.bin"]
    assert scanner.without_result(own) == own, "only what is known to be its own is compared"


def test_who_never_saves_more_is_left_alone(saves: Saves) -> None:
    for number in range(3):
        saves.save(f"{number}.pt", OrderedDict(weight=Tensor(1000 // (number + 1))))
    assert saves.look() == ["0.pt", "1.pt", "2.pt"]


def test_of_another_format_half_the_size_is_a_result_once(saves: Saves) -> None:
    saves.save("a.bin", size=1000)
    saves.save("b.bin", size=900)
    saves.save("c.bin", size=300)
    assert saves.look() == ["a.bin", "b.bin"]
    assert "300 bytes, earlier saves had 900" in saves.refused()[0]
    saves.save("d.bin", size=200)
    saves.save("e.bin", size=201)
    assert "e.bin" in saves.look(), "what comes again is how it saves now"
