"""`backprop export`: what comes out can be read again, by others and by us."""

import csv
import json
import os
import struct
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Bench

TRAIN = """
    import json, os, sys
    number = int(os.environ["BACKPROP_SEGMENT"])
    for step in range(number * 10):
        print(json.dumps({"step": step, "loss": 1 / (step + 1), "metrics": {"acc": step / 100}}))
    open("last.ckpt", "w").write(str(number))
    print(json.dumps({"event": "checkpoint_saved", "path": "last.ckpt", "step": step}), flush=True)
    sys.exit(75 if number < 2 else 0)
"""


@pytest.fixture
def trained(bench: Bench) -> str:
    """A run of two segments that has completed, beside one that is queued; its id."""
    bench.script("train.py", TRAIN)
    run = bench.queue("-n", "base", "train.py")
    assert bench.worker("--drain").wait(timeout=60) == 0, bench.output()
    bench.queue("-n", "waits", "train.py")
    return run


def exported(bench: Bench, *words: str) -> Any:
    done = bench.backprop("export", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_runs_segments_and_metrics_as_json(bench: Bench, trained: str) -> None:
    first, second = exported(bench)
    assert first["id"] == trained, "in the order in which they were queued"
    assert first["metrics"] == {"acc": 0.19, "loss": 1 / 20}
    assert second["metrics"] == {}
    told = bench.runs()[-1]
    assert {key: first[key] for key in told} == told, "the fields of list --json"
    segments = exported(bench, trained, "--what", "segments")
    assert [(one["run"], one["number"], one["outcome"]) for one in segments] == [
        (trained, 1, "tempfail"),
        (trained, 2, "completed"),
    ]
    values = exported(bench, "--what", "metrics")
    assert {(one["segment"], one["name"]): (one["step"], one["value"]) for one in values} == {
        (1, "loss"): (9, 1 / 10),
        (1, "acc"): (9, 0.09),
        (2, "loss"): (19, 1 / 20),
        (2, "acc"): (19, 0.19),
    }
    whole = exported(bench, "--what", "all", "--name", "base")
    assert list(whole) == ["runs", "segments", "metrics", "checkpoints"]
    assert [one["id"] for one in whole["runs"]] == [trained]
    assert whole["segments"] == segments
    assert {one["segment"] for one in whole["checkpoints"]} == {1, 2}


def test_csv_is_one_line_a_run_with_its_last_metrics(bench: Bench, trained: str) -> None:
    file = bench.project / "runs.csv"
    assert bench.backprop("export", "--format", "csv", "-o", str(file)).returncode == 0
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows[0]["id"] == trained
    assert float(rows[0]["metrics.loss"]) == 1 / 20
    assert rows[1]["metrics.loss"] == ""
    assert rows[0]["command"] == "python train.py"
    assert not list(bench.project.glob(".runs.csv*"))
    refused = bench.backprop("export", "--format", "csv", "-o", str(bench.project / "no" / "runs.csv"))
    assert refused.returncode == 6
    assert len(refused.stderr.splitlines()) == 1
    assert bench.backprop("export", "--format", "csv", "--what", "all").returncode == 2


def test_the_npm_tools_format_comes_back_the_same(bench: Bench, trained: str, tmp_path: Path) -> None:
    file = bench.project / "experiments.json"
    assert bench.backprop("export", "--format", "original", "-o", str(file)).returncode == 0
    record = json.loads(file.read_text())[trained]
    assert record["status"] == "completed"
    assert record["checkpoints"][-1] == record["lastCheckpoint"] == str(bench.project / "last.ckpt")
    other = {"BACKPROP_HOME": str(tmp_path / "other")}
    assert bench.backprop("import", str(file), env=other).returncode == 0
    told = bench.backprop("show", trained, "--json", env=other)
    there, here = json.loads(told.stdout), bench.show(trained)
    for key in ("id", "name", "state", "last_step", "last_loss", "last_checkpoint"):
        assert there[key] == here[key], key
    for key in ("started_at", "ended_at"):
        apart = datetime.fromisoformat(there[key]) - datetime.fromisoformat(here[key])
        assert abs(apart) <= timedelta(milliseconds=1), key  # there in whole milliseconds
    again = tmp_path / "again.json"
    assert bench.backprop("export", "--format", "original", "-o", str(again), env=other).returncode == 0
    assert json.loads(again.read_text())[trained] == record


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Read the event files of a folder: length, its checksum, an Event, its checksum, over and over."""
    from tensorboardX.proto import event_pb2  # pyright: ignore

    found: list[tuple[str, int, float]] = []
    for path in folder.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event: Any = event_pb2.Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard_gets_every_value_once(bench: Bench, trained: str) -> None:
    pytest.importorskip("tensorboardX")
    folder = bench.project / "tb"
    mine = folder / f"base-{trained}"
    mine.mkdir(parents=True)
    (mine / "events.out.tfevents.1.somebody").write_bytes(b"")
    for _ in range(2):
        done = bench.backprop("export", "--tensorboard", str(folder))
        assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == [mine.name]
    kept = exported(bench, "--what", "metrics")
    assert len(kept) >= 4
    found = sorted(scalars(mine))
    assert [one[:2] for one in found] == sorted((one["name"], one["step"]) for one in kept)
    values = {(one["name"], one["step"]): one["value"] for one in kept}
    assert {one[:2]: one[2] for one in found} == pytest.approx(values, rel=1e-6), "as floats of 32 bits"
    assert (mine / "events.out.tfevents.1.somebody").exists(), "another's file stays"


@pytest.mark.usefixtures("trained")
def test_without_tensorboardx_one_line_says_what_to_install(bench: Bench) -> None:
    bench.script("none/tensorboardX.py", "raise ImportError")
    done = bench.backprop("export", "--tensorboard", "tb", env={"PYTHONPATH": str(bench.project / "none")})
    assert done.returncode == 6
    assert "pip install 'backprop-scheduler[tensorboard]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (bench.project / "tb").exists()


def test_an_unknown_run_and_no_runs_at_all(bench: Bench) -> None:
    assert bench.backprop("export").returncode == 3
    bench.script("train.py", "print(1)")
    bench.queue("train.py")
    assert bench.backprop("export", "nobody").returncode == 3
    assert exported(bench, "--state", "failed") == []


def test_what_is_no_file_is_written_into_and_a_link_is_followed(bench: Bench) -> None:
    """Put in its place, a draft would take away a device, or a FIFO somebody reads."""
    bench.script("train.py", "print(1)")
    run = bench.queue("train.py")
    fifo, link = bench.project / "fifo", bench.project / "link.json"
    os.mkfifo(fifo)
    with subprocess.Popen(["/bin/cat", str(fifo)], stdout=subprocess.PIPE, text=True) as reader:
        assert bench.backprop("export", "-o", str(fifo)).returncode == 0
        assert run in reader.communicate(timeout=30)[0]
    assert fifo.is_fifo()
    link.symlink_to("real.json")
    assert bench.backprop("export", "-o", str(link)).returncode == 0
    assert link.is_symlink()
    assert run in (bench.project / "real.json").read_text()
    assert run in bench.backprop("export", "-o", "-").stdout
    assert not (bench.project / "-").exists()
