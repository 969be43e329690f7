"""A machine that would go to sleep by itself is kept awake while runs are live, and one that slept goes on well."""

import json
import os
import shutil
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from backprop.worker.clock import Clock
from backprop.worker.machine import sleep_inhibitor
from backprop.worker.machine.sleep_inhibitor import SleepInhibitor
from tests.support.harness import SCRIPTS, Bench, alive, wait_until
from tests.support.moved_clock import WallClock

TRAINER = str(SCRIPTS / "trainer.py")
LOGIND = """#!/bin/sh
# Grants the locks in $GRANTED, each word one, and notes who asked for what.
what=${{1#--what=}}
case " {granted} " in *" $what "*) ;; *) echo "Failed to inhibit: Access denied" >&2; exit 1 ;; esac
shift 4
echo "$$ $what" >> "{noted}"
exec "$@"
"""


class Logind:
    """A stand-in for systemd-inhibit, first on PATH."""

    def __init__(self, folder: Path, granted: str) -> None:
        self._noted = folder / "noted"
        self.path = f"{folder}:{os.environ['PATH']}"
        program = folder / "systemd-inhibit"
        program.write_text(LOGIND.format(granted=granted, noted=self._noted))
        program.chmod(0o755)

    def locks(self) -> list[tuple[str, bool]]:
        """Return (what was locked, whether it still is) of each lock so far."""
        lines = self._noted.read_text().splitlines() if self._noted.exists() else []
        return [(what, alive(int(pid))) for pid, what in (line.split() for line in lines)]


class Later(Clock):
    later_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.later_s


@pytest.fixture
def clock() -> Later:
    return Later()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def inhibitor(clock: Later, said: list[str]) -> Generator[SleepInhibitor]:
    inhibitor = SleepInhibitor(clock, said.append)
    yield inhibitor
    inhibitor.release()


@pytest.mark.parametrize("granted", ["sleep:idle idle", "idle"])
def test_the_best_lock_that_is_granted_is_held_while_runs_are_live(
    inhibitor: SleepInhibitor, clock: Later, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: str
) -> None:
    logind = Logind(tmp_path, granted)
    monkeypatch.setenv("PATH", logind.path)
    inhibitor.keep(False)

    def locked() -> list[tuple[str, bool]]:
        inhibitor.keep(True)
        return logind.locks()

    wait_until(lambda: locked() == [(granted.split()[0], True)])
    inhibitor.keep(False)
    assert logind.locks()[0][1], "the next run may start in a moment"
    clock.later_s += sleep_inhibitor.LINGER_S + 1

    def released() -> bool:
        inhibitor.keep(False)
        return not logind.locks()[0][1]

    wait_until(released)
    assert len(logind.locks()) == 1


@pytest.mark.parametrize("program", ["refuses", "missing"])
@pytest.mark.parametrize("states", ["freeze mem disk", ""])
def test_where_there_is_no_lock_that_is_said_once_on_a_machine_that_can_sleep(
    inhibitor: SleepInhibitor, clock: Later, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    program: str, states: str,
) -> None:  # fmt: skip
    (tmp_path / "states").write_text(states)
    monkeypatch.setattr(sleep_inhibitor, "can_sleep", lambda: bool((tmp_path / "states").read_text()))
    monkeypatch.setenv("PATH", Logind(tmp_path, "").path if program == "refuses" else str(tmp_path / "none"))
    why = "Failed to inhibit: Access denied" if program == "refuses" else "systemd-inhibit is not installed"

    def told() -> bool:
        inhibitor.keep(True)
        return inhibitor._retry_s > clock.monotonic_s()

    for _ in range(2):
        wait_until(told)
        clock.later_s += sleep_inhibitor.RETRY_S + 1
    assert said == ([f"this machine may go to sleep during runs: {why}"] if states else [])


def test_a_hook_that_sends_the_machine_to_sleep_meets_no_lock(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    logind = Logind(tmp_path / "bin", "sleep:idle")
    hook = f"{tmp_path}/hook"
    Path(hook).write_text(
        f"#!/bin/sh\nread pid what < {tmp_path}/bin/noted\nkill -0 $pid 2> /dev/null; echo $? > {hook}.out\n"
    )
    Path(hook).chmod(0o755)
    run = bench.queue(TRAINER, "-m", "1", "--", "--steps", "100")
    (bench.home / "config.json").write_text(json.dumps({"hooks": {"queue_empty": hook}}))
    bench.worker(env={"PATH": logind.path})
    bench.wait_for(run, "completed")
    wait_until(lambda: Path(f"{hook}.out").exists() and Path(f"{hook}.out").read_text())
    assert Path(f"{hook}.out").read_text() == "1\n", "no such process: the lock was given back before"


def test_a_worker_holds_the_lock_and_gives_it_back_however_it_ends(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    logind = Logind(tmp_path / "bin", "sleep:idle")
    run = bench.queue(TRAINER, "-m", "1", "--", "--steps", "100000")
    worker = bench.worker(env={"PATH": logind.path})
    wait_until(lambda: logind.locks() == [("sleep:idle", True)])
    worker.send_signal(signal.SIGKILL)
    wait_until(lambda: logind.locks() == [("sleep:idle", False)])
    bench.worker("--no-inhibit-sleep", env={"PATH": logind.path})
    assert bench.backprop("stop", run).returncode == 0
    bench.wait_for(run, "stopped")
    assert len(logind.locks()) == 1


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_sleep_of_the_machine_costs_no_running_time(bench: Bench, tmp_path: Path) -> None:
    """The wall and the boot clock go on by eight hours for all processes, in the middle of a box."""
    clock = WallClock(tmp_path)
    bench.environment |= clock.environment
    run = bench.queue(TRAINER, "-m", "0.05", "--max-segments", "1", "--", "--steps", "180")
    bench.worker()
    wait_until(lambda: bench.column(run, "last_step"))
    clock.sleep(8 * 3600)
    seen = bench.wait_for(run, "completed", "timeboxed")
    assert seen["segments"][0]["outcome"] == "timeboxed"
    assert 2.9 <= seen["segments"][0]["running_s"] < 3 + 20
    assert "the machine was asleep for 480 min" in bench.output()
