"""An Ultralytics script that says nothing of resuming makes each epoch once, and leaves the files of one training."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frameworks.chain import ALONE, SCRIPTS, reach, skip_without, told
from tests.support.harness import Bench

EPOCHS = 12
CUTS = (3, 7)


def left_by(folder: Path) -> tuple[set[str], list[str]]:
    """Return the files of a training, and the epochs that it has written down."""
    runs = folder / "runs"
    files = {str(path.relative_to(runs)) for path in runs.rglob("*") if path.is_file()}
    (results,) = runs.rglob("results.csv")
    with results.open() as rows:
        return files, [row["epoch"] for row in csv.DictReader(rows)]


def settings_of(folder: Path) -> dict[str, str]:
    """Return the environment of a training, with a settings file of its own."""
    return ALONE | {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(folder / "settings")}


@pytest.mark.timeout(700)
def test_a_training_that_is_cut_makes_each_epoch_once(bench: Bench, tmp_path: Path) -> None:
    skip_without("torch", "torchvision", "ultralytics")
    script = (SCRIPTS / "yolo_bare.py").read_text()
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "yolo_bare.py").write_text(script)
    subprocess.run(
        [sys.executable, "yolo_bare.py", "--epochs", str(EPOCHS)],
        cwd=alone,
        env={name: value for name, value in os.environ.items() if not name.startswith("BACKPROP_")}
        | settings_of(alone),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=True,
    )

    (bench.project / "yolo_bare.py").write_text(script)
    bench.environment |= settings_of(bench.project)
    bench.worker()
    run = bench.queue("-c", "0.001", "yolo_bare.py", "--", "--epochs", str(EPOCHS))
    assert bench.show(run)["goes_on_by"]["way"] == "integration"
    for epoch in CUTS:
        reach(bench, run, epoch)
        assert bench.backprop("stop", run).returncode == 0
        seen = bench.wait_for(run, "stopped", "completed", "failed", timeout_s=120)
        assert seen["state"] == "stopped", told(bench, run)
        assert bench.backprop("resume", run).returncode == 0
    seen = bench.wait_for(run, "completed", "failed", timeout_s=240)

    assert seen["state"] == "completed", told(bench, run)
    assert None not in [one["checkpoint_used"] for one in seen["segments"][1:]], told(bench, run)
    assert seen["last_step"] == EPOCHS
    assert left_by(bench.project) == left_by(alone)
