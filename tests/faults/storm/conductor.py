"""One storm from its first run to the last check."""

import json
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.storm.frozen import orders
from tests.faults.storm.weather import Weather
from tests.support import promises as books
from tests.support.harness import Bench
from tests.support.moved_clock import WallClock

WORKERS = 2
AT_ONCE = "4"
END_S = 240.0
"""After the storm everything is to end within this time: pauses after trouble and retries are tens of seconds."""


def rage(
    folder: Path, seed: int, seconds: float, runs: int, disk: Path | None, say: Callable[[str], None]
) -> list[str]:
    """Have a storm of `seconds` over `runs` runs (and those queued meanwhile); what was found wrong, [] if nothing.

    `disk`: a small file system for the home, to be filled; None for none. Raises nothing that a fault causes.
    """
    bench = Bench(folder)
    if disk is not None:
        bench.home = disk / "home"
        bench.environment["BACKPROP_HOME"] = str(bench.home)
    bench.home.mkdir(mode=0o700)
    # The floor under the free disk would keep every run waiting on a small one, and out of trouble.
    (bench.home / "config.json").write_text(json.dumps({"minFreeDiskGB": 0}))
    clock = _clock(folder, say)
    if clock is not None:
        bench.environment |= clock.environment
    weather = Weather(bench, random.Random(seed), steps=150, disk=disk is not None, clock=clock)
    crew = _Crew(bench, random.Random(seed + 1))
    try:
        weather.queue_runs(runs)
        _storm(weather, crew, random.Random(seed + 2), seconds, say)
        weather.calm()
        faults = _end(bench, weather, say)
    finally:
        weather.lateness.close()
        try:
            bench.close()
        except AssertionError as error:
            say(str(error))
    faults += weather.faults + books.faults(bench.home, bench.project, weather.lateness.allowed_s)
    known = {row["id"] for row in books.rows(bench.home, "runs")}
    faults += [f"run {run} was queued and is lost" for run in weather.queued if run not in known]
    segments = books.rows(bench.home, "segments")
    say(
        f"{weather.dealt.total()} blows: "
        + ", ".join(f"{name} {n}" for name, n in weather.dealt.most_common())
    )
    suspended = sum(orders(path) for path in bench.home.glob("runs/*/*"))
    say(f"{len(known)} runs, {len(segments)} segments, {suspended} orders to suspend, {crew.started} workers;"
        f" {len(faults)} faults; the machine lagged by {weather.lateness.worst_lag_s:.2f} s at worst")  # fmt: skip
    return faults


def _clock(folder: Path, say: Callable[[str], None]) -> WallClock | None:
    try:
        return WallClock(folder)
    except OSError as error:
        say(f"the wall clock is not moved: {error}")
        return None


class _Crew:
    """Keeps workers: whoever dies is replaced after a while, as by a user or by systemd."""

    def __init__(self, bench: Bench, chance: random.Random) -> None:
        self._bench = bench
        self._chance = chance
        self._next_s: float | None = 0.0
        self.started = 0

    def start(self) -> object:
        self.started += 1
        return self._bench.worker("-p", AT_ONCE, "--gpu-probe", "none", forked=False)

    def keep(self) -> None:
        alive = sum(worker.poll() is None for worker in self._bench.workers)
        if alive >= WORKERS:
            return
        now_s = time.monotonic()
        if self._next_s is None:
            self._next_s = now_s + self._chance.uniform(0.0, 1.5)
        elif now_s >= self._next_s:
            self._next_s = None
            self.start()


def _storm(
    weather: Weather, crew: _Crew, chance: random.Random, seconds: float, say: Callable[[str], None]
) -> None:
    began_s = time.monotonic()
    next_s = look_s = began_s + 2.0
    while (now_s := time.monotonic()) < began_s + seconds:
        crew.keep()
        weather.settle()
        for told in weather.strike_in_time():
            say(f"{time.monotonic() - began_s:6.1f} s  {told}")
        if now_s >= look_s:
            # Before somebody resumes them.
            weather.faults += [one for one in _unfounded(weather.bench) if one not in weather.faults]
            look_s = now_s + 1.0
        if now_s >= next_s:
            told = weather.blow()
            if told is not None:
                say(f"{now_s - began_s:6.1f} s  {told}")
            next_s = time.monotonic() + chance.uniform(0.05, 0.6)


def _rows(bench: Bench) -> list[dict[str, Any]]:
    """The runs; none while the database is gone, damaged or being repaired."""
    try:
        return books.rows(bench.home, "runs") if (bench.home / "backprop.db").exists() else []
    except sqlite3.DatabaseError:
        return []


def _unfounded(bench: Bench) -> list[str]:
    try:
        return books.unfounded_ends(bench.home) if (bench.home / "backprop.db").exists() else []
    except sqlite3.DatabaseError:
        return []


def _end(bench: Bench, weather: Weather, say: Callable[[str], None]) -> list[str]:
    """Calm weather, one new worker: every run ends; those that failed or were stopped are resumed, and complete."""
    for worker in bench.workers:
        worker.kill()
        worker.wait()
    bench.worker("-p", AT_ONCE, "--gpu-probe", "none", forked=False)
    bench.backprop("unsuspend", "--all")
    end_s = time.monotonic() + END_S
    resumed: dict[str, int] = {}
    while time.monotonic() < end_s:
        time.sleep(0.5)
        weather.settle()
        weather.continue_all()  # one that was paused as its supervisor died
        rows = _rows(bench)
        if unfounded := _unfounded(bench):
            return unfounded
        open_still = [row for row in rows if row["state"] != "completed"]
        if rows and not open_still:
            return []
        for row in open_still:
            if row["state"] in ("queued", "running", "paused", "suspended"):
                continue
            if row["state"] == "held" or resumed.get(row["id"], 0) >= 3:
                return [f"run {row['id']} does not complete: {row['state']}, {row['reason']}"]
            resumed[row["id"]] = resumed.get(row["id"], 0) + 1
            say(f"resume {row['id']}: {row['state']}, {row['reason']}")
            bench.backprop("resume", row["id"])
    return [f"run {row['id']} has not ended: {row['state']}, {row['reason']}" for row in open_still]
