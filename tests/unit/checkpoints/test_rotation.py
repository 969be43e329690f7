"""Which checkpoints may go: only of a series, only behind enough newer good ones, and never what is in doubt."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints.rotation import removal
from backprop.worker.checkpoints.rotation.choice import Keeping, choose, series_of, surplus
from backprop.worker.checkpoints.rotation.evidence import fault_since, why_named, why_not_ours
from backprop.worker.checkpoints.seen.baseline import Beginning, note
from tests.support.store_rows import checkpoint
from tests.support.unannounced_run import zip_bytes

NONE = Path("/none")


def made(path: Path, step: int | None = None) -> CheckpointRecord:
    """Write a good checkpoint; return its record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_bytes(zip_bytes())
        parts = [path.stat()]
    else:
        path.mkdir()
        (path / "model.pt").write_bytes(zip_bytes())
        (path / "state.json").write_text("{}")
        parts = [each.stat() for each in path.iterdir()]
    return msgspec.structs.replace(
        checkpoint("r1", path, step=step),
        size_bytes=sum(each.st_size for each in parts),
        mtime_ns=max(each.st_mtime_ns for each in parts),
        is_dir=not path.suffix,
        attribution="said",
    )


@pytest.mark.parametrize(
    ("name", "step", "series"),
    [
        ("checkpoint-500", None, "checkpoint-#"),
        ("epoch=3-step=1200.ckpt", None, "epoch=#-step=#.ckpt"),
        ("model_0004999.pth", 4999, "model_#.pth"),
        ("G_1000.pth", 1000, "G_#.pth"),
        ("fold_2-epoch_7.pt", None, "fold_2-epoch_#.pt"),
        ("global_step40", None, "global_step#"),
        ("500", None, "#"),
        ("best.pt", None, None),
        ("best.pt", 500, None),
        ("model_final.pth", 90, None),
        ("fold_3.pt", 3, None),
        ("model_fold3.pt", None, None),
        ("seed-2.pt", 2, None),
        ("model-00001-of-00004.safetensors", None, None),
        ("rank_1.pt", 1, None),
        ("mp_rank_00_model_states.pt", None, None),
        ("resnet50.pt", None, None),
        ("v1.5.pt", 5, None),
    ],
)
def test_a_series_differs_by_its_step_alone(name: str, step: int | None, series: str | None) -> None:
    record = msgspec.structs.replace(checkpoint("r1", f"/out/{name}", step=step), is_dir="." not in name)
    assert series_of(record) == (f"/out/{series}" if series is not None else None)


saves = st.lists(
    st.tuples(
        st.sampled_from(["checkpoint-{}", "G_step{}.pt", "D_step{}.pt", "best.pt", "fold{}.pt"]),
        st.sampled_from(["good", "good", "good", "torn", "needed"]),
    ),
    max_size=24,
)


@given(saves, st.integers(1, 5), st.lists(st.floats(-9, 9, allow_nan=False), max_size=12), st.booleans())
def test_never_fewer_good_ones_than_asked_for(
    saved: list[tuple[str, str]], newest: int, values: list[float], highest: bool
) -> None:
    records: dict[str, CheckpointRecord] = {}
    faults: dict[str, str] = {}
    needed: dict[str, str] = {}
    for number, (name, state) in enumerate(saved, 1):
        path = f"/out/{name.format(number)}"
        record = msgspec.structs.replace(checkpoint("r1", path), mtime_ns=number * 10**9)
        records.pop(path, None)
        records = {path: record, **records}
        faults.pop(path, None)
        faults |= {path: "it is gone"} if state == "torn" else {}
        needed |= {path: "needed"} if state == "needed" else {}
    keeping = Keeping(newest, highest=highest)
    curve = [(2.0 * at, value) for at, value in enumerate(values)]
    verdicts = choose([*records.values()], faults, needed, keeping, curve)
    going = {each.record.path for each in verdicts if each.stays is None}
    assert {each.record.path for each in verdicts} == set(records)
    assert going <= {each.path for each in surplus([*records.values()], keeping)}
    assert not going & (set(faults) | set(needed))
    assert all("best" not in path and "fold" not in path for path in going)
    order = list(records)
    for path in going:
        newer = [each for each in order[: order.index(path)] if each not in faults]
        assert sum(series_of(records[each]) == series_of(records[path]) for each in newer) >= newest
    if values:
        # Whichever way its trainer evaluates, what had the best value is there.
        for series in {series_of(record) for record in records.values()} - {None}:
            good = [
                each for each in records.values() if series_of(each) == series and each.path not in faults
            ]
            for shift in (-1, 0):
                of = {
                    each.path: curve[at][1]
                    for each in good
                    if 0 <= (at := sum(at_s <= each.mtime_ns / 1e9 for at_s, _ in curve) + shift) < len(curve)
                }
                best = (max if highest else min)(of.values(), default=None)
                assert best is None or any(of[path] == best for path in of.keys() - going)


