"""Measures how long our writes wait for others that write the same database: `python -m benchmarks.locking`.

The hogs are of three kinds. Some write as Backprop's own processes do, with a pause after each transaction. One begins
the next transaction the moment the last is committed. One also keeps each transaction open for a while. SQLite has no
queue of waiting writers, so the last two leave us only their gaps of some microseconds. Takes three minutes.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backprop.cli.context import open_home
from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.spec import NewRun, RunSpec
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import enqueue
from benchmarks.machine import machine
from benchmarks.workbench import Workbench

HOG = """
import json, sqlite3, sys, time
path, hold_s, pause_s = json.loads(sys.argv[1])
opened = sqlite3.connect(path, timeout=60, isolation_level=None)
opened.execute("PRAGMA synchronous=EXTRA")
print("ready", flush=True)
while True:
    opened.execute("BEGIN IMMEDIATE")
    opened.execute("UPDATE runs SET last_step = ifnull(last_step, 0) + 1 WHERE id = 'hogged'")
    time.sleep(hold_s)
    opened.execute("COMMIT")
    if pause_s:
        time.sleep(pause_s)
"""
SPEC = RunSpec(argv=("python", "train.py"), program="/usr/bin/python", cwd="/", script="/train.py")
BETWEEN_S = 0.05


@dataclass(frozen=True)
class Hogs:
    """`count` processes that hold each transaction for `hold_s` and pause for `pause_s` after it."""

    name: str
    count: int
    hold_s: float = 0.0
    pause_s: float = 0.0


SCENES = (
    Hogs("nobody else", 0),
    Hogs("six that hold 5 ms and pause 200 ms, as ours do", 6, 0.005, 0.2),
    Hogs("one without a pause", 1),
    Hogs("one without a pause that holds 5 ms", 1, 0.005),
    Hogs("three of these", 3, 0.005),
)


def measure(hogs: Hogs, times: int, longest_s: float) -> dict[str, list[float]]:
    """Return how long `times` writes and reads of ours took beside `hogs`, in ms, sorted. Stop after `longest_s`."""
    with Workbench():
        home, database = open_home()
        enqueue.enqueue_all(database, [NewRun(id="hogged", name="hogged", spec=SPEC)], 1.0)
        taken: dict[str, list[float]] = {"write": [], "read": []}
        try:
            with _running(home.database, hogs):
                end_s = time.monotonic() + longest_s
                while len(taken["write"]) < times and time.monotonic() < end_s:
                    taken["write"].append(_write_ms(database, len(taken["write"])))
                    taken["read"].append(_read_ms(database))
                    time.sleep(BETWEEN_S)
        finally:
            database.close()
    return {what: sorted(values) for what, values in taken.items()}


def table(found: Sequence[tuple[Hogs, dict[str, list[float]]]]) -> str:
    lines = [
        "| beside | what | p50, ms | p99, ms | max, ms | n |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for hogs, taken in found:
        for what, values in taken.items():
            p50, p99 = (values[int(share * (len(values) - 1))] for share in (0.5, 0.99))
            lines.append(
                f"| {hogs.name} | {what} | {p50:.1f} | {p99:.1f} | {values[-1]:.1f} | {len(values)} |"
            )
    return "\n".join(lines)


def _write_ms(database: Database, number: int) -> float:
    begun = time.perf_counter()
    try:
        enqueue.enqueue_all(database, [NewRun(id=f"n{number}", name="x", spec=SPEC)], 1.0)
    except DatabaseBusy as error:
        print(f"gave up: {error}", file=sys.stderr)
    return (time.perf_counter() - begun) * 1000


def _read_ms(database: Database) -> float:
    begun = time.perf_counter()
    queries.run_by_id(database, "hogged")
    return (time.perf_counter() - begun) * 1000


@contextmanager
def _running(path: Path, hogs: Hogs) -> Generator[None]:
    words = [sys.executable, "-c", HOG, json.dumps([str(path), hogs.hold_s, hogs.pause_s])]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(hogs.count)]
    try:
        for hog in running:
            assert hog.stdout is not None
            assert hog.stdout.readline() == "ready\n"
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.locking", description="Measure how long writes wait beside hogs."
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that it works")
    quick = parser.parse_args().quick
    print(machine(), end="\n\n", flush=True)
    print(table([(hogs, measure(hogs, *((10, 5.0) if quick else (200, 60.0)))) for hogs in SCENES]))


if __name__ == "__main__":
    main()
