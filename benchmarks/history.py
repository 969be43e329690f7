"""Measures what looks at the queue beside many finished runs, and how exactly segments end with their timebox.

A million finished runs are written straight into a database of the current schema: queueing them one by one would take
hours and leave the same rows.
"""

import json
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.commands import cpus, median_cpu, spent_by, walls
from benchmarks.sample import Row, Sample, ours
from benchmarks.workbench import ALWAYS, COMMAND, Workbench, wait_until

QUIET: Final = (*ALWAYS, "--gpu-probe", "none")
SLEEPER: Final = "import time\ntime.sleep(600)\n"


Spent = dict[int, list[tuple[float, float]]]
APART_S: Final = 360
TOOK_S: Final = 300
LOOKS: Final = {
    "list": ("list",),
    "list --name": ("list", "--name", "*zz*"),
    "status": ("status",),
    "top": ("top", "--once"),
    "report": ("report",),
}
"""What a person looks with: the newest 50 runs, a name that nobody has, the machine, a frame of the live screen, the
last ten hours."""
MOST_OF_FEW: Final = {"list": "1.3", "status": "1.3", "top": "1.3", "report": "1.3"}
"""How much more CPU time a command may take beside the most runs than beside the fewest. Whoever looks for a name goes
through all names."""


def listing(sizes: tuple[int, ...], repeats: int) -> list[Row]:
    """Measure each of `LOOKS` beside each of `sizes` finished runs."""
    spent: dict[str, Spent] = {command: {size: [] for size in sizes} for command in LOOKS}
    with ExitStack() as stack:
        homes: dict[int, Path] = {}
        for size in sizes:
            bench = stack.enter_context(Workbench())
            bench.script("train.py", "print('hello')\n")
            bench.backprop("run", "-q", "--hold", "train.py")
            _fill(bench.home, size)
            homes[size] = bench.home
        for _ in range(repeats):
            for size, home in homes.items():
                os.environ["BACKPROP_HOME"] = str(home)
                for command, of in spent.items():
                    of[size].append(spent_by((str(COMMAND), *LOOKS[command])))
    return [row for command, of in spent.items() for row in _compared(command, of, sizes)]


def _compared(command: str, spent: Spent, sizes: tuple[int, ...]) -> list[Row]:
    """Return what a command took beside each number of runs, and how much more CPU time beside the most."""
    rows = [ours(f"`backprop {command}`, {size:,} finished runs", "ms", walls(spent[size])) for size in sizes]
    rows += [
        ours(f"`backprop {command}`, {size:,} finished runs: CPU", "ms", cpus(spent[size]))
        for size in (sizes[0], sizes[-1])
    ]
    least, most = median_cpu(spent[sizes[0]]), median_cpu(spent[sizes[-1]])
    what = f"`{command}` of {sizes[-1]:,} beside that of {sizes[0]:,}, CPU"
    return [*rows, ours(what, "times", Sample((most / least,)), MOST_OF_FEW.get(command, ""), digits=2)]


def _fill(home: Path, size: int) -> None:
    """Add finished runs of one segment each, so far apart that `report` tells of a hundred of them."""
    database = sqlite3.connect(home / "backprop.db", isolation_level=None)
    names: list[str] = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
    changed = {
        "id": "printf('r%08d', n)",
        "state": "'completed'",
        "segment": "1",
        "started_at_s": f"created_at_s - {APART_S} * n",
        "chain_total_s": f"{TOOK_S}",
        "created_at_s": f"created_at_s - {APART_S} * n",
        "ended_at_s": f"created_at_s - {APART_S} * n + {TOOK_S}",
        "reason": "'exited 0'",
    }
    values = ", ".join(changed.get(name, name) for name in names)
    database.execute("BEGIN IMMEDIATE")
    database.execute(
        f"WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {size - 1})"
        f" INSERT INTO runs ({', '.join(names)})"
        f" SELECT {values} FROM (SELECT * FROM runs WHERE state = 'held'), counted"
    )
    database.execute(
        "INSERT INTO segments (run_id, number, worker, started_at_s, ended_at_s, outcome, reason, exit_code,"
        " running_s, gpu_uuids, promised_mib, need_source, exclusive, log_offset, events_offset, bad_events)"
        f" SELECT id, 1, 'w1', started_at_s, ended_at_s, 'completed', reason, 0, {TOOK_S}, '[]', 0, 'default',"
        " 0, 0, 0, 0 FROM runs WHERE state = 'completed' ORDER BY ended_at_s"
    )
    database.execute("COMMIT")
    database.close()


def timeboxes(segments: int, timebox_s: float) -> list[Row]:
    """Measure by how much segments of a script that ends at once when asked miss their timebox."""
    with Workbench() as bench, bench.worker():
        bench.script("sleep.py", SLEEPER)
        box = ("-m", f"{timebox_s / 60:.6f}", "--at-timebox", "end")
        words = ("run", "-q", *QUIET, *box, "--array", f"1-{segments}", "sleep.py")
        ids = bench.backprop(*words).split()
        ends = [bench.home / "runs" / run / "1" / "exit.json" for run in ids]
        wait_until(lambda: all(path.exists() for path in ends), timeout_s=segments * timebox_s + 60)
        late_ms = [(json.loads(path.read_text())["running_s"] - timebox_s) * 1000 for path in ends]
    return [ours(f"segments of {timebox_s:g} s: later than the timebox", "ms", Sample(tuple(late_ms)))]
