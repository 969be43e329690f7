"""A short storm; a long one: `python -m tests.faults.storm --minutes 5 --seed 1`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT


@pytest.mark.timeout(400)
def test_a_short_storm_breaks_no_promise(tmp_path: Path) -> None:
    words = ["--minutes", "0.2", "--seed", "3", "--runs", "6", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.storm", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
