"""Reading the npm original's list of runs."""

import json
import os
from pathlib import Path

import pytest

from backprop.scheduler.errors import BadConfig
from backprop.scheduler.npm_import import OriginalRun, OriginalRuns, read_original, safe_id

RECORD: dict[str, object] = {
    "scriptPath": "/w/train.py",
    "status": "completed",
    "startTime": 1_700_000_000_000,
}


def read(folder: Path, records: object) -> OriginalRuns:
    path = folder / "experiments.json"
    path.write_text(records if isinstance(records, str) else json.dumps(records))
    found = read_original(path)
    assert found is not None
    return found


def test_a_whole_record(tmp_path: Path) -> None:
    record = {
        **RECORD,
        "id": "exp-1",
        "name": "baseline",
        "checkpoints": ["out/1.pt", "out/2.pt"],
        "lastCheckpoint": "out/2.pt",
        "lastStep": 1200,
        "lastLoss": 0.25,
        "endTime": 1_700_000_600_500,
        "pid": 4711,
        "gpu": {"index": 0},
    }
    assert read(tmp_path, {"exp-1": record}) == OriginalRuns(
        (
            OriginalRun(
                id="exp-1",
                name="baseline",
                script_path="/w/train.py",
                state="completed",
                checkpoints=("out/1.pt", "out/2.pt"),
                last_step=1200,
                last_loss=0.25,
                started_s=1_700_000_000,
                ended_s=1_700_000_600.5,
            ),
        ),
        (),
    )


def test_the_least_a_record_holds(tmp_path: Path) -> None:
    nulls = dict.fromkeys(["name", "lastCheckpoint", "checkpoints", "lastStep", "lastLoss", "endTime"])
    first, second = read(tmp_path, {"a": RECORD, "b": {**RECORD, **nulls}}).runs
    assert (first.name, first.checkpoints, first.last_step, first.ended_s) == (None, (), None, None)
    assert (second.name, second.checkpoints, second.last_step, second.ended_s) == (None, (), None, None)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", "stopped"),
        ("completed", "completed"),
        ("failed", "failed"),
        ("timeboxed", "timeboxed"),
        ("stopped", "stopped"),
    ],
)
def test_a_run_left_running_was_not_ours(tmp_path: Path, status: str, state: str) -> None:
    assert read(tmp_path, {"a": {**RECORD, "status": status}}).runs[0].state == state


@pytest.mark.parametrize(
    ("saved", "last", "checkpoints"),
    [
        (None, "b", ("b",)),
        (["a"], "b", ("a", "b")),
        (["b", "a"], "b", ("a", "b")),
        (["a", "b"], None, ("a", "b")),
    ],
)
def test_the_last_checkpoint_is_last(
    tmp_path: Path, saved: list[str] | None, last: str | None, checkpoints: tuple[str, ...]
) -> None:
    record = {**RECORD, "checkpoints": saved, "lastCheckpoint": last}
    assert read(tmp_path, {"x": record}).runs[0].checkpoints == checkpoints


def test_a_bad_record_costs_only_itself(tmp_path: Path) -> None:
    bad: dict[str, object] = {
        "not an object": 3,
        "no script": {"status": "completed", "startTime": 1},
        "unknown status": {**RECORD, "status": "exploded"},
        "step of text": {**RECORD, "lastStep": "3"},
        "huge step": {**RECORD, "lastStep": 2**63},
        "time before 1970": {**RECORD, "startTime": -1},
        "bool for a time": {**RECORD, "startTime": True},
        "NUL in a path": {**RECORD, "checkpoints": ["a\0b"]},
        "half a character": {**RECORD, "name": "\ud800x"},
    }
    found = read(tmp_path, {"good": RECORD, **bad})
    assert [run.id for run in found.runs] == ["good"]
    assert {each.id for each in found.skipped} == set(bad)
    why = {each.id: each.why for each in found.skipped}
    assert "scriptPath" in why["no script"]
    assert "status" in why["unknown status"]


def test_ids_become_safe_and_stay_apart(tmp_path: Path) -> None:
    odd = ["a b", "a/b", "../../etc", "", ".", "-rf", "x" * 65, "ö", "a\x1b[2J", "line\nbreak"]
    ids = [safe_id(each) for each in odd]
    assert ids == [safe_id(each) for each in odd], "the same each time"
    assert len(set(ids)) == len(odd)
    for each in ids:
        assert 0 < len(each) <= 64
        assert each.replace("-", "").replace("_", "").isalnum()
        assert each.isascii()
        assert safe_id(each) == each
    assert safe_id("exp_1.2-b") == "exp_1.2-b"
    found = read(tmp_path, {"a b": RECORD, safe_id("a b"): RECORD})
    assert len(found.runs) == 1
    assert "another run already has the id" in found.skipped[0].why


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", ":1:2: not JSON"),
        ("[]", "expected an object of runs by id; got []"),
        ('{"a": {"lastLoss": NaN}}', "NaN is not a number JSON knows"),
        ("[" * 100_000, "too deep"),
    ],
)
def test_a_bad_file_is_one_refusal(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "experiments.json"))
    assert said in str(caught.value)


def test_no_file_and_no_runs(tmp_path: Path) -> None:
    assert read_original(tmp_path / "experiments.json") is None
    assert read(tmp_path, {}) == OriginalRuns((), ())
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadConfig, match="not a regular file"):
        read_original(tmp_path / "fifo")
