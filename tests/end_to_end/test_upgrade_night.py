"""A night in which Backprop is upgraded: 0.1.0 has started what runs, today's worker takes over, nothing is lost.

Processes of both programs live side by side on one home: segments go on under the supervisors that 0.1.0 started.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import past
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.harness import QUIET_LIMITS, Bench, alive, processes_with, wait_until

HOST_IS_FINE = ("--min-free-ram", "0", "--max-cpu-load", "1000")
COOL, HOT = FakeGpu("GPU-aaaa"), FakeGpu("GPU-aaaa", temp=66)
TRAIN = str(past.TRAIN)
REFUSED_AS_NEWER = 8
BATCH = 1000


class Night:
    """What 0.1.0 has going: a run that runs, one paused for heat, one ended, one held, one next, a batch behind it.

    `minutes`: the timebox of the one that runs."""

    def __init__(self, bench: Bench, driver: FakeDriver, old: tuple[str, ...], minutes: float) -> None:
        self.bench, self.old, self._driver = bench, old, driver
        self._until = ("--until", str(bench.project / "go"))
        self.cool()
        self.ended = self.queue("-n", "ended", steps=3)
        self.worker = bench.worker("-p", "2", command=old)
        self._wait_for(self.ended, "completed")
        self.running = self.queue("-n", "running", "-m", str(minutes))
        words = (*HOST_IS_FINE, "-n", "paused", "--gpu-max-temp", "60", TRAIN, "--", *self._until)
        self.paused = bench.queue(*words, quiet_limits=False, command=old)
        for run in (self.running, self.paused):
            bench.wait_for_log(run, "checkpoint_saved")
        self.held = self.queue("-n", "held", "--hold")
        self.next = self.queue("-n", "next", steps=3)
        limits = (*QUIET_LIMITS, "--priority", "-5", "--group", "batch", "--array", f"1-{BATCH}")
        done = bench.backprop("run", "-q", *limits, TRAIN, "--", "--steps", "1", "--pace", "0", command=old)
        assert done.returncode == 0, done.stderr
        self.batch = done.stdout.split()
        driver.show(HOT)
        self._wait_for(self.paused, "paused")
        self.leaders = {run: bench.leader(run) for run in (self.running, self.paused)}
        self.supervisors = {run: bench.supervisor(run) for run in self.leaders}

    def queue(self, *words: str, steps: int | None = None) -> str:
        script = self._until if steps is None else ("--steps", str(steps))
        return self.bench.queue(*words, TRAIN, "--", *script, command=self.old)

    def _wait_for(self, run: str, state: str) -> None:
        """Ask no command of today's: it would give the home today's schema, which 0.1.0 refuses."""
        wait_until(lambda: self.bench.state(run) == state, timeout_s=60, saw=self.bench.output)

    def cool(self) -> None:
        self._driver.show(COOL)

    def let_end(self) -> None:
        """What runs until it is told otherwise completes at its next step."""
        (self.bench.project / "go").touch()

    def upgrade(self) -> subprocess.Popen[str]:
        """Today's worker, with all but four of the batch held back, which would take minutes."""
        for words in (("hold", "batch"), ("release", *self.batch[:4])):
            done = self.bench.backprop(*words)
            assert done.returncode == 0, done.stderr
        return self.bench.worker("-p", "3")

    def begun_at(self, run: str) -> list[int]:
        """The step that each of its segments began at, as its script has noted."""
        lines = (self.bench.project / f"starts-{run}").read_text().splitlines()
        assert [int(line.split()[0]) for line in lines] == list(range(1, len(lines) + 1)), lines
        return [int(line.split()[1]) for line in lines]

    def assert_nothing_is_lost(self) -> None:
        """Every run is there, in the state that it has to have once all that may run has ended."""
        live = [self.running, self.paused, self.next, *self.batch[:4]]
        for run in live:
            self.bench.wait_for(run, "completed")
        assert not (self.bench.project / "doubles").exists()
        expected = dict.fromkeys([*self.batch[4:], self.held], "held")
        expected |= dict.fromkeys([self.ended, *live], "completed")
        assert {run["id"]: run["state"] for run in self.bench.runs()} == expected
        assert past.rows(self.bench.home, "PRAGMA integrity_check") == [("ok",)]


def last_saved(bench: Bench, run: str) -> tuple[str, int]:
    """Path and step of the last checkpoint that the first segment has announced."""
    lines = [json.loads(line) for line in bench.log(run).splitlines() if "checkpoint_saved" in line]
    return str(bench.project / lines[-1]["path"]), lines[-1]["step"]


@pytest.fixture
def old(tmp_path: Path, bench: Bench) -> tuple[str, ...]:
    """The command of 0.1.0. Fails where today's program would run in its place, or as its probe helper."""
    folder = tmp_path / "old"
    command = past.unpack_program(folder)
    module = "import backprop.cli.main as module; print(module.__file__)"
    for words, env in (
        ([*command, "--where"], {}),
        ([sys.executable, "-P", "-c", module], {"PYTHONPATH": str(folder)}),
    ):
        done = bench.backprop(command=words, env=env)
        assert done.stdout.strip() == str(folder / "backprop" / "cli" / "main.py"), done.stderr
    return command


