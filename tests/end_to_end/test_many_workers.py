"""Many runs, four workers: each run is started once, by one of them, and never beyond the limit."""

import json
import sqlite3
import sys
import time

import pytest

from backprop.scheduler.home import run_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import open_database
from backprop.scheduler.store.reads import queries
from backprop.worker.wakeup import wake_workers
from tests.support.harness import Bench, wait_until
from tests.support.store_rows import enqueue_run

BY_COMMAND = 10
WORKERS = 4
PARALLEL = 8

ONCE = f"""\
#!{sys.executable} -ISu
import os, time
run = os.environ["BACKPROP_RUN_ID"]
exclusive = os.O_WRONLY | os.O_CREAT | os.O_EXCL
try:
    os.close(os.open(f"started-{{run}}", exclusive))
    os.close(os.open(f"running-{{run}}", exclusive))
    at_once = sum(name.startswith("running-") for name in os.listdir())
    fault = ""
except FileExistsError as error:
    at_once, fault = 0, f"TWICE {{error.filename}}"
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(ledger, f"{{run}} {{at_once}} {{fault}}\\n".encode())
os.fsync(ledger)
time.sleep(0.05)
os.unlink(f"running-{{run}}")
"""


def completed(bench: Bench) -> int:
    database = sqlite3.connect(bench.home / "backprop.db", timeout=30)
    try:
        return int(database.execute("SELECT COUNT(*) FROM runs WHERE state = 'completed'").fetchone()[0])
    finally:
        database.close()


def queue_more_like(bench: Bench, run_id: str, count: int) -> list[str]:
    """The same run again, `count` times, by the verbs that `backprop run` uses, without an interpreter for each."""
    home = Home(bench.home)
    database = open_database(home)
    try:
        model = queries.run_by_id(database, run_id)
        assert model is not None
        environment = json.loads((home.run_folder(run_id) / "spec.json").read_text())["environment"]
        queued: list[str] = []
        for _ in range(count):
            new, folder = run_folder.create(home, None)
            now_s = time.time()  # the same in both: a worker may put it back from its folder in between
            run_folder.write_spec(folder, new, model.name, model.spec, environment, now_s)
            enqueue_run(database, new, model.name, model.spec, now_s, "queued")
            wake_workers(home.locks)
            queued.append(new)
        return queued
    finally:
        database.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("runs", [30, pytest.param(200, marks=pytest.mark.long)])
def test_every_run_is_started_exactly_once(bench: Bench, runs: int) -> None:
    """The worker of the first runs is killed once they are done: whoever is fast, several have a share."""
    bench.script("once", ONCE).chmod(0o755)
    first = bench.worker("-p", str(PARALLEL))
    queued = [bench.queue("./once") for _ in range(BY_COMMAND)]
    wait_until(lambda: completed(bench) > 0, timeout_s=60)
    for _ in range(1, WORKERS):
        bench.worker("-p", str(PARALLEL))
    wait_until(lambda: completed(bench) == BY_COMMAND, timeout_s=60, saw=lambda: completed(bench))
    first.kill()
    queued += queue_more_like(bench, queued[0], runs - BY_COMMAND)
    wait_until(lambda: completed(bench) == runs, timeout_s=180, saw=lambda: completed(bench))

    lines = [line.split(" ", 2) for line in (bench.project / "ledger").read_text().splitlines()]
    assert [line for line in lines if line[2]] == []
    assert sorted(line[0] for line in lines) == sorted(queued)
    most = max(int(line[1]) for line in lines)
    assert most <= PARALLEL, "the limit counts the runs of all workers together"
    assert most >= 2, "and they do run side by side"
    left = sorted(path.name for path in bench.project.iterdir())
    assert left == sorted(["ledger", "once", *(f"started-{run}" for run in queued)])

    database = sqlite3.connect(bench.home / "backprop.db")
    segments = database.execute("SELECT run_id, number, outcome, worker FROM segments").fetchall()
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert sorted(one[0] for one in segments) == sorted(queued)
    assert {one[1:3] for one in segments} == {(1, "completed")}
    assert len({one[3] for one in segments}) > 1, "several workers had a share"
    for number in range(WORKERS):
        assert "trouble" not in bench.output(number)
