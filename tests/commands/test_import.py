"""`backprop import`: the runs of the npm original, listed and resumed as if they had been ours."""

import json
from pathlib import Path

from tests.support.harness import Bench
from tests.support.refusals import contents, refused

TRAIN = """
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume-from")
    print("resumed from", parser.parse_args().resume_from)
"""


def experiments(bench: Bench) -> Path:
    """A file as the original wrote it, and the checkpoints that are still there."""
    bench.script("train.py", TRAIN)
    bench.script("backprop.config.json", '{"minFreeRamGB": 0, "maxCpuLoad": 1000, "gpu": {"probe": "none"}}')
    bench.script("out/1.pt", "weights")
    bench.script("out/2.pt", "weights")
    record = {"scriptPath": "train.py", "startTime": 1_700_000_000_000}
    records = {
        "exp-1": record
        | {
            "id": "exp-1",
            "name": "baseline",
            "status": "timeboxed",
            "lastCheckpoint": "out/2.pt",
            "checkpoints": ["out/1.pt", "out/2.pt"],
            "lastStep": 1200,
            "lastLoss": 0.31,
            "endTime": 1_700_000_600_000,
        },
        "exp/2": record | {"status": "running"},
        "exp-3": record | {"status": "completed", "lastCheckpoint": "out/gone.pt"},
        "bad": {"status": "completed"},
    }
    return bench.script("experiments.json", json.dumps(records))


def test_its_runs_are_listed_with_what_is_known_of_them(bench: Bench) -> None:
    path = experiments(bench)
    done = bench.backprop("import", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported 3 of 4 runs; 0 were here already, 1 skipped\n"
    assert done.stderr.startswith("skipped bad: ")
    assert done.stderr.count("\n") == 1
    runs = {run["name"]: run for run in bench.runs()}
    one = bench.show("exp-1")
    assert one["name"] == "baseline"
    assert one["state"] == "timeboxed"
    assert (one["last_step"], one["last_loss"], one["segment_count"]) == (1200, 0.31, 0)
    assert one["last_checkpoint"] == str(bench.project / "out/2.pt")
    assert one["created_at"].startswith("2023-11-14") or one["created_at"].startswith("2023-11-15")
    assert len(one["checkpoints"]) == 2
    assert bench.show("exp-3")["checkpoints"][0]["refused"] is not None
    assert len(runs) == 2, "two are called after their script"
    assert "exp-1" in bench.backprop("list").stdout


def test_a_repeated_import_changes_nothing(bench: Bench) -> None:
    path = experiments(bench)
    assert bench.backprop("import", str(path)).returncode == 0
    before = {name: seen for name, seen in contents(bench.home).items() if not name.startswith("locks")}
    again = bench.backprop("import", str(path))
    assert again.stdout == "imported 0 of 4 runs; 3 were here already, 1 skipped\n"
    after = {name: seen for name, seen in contents(bench.home).items() if not name.startswith("locks")}
    assert after == before


def test_one_is_resumed_from_its_last_checkpoint(bench: Bench) -> None:
    path = experiments(bench)
    bench.backprop("import", str(path))
    done = bench.backprop("resume", "baseline")
    assert f"queued baseline (exp-1) again, from {bench.project / 'out/2.pt'}" in done.stdout
    bench.worker("--drain").wait(timeout=60)
    shown = bench.show("exp-1")
    assert shown["state"] == "completed", shown
    assert bench.log("exp-1") == f"resumed from {bench.project / 'out/2.pt'}\n"


def test_a_file_that_is_not_one_is_one_line(bench: Bench) -> None:
    bench.script("bad.json", '{"a": ')
    bench.script("list.json", "[]")
    assert "bad.json:1:" in refused(bench, 5, "import", "bad.json")
    assert "expected an object of runs by id" in refused(bench, 5, "import", "list.json")
    assert not bench.home.exists()