def test_without_a_value_of_a_metric_that_was_named_all_stay() -> None:
    records = [checkpoint("r1", f"/out/checkpoint-{step}") for step in (3, 2, 1)]
    verdicts = choose(records, {}, {}, Keeping(1, "val_acc", highest=True, named=True), [])
    assert [each.stays for each in verdicts][1:] == ["no value of val_acc is known yet"] * 2
    assert [each.stays for each in choose(records, {}, {}, Keeping(1), [])][1:] == [None, None]


def test_what_lay_there_or_may_be_another_ones_stays(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = made(tmp_path / "old" / "step-1.pt")
    began = Beginning(time.time(), note([str(tmp_path)], NONE))
    new = made(tmp_path / "old" / "step-2.pt")
    assert why_not_ours(new, began) is None
    assert why_not_ours(made(tmp_path / "deep" / "er" / "checkpoint-3"), began) is None
    assert "lay there" in (why_not_ours(old, began) or "")
    assert "lay there" in (why_not_ours(new, Beginning(time.time())) or ""), "nothing was noted"
    assert "not known" in (why_not_ours(msgspec.structs.replace(new, attribution=None), began) or "")


def test_a_folder_with_a_link_in_it_stays(tmp_path: Path) -> None:
    began = Beginning(time.time(), note([str(tmp_path)], NONE))
    record = made(tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-1" / "data").symlink_to("/etc")
    assert why_not_ours(record, began) == "it holds data, which is no file of its own"


def pointed_to(folder: Path) -> list[tuple[str, Callable[[], object]]]:
    return [
        ("a link", lambda: (folder / "best").symlink_to("checkpoint-1")),
        ("DeepSpeed", lambda: (folder / "latest").write_text("checkpoint-1")),
        ("Megatron", lambda: (folder / "latest_checkpointed_iteration.txt").write_text("1\n")),
        ("TensorFlow", lambda: (folder / "checkpoint").write_text('model_checkpoint_path: "checkpoint-1"\n')),
        (
            "Hugging Face",
            lambda: (folder / "checkpoint-10" / "trainer_state.json").write_text(
                '{"best_model_checkpoint": "./out/checkpoint-1"}'
            ),
        ),
    ]


@pytest.mark.parametrize("kind", range(5))
def test_what_is_pointed_to_stays(tmp_path: Path, kind: int) -> None:
    first, last = made(tmp_path / "checkpoint-1"), made(tmp_path / "checkpoint-10")
    assert why_named(first, [last]) is None
    pointed_to(tmp_path)[kind][1]()
    assert why_named(first, [last]) is not None
    if kind != 4:
        assert why_named(last, []) is None


def test_what_is_not_as_it_was_is_no_good_one(tmp_path: Path) -> None:
    record = made(tmp_path / "step-1.pt")
    assert fault_since(record, ()) is None
    (tmp_path / "step-1.pt").write_bytes(zip_bytes()[:-9])
    assert fault_since(record, ()) == "it has changed since it was saved"
    (tmp_path / "step-1.pt").unlink()
    assert fault_since(record, ()) == "it is gone"
    (tmp_path / "step-1.pt").symlink_to(tmp_path / "step-2.pt")
    made(tmp_path / "step-2.pt")
    assert fault_since(record, ()) == "its path leads through a link now"


@pytest.mark.parametrize("name", ["step-1.pt", "checkpoint-1"])
def test_what_changes_at_the_last_moment_gets_its_name_back(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made(tmp_path / name)
    part = tmp_path / name if record.path.endswith(".pt") else tmp_path / name / "model.pt"

    def write(point: str) -> None:
        if point == "rotation looked":
            part.write_bytes(b"newer")

    monkeypatch.setattr(removal.failpoint, "at", write)
    assert removal.remove(record) == "it has changed since it was saved"
    assert part.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208


def test_a_name_that_was_taken_meanwhile_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, path = made(tmp_path / "step-1.pt"), tmp_path / "step-1.pt"

    def write(point: str) -> None:
        if point == "rotation looked":
            path.write_bytes(b"newer")
        if point == "rotation moved":
            path.write_bytes(b"another")

    monkeypatch.setattr(removal.failpoint, "at", write)
    why = removal.remove(record)
    assert why is not None
    assert "another one has its name by now" in why
    assert path.read_bytes() == b"another"
    assert (tmp_path / ".backprop-moved-r1-step-1.pt").read_bytes() == b"newer"


def test_a_removal_that_was_cut_short_can_be_taken_back(tmp_path: Path) -> None:
    record = made(tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-1").rename(tmp_path / ".backprop-moved-r1-checkpoint-1")
    assert removal.is_begun(record)
    removal.take_back(record)
    assert not removal.is_begun(record)
    assert fault_since(record, ()) is None


@pytest.mark.parametrize("how", ["r", "mapped"])
def test_what_is_open_is_left_alone(tmp_path: Path, how: str) -> None:
    import mmap

    record = made(tmp_path / "checkpoint-1")
    with (tmp_path / "checkpoint-1" / "model.pt").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if how == "mapped" else None
        if mapped is not None:
            file.close()
        assert removal.remove(record) == "a process has it open"
        if mapped is not None:
            mapped.close()
    assert removal.remove(record) is None
    assert os.listdir(tmp_path) == []  # noqa: PTH208
