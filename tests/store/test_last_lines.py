"""The last lines of a run's output, over segments, plain and compressed; a place in the queue."""

import gzip
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from backprop.cli.live.log_stream import last_lines
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import listing
from tests.support.harness import Bench
from tests.support.store_rows import SPEC, add_run, enqueue_run, get


def written(home: Home, number: int, text: str, *, packed: bool = False) -> Path:
    folder = home.segment_folder("r1", number)
    folder.mkdir(parents=True)
    path = folder / ("log.gz" if packed else "log")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("text", "lines", "shown"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\n", 9, "a\nb\n"),
        ("", 3, ""),
        ("\n\n\n", 2, "\n\n"),
        ("x" * 200_000 + "\nend\n", 1, "end\n"),
        ("x\n" * 100_000, 3, "x\nx\nx\n"),
    ],
)
def test_of_one_segment(tmp_path: Path, text: str, lines: int, shown: str, packed: bool) -> None:
    written(Home(tmp_path), 1, text, packed=packed)
    assert last_lines(Home(tmp_path), "r1", 1, lines, alone=False) == (1, len(text) - len(shown))


def test_earlier_segments_follow_as_far_as_needed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number in (1, 2, 3):
        written(home, number, "a\nb\nc\n")
    assert last_lines(home, "r1", 3, 2, alone=False) == (3, 2)
    assert last_lines(home, "r1", 3, 4, alone=False) == (2, 4)
    assert last_lines(home, "r1", 3, 50, alone=False) == (1, 0)
    assert last_lines(home, "r1", 3, 50, alone=True) == (3, 0)
    assert last_lines(home, "none", 3, 50, alone=False) == (1, 0)


def test_the_command_prints_them(bench: Bench) -> None:
    bench.script("train.py", "for i in range(100): print('line', i)")
    run = bench.queue("train.py")
    bench.worker("--drain").wait(60)
    assert re.search(r"the queue is empty: 1 completed since \d\d:\d\d; see: backprop report", bench.output())
    assert bench.backprop("logs", run, "-n", "3").stdout == "line 97\nline 98\nline 99\n"
    assert len(bench.backprop("logs", run).stdout.splitlines()) == 100


def test_how_many_come_before(database: Database) -> None:
    for number in range(3):
        add_run(database, f"q{number}")
    enqueue_run(database, "other", "n", replace(SPEC, gpus=0), 5.0)
    add_run(database, "live", State.RUNNING)
    assert [listing.ahead_of(database, get(database, run)) for run in ("q0", "q2", "other")] == [0, 2, 3]
