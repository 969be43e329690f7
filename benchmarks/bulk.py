"""How long do many runs take: to queue, list, end on time? `python -m benchmarks.bulk`, from the repository's root.

A million finished runs are written straight into a database of the current schema: queueing them one by one would
take hours and leave the same rows.
"""

import argparse
import json
import sqlite3
import sys
import time
from typing import Final

from benchmarks.commands import spent_by
from benchmarks.run import machine
from benchmarks.sample import Row, Sample, table
from benchmarks.workbench import ALWAYS, COMMAND, Workbench, wait_until

QUIET: Final = (*ALWAYS, "--gpu-probe", "none")
SLEEPER: Final = "import time\ntime.sleep(600)\n"


def enqueue(counts: tuple[int, ...], repeats: int) -> list[Row]:
    """One command that queues so many runs: wall clock and CPU."""
    rows: list[Row] = []
    for count in counts:
        spent: list[tuple[float, float]] = []
        for _ in range(repeats):
            with Workbench() as bench:
                bench.script("train.py", "print('hello')\n")
                bench.backprop("run", "-q", "--hold", "train.py")  # makes home and database
                words = ("run", "-q", *QUIET, "--hold", "--array", f"1-{count}", "train.py", "--", "{index}")
                spent.append(spent_by((str(COMMAND), *words)))
        what = f"`backprop run --array 1-{count}`"
        rows.append(Row(what, "ms", Sample(tuple(wall for wall, _ in spent))))
        rows.append(Row(f"{what}, CPU time", "ms", Sample(tuple(cpu for _, cpu in spent))))
    return rows


def listing(sizes: tuple[int, ...], repeats: int) -> list[Row]:
    """`backprop list` of the newest 50 beside so many finished runs; each with the smallest in turn, as a ratio."""
    rows: list[Row] = []
    with Workbench() as bench:
        bench.script("train.py", "print('hello')\n")
        bench.backprop("run", "-q", "--hold", "train.py")
        known = 1
        for size in sizes:
            _fill(bench, known, size)
            known = size
            spent = [spent_by((str(COMMAND), "list")) for _ in range(repeats)]
            rows.append(
                Row(f"`backprop list`, {size:,} runs", "ms", Sample(tuple(wall for wall, _ in spent)))
            )
            rows.append(
                Row(f"`backprop list`, {size:,} runs, CPU time", "ms", Sample(tuple(cpu for _, cpu in spent)))
            )
    return rows


def _fill(bench: Workbench, known: int, size: int) -> None:
    database = sqlite3.connect(bench.home / "backprop.db", isolation_level=None)
    names: list[str] = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
    changed = {
        "id": "printf('r%08d', n)",
        "state": "'completed'",
        "created_at_s": "created_at_s - n",
        "ended_at_s": "created_at_s - n + 0.5",
        "reason": "'exited 0'",
    }
    values = ", ".join(changed.get(name, name) for name in names)
    database.execute("BEGIN IMMEDIATE")
    database.execute(
        f"WITH RECURSIVE counted(n) AS (SELECT {known} UNION ALL SELECT n + 1 FROM counted WHERE n < {size - 1})"
        f" INSERT INTO runs ({', '.join(names)})"
        f" SELECT {values} FROM (SELECT * FROM runs WHERE state = 'held'), counted"
    )
    database.execute("COMMIT")
    database.close()


def timeboxes(segments: int, timebox_s: float) -> list[Row]:
    """By how much segments of a script that ends at once when asked miss their timebox."""
    with Workbench() as bench, bench.worker():
        bench.script("sleep.py", SLEEPER)
        words = ("run", "-q", *QUIET, "-m", f"{timebox_s / 60:.6f}", "--array", f"1-{segments}", "sleep.py")
        ids = bench.backprop(*words).split()
        ends = [bench.home / "runs" / run / "1" / "exit.json" for run in ids]
        wait_until(lambda: all(path.exists() for path in ends), timeout_s=segments * timebox_s + 60)
        late_ms = [(json.loads(path.read_text())["running_s"] - timebox_s) * 1000 for path in ends]
    return [Row(f"segments of {timebox_s:g} s: end later than the timebox", "ms", Sample(tuple(late_ms)))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what many runs cost.")
    parser.add_argument("--quick", action="store_true", help="few repetitions and runs: to see that it works")
    quick = parser.parse_args().quick
    print(machine(), end="\n\n", flush=True)
    begun_s = time.monotonic()
    rows = enqueue((100,) if quick else (1000, 10_000), 2 if quick else 5)
    rows += listing((100, 1000) if quick else (100, 10_000, 1_000_000), 3 if quick else 15)
    rows += timeboxes(4 if quick else 50, 1.0)
    print(table(rows))
    print(f"\n{time.monotonic() - begun_s:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
