"""A short storm; a long one: `python -m tests.faults.storm --minutes 5 --seed 1`."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.harness import ROOT


def play(folder: Path, *words: str, timeout_s: float) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.storm", *words, "--folder", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(400)
def test_a_short_storm_breaks_no_promise(tmp_path: Path) -> None:
    play(tmp_path, "--minutes", "0.2", "--seed", "3", "--runs", "6", timeout_s=380)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_long_storm_breaks_no_promise(tmp_path: Path) -> None:
    """Another one each day."""
    seed = datetime.now(UTC).strftime("%Y%m%d")
    play(tmp_path, "--minutes", "4", "--seed", seed, timeout_s=1400)
