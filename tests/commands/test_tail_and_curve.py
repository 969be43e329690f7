"""`logs --json` and `plot --json`: the end of an output and a metric, small enough for a program to read."""

import contextlib
import json
import sqlite3
from typing import Any

import pytest

from backprop.cli.live.last_text import MOST_BYTES
from tests.support import json_schema
from tests.support.harness import Bench
from tests.support.terminal import Terminal

PRINTS = """
import json
print("first")
print(json.dumps({"step": 0, "loss": 300.0, "metrics": {"accuracy": 0.5}}))
for part in range(1000):
    print(f"\\r\\x1b[32mbar {part}\\x1b[0m", end="")
print("\\nnot \\x07 heard, caf\\u00e9")
print("x" * 20_000)
print("last")
"""


@pytest.fixture
def ended(bench: Bench) -> Bench:
    bench.script("train.py", PRINTS)
    bench.queue("train.py")
    assert bench.worker("--drain").wait(timeout=60) == 0
    return bench


def answer(bench: Bench, name: str, *words: str) -> Any:
    done = bench.backprop(*words, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    json_schema.check(value, name)
    return value


def test_the_end_of_an_output_and_a_curve_in_json(ended: Bench) -> None:
    (tail,) = answer(ended, "logs", "logs", "train", "-n", "1")
    assert (tail["text"].strip(), tail["whole"], tail["segment"]) == ("last", False, 1)
    (tail,) = answer(ended, "logs", "logs", "train", "-n", "4")
    assert len(json.dumps(tail["text"])) <= MOST_BYTES
    assert tail["text"].endswith("x\nlast\n"), "of a line that is too long, the end"
    ended.script(
        "short.py",
        'for part in range(9): print(f"\\r\\x1b[32mbar {part}\\x1b[0m", end="")\nprint("\\nnot \\x07")\n',
    )
    short = ended.queue("short.py")
    assert ended.worker("--drain").wait(timeout=60) == 0
    (tail,) = answer(ended, "logs", "logs", short)
    assert (tail["text"], tail["whole"]) == ("bar 8\nnot \\x07\n", True)
    assert answer(ended, "logs", "logs", short, "--segment", "1")[0]["text"] == tail["text"]
    with contextlib.closing(sqlite3.connect(ended.home / "backprop.db")) as database, database:
        # One value is kept for each five seconds: those of a longer run.
        database.executemany(
            "INSERT INTO metrics (run_id, segment, at_s, step, name, value, source)"
            " SELECT id, 1, 2e9 + ?, ?, 'loss', ?, 'event' FROM runs WHERE name = 'train'",
            [(step, step, 300.0 - step) for step in range(1, 300)],
        )
    curve = answer(ended, "plot", "plot", "train", "short", "--points", "5")
    first, second = curve["runs"]
    assert (curve["metric"], curve["x"], curve["more"]) == ("loss", "step", 0)
    assert first["known"] == ["accuracy", "loss"]
    assert (first["first"], first["last"], first["least"], first["greatest"]) == (300.0, 1.0, 1.0, 300.0)
    assert len(first["points"]) == 5
    assert first["points"][-1] == [299.0, 1.0]
    assert (second["values"], second["last"], second["points"]) == (0, None, [])
    for most, last in (("0", []), ("1", [[299.0, 1.0]])):
        assert answer(ended, "plot", "plot", "train", "--points", most)["runs"][0]["points"] == last
    assert ended.backprop("logs", short, "--json", "-f").returncode == 2
    logs = ended.backprop("logs", "-n", "1")
    assert (logs.stdout, logs.stderr) == ("not \x07\n", f"short ({short}), completed:\n")
    head, *rows = ended.backprop("list", "-l").stdout.splitlines()
    at = head.index("CURVE")
    assert {row.split()[1]: row[at : at + 12].rstrip() for row in rows} == {
        "train": "██▇▆▆▅▄▃▃▂▁▁",
        "short": "",
    }
    with Terminal(ended, 80, "show", "train", env={"TERM": "xterm"}) as terminal:
        shown = terminal.read_all()
    assert "⠉" in shown and " 299 step" in shown
    with Terminal(ended, 80, "show", "train", env={"TERM": "dumb"}) as terminal:
        shown = terminal.read_all()
    assert "⠉" not in shown and " 299 step" in shown
    with Terminal(ended, 80, "show", short) as terminal:
        assert "└" not in terminal.read_all()
