"""`backprop parallel` changes how many runs run at once while the workers are at work."""

import contextlib
import json
import sqlite3

from tests.support.harness import Bench, wait_until
from tests.support.refusals import refused

WAITS = """
import time
from pathlib import Path
while not Path("go").exists():
    time.sleep(0.02)
"""


def running(bench: Bench) -> int:
    with contextlib.closing(sqlite3.connect(bench.home / "backprop.db")) as database:
        return database.execute("SELECT COUNT(*) FROM runs WHERE state = 'running'").fetchone()[0]


def test_it_holds_live_for_all_workers_until_one_is_given_its_own(bench: Bench) -> None:
    bench.script("train.py", WAITS)
    said = bench.backprop("parallel").stdout
    assert "at most 2 runs at once: the default; no worker is running; 0 running" in said
    bench.worker("-p", "1")
    runs = [bench.queue("train.py") for _ in range(4)]
    wait_until(lambda: running(bench) == 1)
    wait_until(lambda: "at most 1 run at once: what worker" in bench.backprop("why", runs[1]).stdout)
    assert "change it: backprop parallel N" in bench.backprop("why", runs[1]).stdout
    assert (
        "would let at most 3 run at once; now at most 1"
        in bench.backprop("--dry-run", "parallel", "3").stdout
    )
    assert bench.backprop("parallel", "3").stdout == "at most 3 runs at once (before: 1)\n"
    wait_until(lambda: running(bench) == 3)
    wait_until(lambda: "parallel    from now on at most 3 runs at once" in bench.output())
    wait_until(lambda: "3 of 3 busy" in str(bench.column(runs[3], "reason")), saw=bench.runs)
    bench.worker()
    for shown in (bench.backprop("parallel").stdout, bench.backprop("status").stdout):
        assert "at most 3 runs at once: set by backprop parallel at " in shown
    view = json.loads(bench.backprop("why", runs[3], "--json").stdout)["parallel"]
    assert (view["at_most"], view["by"], view["since"] is None) == (3, "parallel", False)
    lower = bench.backprop("parallel", "1").stdout
    assert lower == "at most 1 run at once (before: 3); 3 are running, and none starts until fewer are\n"
    assert running(bench) == 3
    bench.worker("-p", "4")
    wait_until(lambda: running(bench) == 4)
    assert "backprop parallel 1 is over: this worker was given -p 4" in bench.output(2)
    status = json.loads(bench.backprop("status", "--json").stdout)["parallel"]
    view = json.loads(bench.backprop("parallel", "--json").stdout)
    assert view == status | {"running": 4}
    assert (view["at_most"], view["by"], view["since"], view["running"]) == (4, "workers", None, 4)
    (bench.project / "go").touch()
    for run_id in runs:
        bench.wait_for(run_id, "completed")


def test_what_is_no_number_of_runs_is_refused(bench: Bench) -> None:
    for word in ("0", "1025", "-1", "many"):
        refused(bench, 2, "parallel", "--", word)
    assert not bench.home.exists(), "a look and a refusal create nothing"
