"""The real thing: a network trained on the digits in segments comes out as one trained in a single go."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT, Bench

SCRIPT = ROOT / "examples" / "digits.py"
EPOCHS = ("--epochs", "15")
LEAST_BOX_S = 1.5
"""Loading the images must fit in, with time to spare for a batch."""


def children_cpu_s() -> float:
    used = os.times()
    return used.children_user + used.children_system


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_chained_training_computes_what_an_uninterrupted_one_does(bench: Bench, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    before_s = children_cpu_s()
    alone = subprocess.run([sys.executable, str(SCRIPT), *EPOCHS, "--out", str(whole)], capture_output=True,
                           text=True, timeout=100, check=True)  # fmt: skip
    # Of its CPU time, not of how long it took: there are three segments even if the machine is quiet by now, and CPU
    # time went twice as far.
    box_s = max((children_cpu_s() - before_s) / 4.5, LEAST_BOX_S)

    run = bench.queue(str(SCRIPT), "-m", f"{box_s / 60:.4f}", "--", *EPOCHS, "--out", "chained")
    bench.worker()
    seen = bench.wait_for(run, "completed", "failed", "timeboxed", timeout_s=100)
    segments = seen["segments"]
    assert seen["state"] == "completed", seen["reason"]
    assert len(segments) >= 3
    assert [one["outcome"] for one in segments] == ["timeboxed"] * (len(segments) - 1) + ["completed"]
    # 0 from one that had just done its last batch when it was asked: what was asked wins, and the next one ends it.
    assert {one["exit_code"] for one in segments[:-2]} == {75}
    assert segments[-1]["exit_code"] == 0

    chained = bench.project / "chained"
    assert (chained / "weights.json").read_bytes() == (whole / "weights.json").read_bytes()
    told = re.findall(r"^accuracy (0\.\d+)$", bench.log(run, len(segments)), re.MULTILINE)
    assert len(told) == 1
    assert float(told[0]) > 0.90
    assert f"accuracy {told[0]}\n" in alone.stdout

    used = [one["checkpoint_used"] for one in segments]
    assert used[0] is None
    for number, path in enumerate(used[1:], 1):
        announced = re.findall(r'"path": "([^"]+)"', bench.log(run, number))
        assert path == announced[-1], f"segment {number + 1} began where segment {number} had stopped"
