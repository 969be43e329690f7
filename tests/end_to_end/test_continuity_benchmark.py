"""The benchmark of ten scripts on one slot: its scripts do as they say, and its table comes to its end."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.continuity import Outcome, read
from benchmarks.ten_scripts import SCRIPTS, STEP_S, text
from tests.support.harness import ROOT


@pytest.mark.parametrize("which", SCRIPTS)
def test_each_script_makes_its_steps_and_writes_them_down(which: str, tmp_path: Path) -> None:
    (tmp_path / "out-train").mkdir()
    (tmp_path / "train.py").write_text(text(which, "train").replace("time.sleep(", "time.sleep(0 * "))
    subprocess.run(
        [sys.executable, "train.py", "--steps", "20"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    book = read(tmp_path / "train.py.book")
    assert book.is_whole(20)
    assert book.starts == 1


def test_what_is_redone_and_what_restarts_take_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "book"
    path.write_text("begun 10.0\nstep 1 11.1\nstep 2 11.2\nbegun 20.0\nstep 2 25.1\nstep 3 25.2\n")
    book = read(path)
    assert book.is_whole(3)
    outcome = Outcome("a way", 40.0, 1, (book,), (0.5, 1.5, 0.25))
    assert outcome.restarts == 1
    assert outcome.redone_s == pytest.approx(STEP_S)
    assert outcome.restart_s == pytest.approx(5.0)
    assert outcome.row(30.0) == "| a way | 1 of 1 | 40 | 1 | 5.0 | 0.1 | 3 | 2.2 | 10.0 | 33.3 % | 2.50 |"


@pytest.mark.long
@pytest.mark.timeout(660)
def test_every_script_comes_to_its_end_where_the_end_of_a_box_is_decided() -> None:
    command = [sys.executable, "-m", "benchmarks.continuity", "--seconds", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    ways = [line for line in done.stdout.splitlines() if "`--at-timebox auto`" in line]
    assert len(ways) == 2
    for way in ways:
        assert "| 10 of 10 |" in way, done.stdout
    assert int(ways[1].split("|")[7]) > 0, "none was suspended"
