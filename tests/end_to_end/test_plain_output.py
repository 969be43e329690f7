"""A script that knows nothing of us and prints what scripts print: its numbers are seen everywhere."""

import json

from tests.support.harness import Bench

PRINTS = """
for epoch in range(1, 4):
    print(f"epoch {epoch}/10 loss {0.5 + 3 - epoch:.1f} | cost is {epoch}.25")
"""


def test_its_numbers_are_seen_everywhere(bench: Bench) -> None:
    bench.script("train.py", PRINTS)
    run = bench.queue("train.py", "-n", "plain", "--metric-regex", r"cost=cost is ([\d.]+)")
    assert bench.worker("--drain").wait(60) == 0
    row = next(line for line in bench.backprop("list").stdout.splitlines() if run in line)
    assert row.split()[4:6] == ["3/10", "0.5"]
    seen = bench.show(run)
    assert (seen["last_step"], seen["step_unit"], seen["step_total"], seen["last_loss"]) == (
        3,
        "epoch",
        10,
        0.5,
    )
    assert seen["source"] == {"step": "log", "loss": "log"}
    assert seen["segments"][0]["first_step"] == 1
    assert "epoch 3 of 10, loss 0.5, read from its output" in bench.backprop("show", run).stdout
    rows = json.loads(bench.backprop("export", "--what", "metrics").stdout)
    assert {(one["name"], one["step"], one["value"], one["source"]) for one in rows} == {
        ("epoch", 3, 3.0, "log"),
        ("loss", 3, 0.5, "log"),
        ("cost", 3, 3.25, "log"),
    }


def test_a_pattern_that_is_no_pattern_is_refused_in_one_line(bench: Bench) -> None:
    bench.script("train.py", PRINTS)
    for words in (("run",), ("drill",)):
        done = bench.backprop(*words, "--metric-regex", "acc=(", "train.py")
        assert done.returncode == 6, done.stderr
        assert done.stderr.strip().count("\n") == 0
        assert "--metric-regex 'acc=(': missing )" in done.stderr
    assert bench.runs() == []