def program_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_segments_go_on_under_their_supervisors_when_the_old_worker_is_killed(
    bench: Bench, driver: FakeDriver, old: tuple[str, ...], tmp_path: Path
) -> None:
    night = Night(bench, driver, old, minutes=0.3)
    started = processes_with(f"PYTHONPATH={tmp_path / 'old'}")
    assert any("helper" in program_of(pid) for pid in started), "its probe helper is the old one's"
    assert bench.end_worker(night.worker, signal.SIGKILL) == -signal.SIGKILL
    for supervisor in night.supervisors.values():
        assert str(tmp_path / "old" / "backprop") in program_of(supervisor)
    worker = night.upgrade()
    wait_until(lambda: bench.output(1).count("adopted") == 2, saw=lambda: bench.output(1))
    assert bench.state(night.paused) == "paused", "it is as hot as before"
    night.cool()
    bench.wait_for(night.paused, "running")
    for run, leader in night.leaders.items():
        assert bench.leader(run) == leader
        assert alive(leader)
        assert bench.supervisor(run) == night.supervisors[run]
        assert bench.column(run, "segment") == 1

    record = bench.exit_record(night.running)
    assert record["asked"] == "timebox"
    assert 18 <= record["running_s"] < 18 + 20
    wait_until(lambda: bench.folder(night.running, 2).exists(), saw=lambda: bench.output(1))
    night.let_end()
    night.assert_nothing_is_lost()

    path, step = last_saved(bench, night.running)
    first, second = bench.show(night.running)["segments"]
    assert (first["outcome"], second["checkpoint_used"]) == ("timeboxed", path)
    assert night.begun_at(night.running) == [0, step]
    assert night.begun_at(night.paused) == [0], "a pause ends no segment"
    assert bench.exit_record(night.paused)["paused_s"] > 0
    assert bench.end_worker(worker) == 0


def test_what_the_old_worker_gave_back_on_leaving_is_resumed(
    bench: Bench, driver: FakeDriver, old: tuple[str, ...]
) -> None:
    night = Night(bench, driver, old, minutes=10)
    assert bench.end_worker(night.worker, signal.SIGTERM) == 0
    wait_until(lambda: not bench.left(), saw=bench.left)
    for run in night.leaders:
        assert bench.state(run) == "queued"
    night.cool()
    night.let_end()
    night.upgrade()
    night.assert_nothing_is_lost()
    for run in night.leaders:
        path, step = last_saved(bench, run)
        first, second = bench.show(run)["segments"]
        assert (first["outcome"], second["checkpoint_used"]) == ("yielded", path)
        assert night.begun_at(run) == [0, step]


def test_the_old_worker_goes_on_in_a_home_that_todays_command_has_upgraded(
    bench: Bench, driver: FakeDriver, old: tuple[str, ...]
) -> None:
    """Somebody upgrades the program in the middle of the night, and looks."""
    night = Night(bench, driver, old, minutes=10)
    before = past.rows(bench.home, "PRAGMA user_version")
    for words in (("list",), ("hold", "batch"), ("release", *night.batch[:4])):
        done = bench.backprop(*words)
        assert done.returncode == 0, done.stderr
    assert past.rows(bench.home, "PRAGMA user_version") > before
    night.cool()
    night.let_end()
    night.assert_nothing_is_lost()
    for run in night.leaders:
        assert night.begun_at(run) == [0]
    assert bench.end_worker(night.worker) == 0


def test_the_old_command_beside_todays_worker_queues_or_refuses(
    bench: Bench, old: tuple[str, ...], tmp_path: Path
) -> None:
    """A shell may still have it on its PATH. A newer schema it must leave alone."""
    mine = bench.queue(TRAIN, "--", "--steps", "2")
    bench.worker()
    bench.wait_for(mine, "completed")
    its_own = {"BACKPROP_HOME": str(tmp_path / "its-own")}
    words = ("run", "-q", *QUIET_LIMITS, TRAIN, "--", "--steps", "3")
    done = bench.backprop(*words, command=old, env=its_own)
    assert done.returncode == 0, done.stderr
    schema = past.rows(bench.home, "PRAGMA user_version")
    is_newer = schema > past.rows(tmp_path / "its-own", "PRAGMA user_version")

    done = bench.backprop(*words, command=old)
    if is_newer:
        assert done.returncode == REFUSED_AS_NEWER
        assert "has schema 3, this backprop knows up to 1: upgrade with" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    else:
        assert done.returncode == 0, done.stderr
        bench.wait_for(done.stdout.strip(), "completed")
    assert past.rows(bench.home, "PRAGMA user_version") == schema
    assert len(bench.runs()) == 1 + (not is_newer)
