"""Runs the installed command for a test: a home of its own, workers, and patience.

Nothing is faked: real processes, real signals, real SQLite files. Each bench ends by asserting that no
process of its home is left.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked_command import COMMAND, ForkedProcess, can_fork, run_forked

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = Path(__file__).parent / "scripts"
PROGRAMS = Path(__file__).parent / "programs"
Worker = subprocess.Popen[str] | ForkedProcess
QUIET_LIMITS = ("--min-free-ram", "0", "--max-cpu-load", "1000", "--gpu-probe", "none")
"""So that a busy or small test machine starts runs at once. Tests of the governor leave them out."""


def wait_until(
    true_now: Callable[[], object], *, timeout_s: float = 30.0, saw: Callable[[], object] = lambda: ""
) -> None:
    """Poll until `true_now()`; fail with what was last seen."""
    end = time.monotonic() + timeout_s
    while not true_now():
        assert time.monotonic() < end, f"still not true after {timeout_s} s; saw: {saw()}"
        time.sleep(0.02)


def stays_true(true_now: Callable[[], object], for_s: float, saw: Callable[[], object] = lambda: "") -> None:
    """Poll for so long, and fail at once where it is not true: for what is not to happen."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert true_now(), f"no longer true; saw: {saw()}"
        time.sleep(0.02)


def program(name: str) -> list[str]:
    """Return the command that starts a file of tests/support/programs, with warnings as errors."""
    return [sys.executable, "-W", "error", str(PROGRAMS / f"{name}.py")]


def without_roots_rights() -> tuple[str, ...]:
    """Return what to put before a command, so that file modes hold for it as for other users."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed: root may read and write everything")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def new_board(folder: Path) -> Path:
    """Make a folder that homes can share, so that tests at the same time do not see each other's promises."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o1777)
    return folder


