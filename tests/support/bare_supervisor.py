"""Starts supervisors without a worker: a folder with an order in it, a lock, and the program."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from backprop.worker.executor import locks
from tests.support.harness import ROOT, processes_with, wait_until

PROGRAM = ROOT / "worker" / "supervisor"


EXIT_TAKEN = 3


HZ = os.sysconf("SC_CLK_TCK")


class Stand:
    """One run folder with one segment, and supervisors started for it."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.segment = self.run / "1"
        self.segment.mkdir(parents=True)
        self.work = folder / "work"
        self.work.mkdir()
        self.cookie = f"BACKPROP_RUN_ID={folder.name}-{os.getpid()}"
        self.environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere"}
        self.for_supervisors: dict[str, str] = {}
        """Added to the environment of the supervisors that are started from now on."""
        self.within: tuple[str, ...] = ()
        """What starts the next supervisors."""
        self._processes: list[subprocess.Popen[bytes]] = []

    def order(self, *argv: str, **changes: object) -> None:
        """Write the order. `argv`: the command, its program by absolute path."""
        (self.run / "spec.json").write_text(json.dumps({"environment": self.environment}))
        name, _, value = self.cookie.partition("=")
        body = {
            "format": 1,
            "spec": str(self.run / "spec.json"),
            "program": argv[0],
            "argv": argv,
            "cwd": str(self.work),
            "umask": 0o022,
            "environment": {name: value, "BACKPROP_SEGMENT": "1"},
            "cookie": [self.cookie, "BACKPROP_SEGMENT=1"],
            "timebox_s": 600.0,
            "grace_s": 20.0,
            "stop_signal": int(signal.SIGINT),
        }
        (self.segment / "order.json").write_text(json.dumps(body | changes))

    def python(self, body: str, **changes: object) -> None:
        """Order a Python program, by its text."""
        self.order(sys.executable, "-I", "-S", "-u", "-c", textwrap.dedent(body), **changes)

    def start(self) -> subprocess.Popen[bytes]:
        """Start a supervisor that starts the leader. The lock is handed on: nobody else holds it."""
        lock = locks.take(self.run / "run.lock")
        assert lock is not None, "the run is locked"
        try:
            return self._spawn(str(lock), [lock])
        finally:
            os.close(lock)

    def adopt(self) -> subprocess.Popen[bytes]:
        """Start a supervisor that takes the place of a dead one."""
        return self._spawn("-1", [])

    def replace(self, first: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Kill a supervisor, and return another one that has taken its place."""
        first.kill()
        first.wait()
        second = self.adopt()
        wait_until(lambda: self.known()["supervisor"][0] == second.pid)
        return second

    def _spawn(self, lock: str, handed_down: list[int]) -> subprocess.Popen[bytes]:
        command = [*self.within, sys.executable, "-I", "-S", str(PROGRAM), str(self.segment), lock]
        process = subprocess.Popen(
            command,
            pass_fds=handed_down,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | self.for_supervisors,
        )
        self._processes.append(process)
        return process

    def known(self) -> dict[str, Any]:
        """Return `processes.json`, once it exists."""
        path = self.segment / "processes.json"
        wait_until(path.exists)
        return json.loads(path.read_text())

    def leader(self) -> int:
        return int(self.known()["leader"][0])

    def log(self) -> str:
        path = self.segment / "log"
        return path.read_text(errors="surrogateescape") if path.exists() else ""

    def wait_for_log(self, text: str) -> None:
        wait_until(lambda: text in self.log(), saw=self.log)

    def ended(self) -> dict[str, Any]:
        """Return `exit.json`, after every supervisor is gone."""
        for process in self._processes:
            process.wait(timeout=60)
        return json.loads((self.segment / "exit.json").read_text())

    def held(self) -> bool:
        """Return whether anything of the segment lives, as a worker sees it."""
        return locks.held(self.run / "run.lock") or locks.held(self.segment / "log")

    def left(self) -> list[int]:
        return processes_with(self.cookie)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):  # it was the last of its namespace
                os.kill(pid, signal.SIGKILL)


LISTENER = """
    import signal, sys, time
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    print("ready", flush=True)
    while not heard:
        time.sleep(0.01)
    time.sleep(0.3)
    print("heard", len(heard), flush=True)
"""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
