"""Ten runs that save nothing share one place for a night, with all that may come in one: heat, a drained queue, hours
that end, a worker that dies, a machine that goes down. Each has its result in the end, and none starts without need.
"""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from backprop.worker.supervisor import process_tree
from tests.support.fakes import FakeDriver
from tests.support.gpu_turns import CARD, QUICK, queue, starts
from tests.support.harness import Bench, wait_until
from tests.support.moved_clock import WallClock

pytestmark = pytest.mark.gpu

NAMES = tuple("abcdefghij")
STEPS = 100
"""Five seconds: three boxes or four."""
HOURS = "22:00-08:00"
ACTIVE = ("running", "paused")


class NightOfTen:
    """The ten runs on one card, and what comes over them. The clock starts at 23:00 of the first evening."""

    def __init__(self, bench: Bench, driver: FakeDriver, clock: WallClock) -> None:
        self.bench, self._driver, self._clock = bench, driver, clock
        driver.show(CARD)
        bench.environment |= clock.environment | {"TZ": "UTC"}
        self.is_now(1, 23)
        bench.home.mkdir(mode=0o700)
        (bench.home / "config.json").write_text('{"maxSuspended": 10}')
        self.runs = [queue(bench, name, STEPS, mib=50) for name in NAMES]
        self.workers = 0
        self.start_worker()

    def is_now(self, day: int, hour: int) -> None:
        """Set the clock of all processes of this home."""
        wanted = datetime.fromisoformat(f"2031-03-0{day}T{hour:02}:00:00+00:00")
        self._clock.set(int(wanted.timestamp() - time.time()))

    def start_worker(self) -> "subprocess.Popen[str]":
        self.workers += 1
        return self.bench.worker("-p", "1", "--active-hours", HOURS, command=QUICK)

    def count(self, *states: str) -> int:
        return sum(self.bench.states().get(state, 0) for state in states)

    def wait(self, what: str, *states: str, at_least: int = 1) -> None:
        wait_until(
            lambda: self.count(*states) >= at_least, saw=lambda: f"{what}: {self.told()}", timeout_s=90
        )

    def wait_for_none(self, what: str, *states: str) -> None:
        wait_until(lambda: not self.count(*states), saw=lambda: f"{what}: {self.told()}", timeout_s=90)

    def told(self) -> str:
        return f"{self.bench.states()}\n{self.bench.output(self.workers - 1)[-4000:]}"

    @contextmanager
    def heat(self) -> Iterator[None]:
        self._driver.show(replace(CARD, temp=95))
        yield
        self._driver.show(CARD)

    def goes_down(self) -> None:
        """Kill all there is at once; what is noted of this boot means nothing from then on."""
        pids = self.bench.left()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody sees another one die
            for pid in pids:
                os.kill(pid, number)
        for worker in self.bench.workers:
            worker.wait()
        wait_until(lambda: not self.bench.left(), saw=self.bench.left)
        for path in self.bench.home.glob("runs/*/*/*.json"):
            path.write_text(path.read_text().replace(process_tree.boot_id(), "of another boot"))

    def done(self) -> set[str]:
        return {run for run in self.runs if self.bench.state(run) == "completed"}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_runs_and_all_that_comes_in_a_night(bench: Bench, driver: FakeDriver, tmp_path: Path) -> None:
    try:
        clock = WallClock(tmp_path)
    except OSError as error:
        pytest.skip(f"the wall clock cannot be moved: {error}")
    night = NightOfTen(bench, driver, clock)
    night.wait("turns", "suspended", at_least=3)

    with night.heat():
        night.wait_for_none("heat", "running")
        for _ in range(20):
            time.sleep(0.1)
            assert not night.count("running"), "nothing starts or goes on while it is hot"
    night.wait("cooler", "running")

    assert bench.backprop("drain").returncode == 0
    night.wait_for_none("drained", *ACTIVE)
    kept = night.count("suspended")
    assert kept >= 2, night.told()
    assert bench.backprop("undrain").returncode == 0
    night.wait("undrained", "running")

    bench.workers[-1].kill()
    bench.workers[-1].wait()
    night.start_worker()
    night.wait("another worker", "running")

    night.is_now(2, 9)
    night.wait_for_none("outside the hours", *ACTIVE)
    assert night.count("suspended") >= 2, night.told()
    why = bench.backprop("why", next(run for run in night.runs if bench.state(run) == "suspended"))
    assert f"outside activeHours ({HOURS})" in why.stdout
    night.is_now(2, 22)
    night.wait("the next evening", "running")

    begun = {run: starts(bench, run) for run in night.runs}
    assert set(begun.values()) <= {0, 1}, begun
    done = night.done()
    assert night.count(*ACTIVE, "suspended"), night.told()
    night.goes_down()
    night.start_worker()
    shown = {run: bench.wait_for(run, "completed", "failed", "held", timeout_s=180) for run in night.runs}

    for run, one in shown.items():
        assert one["state"] == "completed", (one["reason"], night.told())
        outcomes = [segment["outcome"] for segment in one["segments"]]
        *before, last = [each for each in outcomes if each != "not started"]
        assert last == "completed", outcomes
        assert before in ([], ["lost"]), outcomes
        assert not before or run not in done, "only a machine that went down ends a segment"
        assert starts(bench, run) == 1 + len(before), "no twin, no start in vain"
        assert f"total {sum(range(STEPS))}\n" in bench.log(run, len(outcomes))
    books_balance(bench)


def books_balance(bench: Bench) -> None:
    """Every second of the card is in one account, and it trained for one run at a time."""
    report = json.loads(bench.backprop("report", "--since", "2031-03-01T22:30:00", "--json").stdout)
    (card,) = report["units"]
    assert sum(card["seconds"].values()) == report["wall_s"]
    database = sqlite3.connect(bench.home / "backprop.db")
    try:
        (suspensions,) = database.execute("SELECT COUNT(*) FROM suspensions").fetchone()
    finally:
        database.close()
    assert suspensions >= 10, "every run has waited for its turn"
    assert card["seconds"]["suspend/thaw"] >= 0