def alive(pid: int) -> bool:
    """Return whether a process runs under this pid; its zombie does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def processes_with(entry: str) -> list[int]:
    """Return living processes (no zombies) that carry `entry` ("NAME=value") in their environment, without us."""
    found: list[int] = []
    wanted, us = os.fsencode(entry), str(os.getpid())
    for name in os.listdir("/proc"):  # noqa: PTH208 - polled, beside hundreds of processes
        if not name.isdecimal() or name == us:
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                environment = file.read()
        except OSError:
            continue
        if wanted in environment and wanted in environment.split(b"\0") and alive(int(name)):
            found.append(int(name))
    return found


class Bench:
    """One home, one project folder, and the installed `backprop` command run against them."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("BACKPROP_")
        } | {
            "BACKPROP_HOME": str(self.home),
            "BACKPROP_BOARD": str(new_board(folder / "board")),
            "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
        }
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)
        self._workers: list[Worker] = []

    def script(self, name: str, body: str) -> Path:
        """Write a script into the project folder."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(body))
        return path

    def backprop(
        self,
        *words: str,
        timeout_s: float = 60.0,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        command: Sequence[str] = (str(COMMAND),),
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed command, or what stands in for it, to its end."""
        environment = self.environment | (env or {})
        if can_fork(command, environment):
            return run_forked([*command, *words], environment, cwd or self.project, timeout_s)
        return subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=environment,
            cwd=cwd or self.project,
            stdin=subprocess.DEVNULL,
        )

    def queue(self, *words: str, quiet_limits: bool = True, command: Sequence[str] = (str(COMMAND),)) -> str:
        """Queue by `backprop run -q …`, and return the new run's id."""
        at = words.index("--") if "--" in words else len(words)
        limits = QUIET_LIMITS if quiet_limits else ()
        done = self.backprop("run", "-q", *limits, *words[:at], *words[at:], command=command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def worker(
        self,
        *words: str,
        env: dict[str, str] | None = None,
        command: Sequence[str] = (str(COMMAND),),
        as_job: bool = False,
        forked: bool = True,
    ) -> Worker:
        """Start a worker in a session of its own; its output goes to `worker-N.out` beside the home. Without a fake
        driver it looks for no GPUs, unless `words` say so, which costs it a process. `command`:
        what stands in for the installed command. `as_job`: in this session, as a shell starts its jobs. `forked`:
        where that does. Else it is started: our child, whose command and environment /proc shows."""
        out = self.project.parent / f"worker-{len(self._workers)}.out"
        environment = self.environment | (env or {})
        no_gpus = "--gpu-probe" not in words and "FAKE_NVML_DIR" not in environment
        argv = [*command, "worker", *words, *(("--gpu-probe", "none") if no_gpus else ())]
        with out.open("w") as file, _hearing_hangups():
            if forked and not as_job and can_fork(command, environment):
                worker = ForkedProcess(argv, environment, self.project, file.fileno())
            else:
                worker = subprocess.Popen(
                    argv,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    cwd=self.project,
                    start_new_session=not as_job,
                    process_group=0 if as_job else None,
                    text=True,
                )
        self._workers.append(worker)
        return worker

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Return every worker that was started, the ended ones too."""
        return tuple(self._workers)

    def output(self, number: int = 0) -> str:
        """Return what worker `number` has printed so far."""
        return (self.project.parent / f"worker-{number}.out").read_text()

    def show(self, run: str) -> dict[str, Any]:
        done = self.backprop("show", run, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def runs(self) -> list[dict[str, Any]]:
        done = self.backprop("list", "-n", "0", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def wait_for(self, run: str, *states: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until the run is in one of `states`, and return what `show` then says."""
        wait_until(
            lambda: self.state(run) in states,
            timeout_s=timeout_s,
            saw=lambda: f"{self.show(run)} {self._outputs()}",
        )
        return self.show(run)

    def state(self, run: str) -> str:
        """Read the run's state alone from the database: cheap enough to poll."""
        return str(self.column(run, "state"))

    def states(self) -> dict[str, int]:
        """Count the runs of each state in the database: cheap enough to poll."""
        with contextlib.closing(sqlite3.connect(self.home / "backprop.db", timeout=10)) as database:
            return dict(database.execute("SELECT state, COUNT(*) FROM runs GROUP BY state"))

    def column(self, run: str, name: str) -> object:
        """Return one column of the run's row, as the database has it."""
        # Its own process's connection, opened and closed by the same library that holds no other here.
        database = sqlite3.connect(self.home / "backprop.db", timeout=10)
        try:
            return database.execute(f"SELECT {name} FROM runs WHERE id = ?", (run,)).fetchone()[0]
        finally:
            database.close()

    def log(self, run: str, segment: int = 1) -> str:
        path = self.home / "runs" / run / str(segment) / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def folder(self, run: str, segment: int = 1) -> Path:
        return self.home / "runs" / run / str(segment)

    def wait_for_log(self, run: str, text: str, segment: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until the segment's log contains `text`."""
        wait_until(
            lambda: text in self.log(run, segment),
            timeout_s=timeout_s,
            saw=lambda: f"{self.log(run, segment)[-2000:]} {self._outputs()}",
        )

    def exit_record(self, run: str, segment: int = 1, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait for the `exit.json` of the segment, and return it."""
        path = self.folder(run, segment) / "exit.json"
        wait_until(path.exists, timeout_s=timeout_s, saw=self._outputs)
        return json.loads(path.read_text())

    def leader(self, run: str, segment: int = 1) -> int:
        """Wait for the pid of the segment's leader, and return it."""
        return self._pid(run, segment, "leader")

    def supervisor(self, run: str, segment: int = 1) -> int:
        return self._pid(run, segment, "supervisor")

    def end_worker(self, worker: Worker, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal a worker, wait for its end, and return its exit code."""
        worker.send_signal(number)
        return worker.wait(timeout=60)

    def close(self) -> None:
        """End the workers, and assert that they leave nothing alive; kill what is left."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
                time.sleep(0.05)
                worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            try:
                worker.wait(timeout=30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        left = self.left()
        end = time.monotonic() + 10
        while left and time.monotonic() < end:
            time.sleep(0.05)
            left = self.left()
        told = [(pid, _command(pid)) for pid in left]
        # By group as well: a script that forks without end is gone from a list of pids before it is read.
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if (group := os.getpgid(pid)) != os.getpgrp():
                    os.killpg(group, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        assert not told, f"left alive: {told}; {self._outputs()}"

    def busy(self) -> list[int]:
        """Return `left` without the standby supervisor of a worker."""
        return [pid for pid in self.left() if b"--spare" not in _command(pid)]

    def left(self) -> list[int]:
        """Return the processes of this home that are alive."""
        # The kernel shows the environment that a process was started with, which is not what a fork has been given.
        forked = [one.pid for one in self._workers if isinstance(one, ForkedProcess) and one.poll() is None]
        return [*forked, *processes_with(f"BACKPROP_HOME={self.home}")]

    def _pid(self, run: str, segment: int, who: str) -> int:
        path = self.home / "runs" / run / str(segment) / "processes.json"
        wait_until(path.exists, saw=self._outputs)
        return int(json.loads(path.read_text())[who][0])

    def _outputs(self) -> str:
        return "\n".join(self.output(number)[-3000:] for number in range(len(self._workers)))


@contextlib.contextmanager
def _hearing_hangups() -> Generator[None]:
    """Let processes that are started meanwhile receive SIGHUP, even where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _command(pid: int) -> Sequence[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
