"""Keeps the machine awake while runs are live, by a lock of systemd's logind.

`systemd-inhibit` takes the lock and holds it for as long as its command runs: a `cat` that reads a pipe of the worker.
The pipe closes with the worker, however the worker ends, and the lock with the pipe. Over SSH logind grants a lock
against idleness only, so that is asked for second.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backprop.worker.clock import Clock

WANTED: Final = (("sleep:idle", "held"), ("idle", "held against idleness alone"))
"""What is asked of logind, the best first, and how that is said."""
LINGER_S: Final = 30.0
"""How long the lock outlives the last run, so that a queue of short runs takes it once."""
RETRY_S: Final = 300.0
RELEASE_PATIENCE_S: Final = 1.0
POWER_STATES: Final = Path("/sys/power/state")


class SleepInhibitor:
    """Holds the lock while it is wanted. `say`: told once why there is none, on a machine that can sleep."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._choice = 0
        self._wanted_s = 0.0
        self._retry_s = 0.0
        self._told = False

    def keep(self, live: bool) -> None:
        """Take or release the lock, and look whether it is still held. Call once per tick; never waits."""
        now_s = self._clock.monotonic_s()
        if live:
            self._wanted_s = now_s + LINGER_S
        self._leaving = [process for process in self._leaving if process.poll() is None]
        if self._process is not None and now_s > self._wanted_s:
            self._drop(self._process)
        elif self._process is not None:
            self._look(self._process, now_s)
        elif live and now_s >= self._retry_s:
            self._ask(now_s)

    def release(self) -> None:
        """Let the machine sleep again: once this returns it may. Waits a second at most."""
        if self._process is not None:
            self._drop(self._process)
        for process in self._leaving:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(RELEASE_PATIENCE_S)

    def _ask(self, now_s: float) -> None:
        program = shutil.which("systemd-inhibit")
        if program is None:
            self._give_up(now_s, "systemd-inhibit is not installed")
            return
        try:
            # In a session of its own: Ctrl-C is not for it. In no folder of the user's: it would keep that mounted.
            self._process = subprocess.Popen(
                inhibiting(program, WANTED[self._choice][0]),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            self._give_up(now_s, f"systemd-inhibit cannot be started: {error.strerror}")
            return
        assert self._process.stderr
        os.set_blocking(self._process.stderr.fileno(), False)

    def _look(self, process: "subprocess.Popen[bytes]", now_s: float) -> None:
        """See whether the lock went with its process, or never came."""
        if process.poll() is None:
            return
        assert process.stderr
        words = (process.stderr.read() or b"").decode(errors="replace").split("\n")
        self._drop(process)
        if self._choice + 1 < len(WANTED):
            self._choice += 1
            self._ask(now_s)
        else:
            self._give_up(now_s, next((line for line in words if line.strip()), "systemd-inhibit ended"))

    def _give_up(self, now_s: float, why: str) -> None:
        self._choice, self._retry_s = 0, now_s + RETRY_S
        if not self._told and can_sleep():
            self._told = True
            self._say(f"this machine may go to sleep during runs: {why}")

    def _drop(self, process: "subprocess.Popen[bytes]") -> None:
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(OSError):
            process.terminate()
        self._leaving.append(process)
        self._process = None


def inhibiting(program: str, what: str) -> list[str]:
    """Return the command that holds a lock on `what` for as long as its standard input stays open."""
    return [
        program,
        f"--what={what}",
        "--who=Backprop",
        "--why=training runs are live",
        "--mode=block",
        "cat",
    ]


def grants(what: str) -> bool:
    """Ask for a lock and give it back at once; waits 3 s at most. For the doctor."""
    program = shutil.which("systemd-inhibit")
    if program is None:
        return False
    try:
        asked = subprocess.run(
            inhibiting(program, what), stdin=subprocess.DEVNULL, capture_output=True, timeout=3
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def can_sleep(states: Path = POWER_STATES) -> bool:
    """Return whether the kernel offers any way to sleep; a container or a server may offer none."""
    try:
        return bool(states.read_text().split())
    except OSError:
        return False
