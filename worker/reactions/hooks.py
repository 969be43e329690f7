"""Runs the user's own commands when something has ended. They run beside the worker: no hook holds it up.

A hook is a line for `sh -c` in the user's own configuration. It gets what happened as JSON on stdin and in its
environment, has a minute, and its output goes to `hooks.log` in the home. Each is started once, after the end it
reports is in the database; a worker that dies in between leaves it out.
"""

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from backprop.worker.context import Context

LIMIT_S: Final = 60.0
AT_ONCE: Final = 4
WAITING_LIMIT: Final = 1000
LOG_LIMIT_BYTES: Final = 4 * 1024 * 1024
CLOSE_S: Final = 10.0


class Hooks:
    """The hooks of one worker: at most four at once, the others take turns."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._commands = context.settings.hooks
        self._waiting: deque[tuple[str, str, dict[str, object]]] = deque()
        self._left_out = 0
        self._running: list[tuple[subprocess.Popen[bytes], float, str]] = []
        self._killed: list[subprocess.Popen[bytes]] = []

    def fire(self, event: str, details: Mapping[str, object]) -> None:
        """Have the hook of `event` run, if there is one. `details`: what JSON can hold."""
        command = self._commands.get(event)
        if command is not None:
            if len(self._waiting) >= WAITING_LIMIT:
                self._waiting.popleft()
                self._left_out += 1
            self._waiting.append((event, command, {"event": event, **details}))
            self.pump()

    def pump(self) -> None:
        """Collect hooks that have ended, end those over their time, start those that wait. Call once per tick."""
        now_s = self._context.clock.monotonic_s()
        still: list[tuple[subprocess.Popen[bytes], float, str]] = []
        for process, until_s, event in self._running:
            if process.poll() is None and now_s < until_s:
                still.append((process, until_s, event))
                continue
            if process.returncode is None:
                self._kill(process)
                self._context.console.event(
                    "hook", more=f"{event}: killed after {LIMIT_S:g} s, its time limit"
                )
            elif process.returncode:
                self._context.console.event(
                    "hook", more=f"{event}: exited {process.returncode}, see {self._log()}"
                )
        self._running = still
        self._killed = [process for process in self._killed if process.poll() is None]
        while self._waiting and len(self._running) < AT_ONCE:
            self._start(*self._waiting.popleft(), now_s + LIMIT_S)
        if self._left_out and len(self._waiting) < WAITING_LIMIT:
            more = f"the oldest {self._left_out} left out: more than {WAITING_LIMIT:,} were waiting"
            self._context.console.event("hook", more=more)
            self._left_out = 0

    def close(self) -> None:
        """Give those under way a short time, then kill them: no hook outlives its worker."""
        end_s = time.monotonic() + CLOSE_S
        while (self._running or self._waiting) and time.monotonic() < end_s:
            self.pump()
            time.sleep(0.02)
        for process, _, event in self._running:
            self._kill(process)
            self._context.console.event("hook", more=f"{event}: killed, the worker ends")
        self._running.clear()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a hook with all it started: it leads a process group of its own, and is not collected yet, so the pid is
        still its own. Not waited for: one that hangs on a share dies when that answers."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self._killed.append(process)

    def _start(self, event: str, command: str, details: dict[str, object], until_s: float) -> None:
        try:
            with tempfile.TemporaryFile() as stdin, self._opened() as log:
                stdin.write(json.dumps(details).encode() + b"\n")
                stdin.seek(0)
                process = subprocess.Popen(
                    ["/bin/sh", "-c", command],
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    cwd=self._context.home.root,
                    env=os.environ | _environment(details),
                    start_new_session=True,
                )
        except OSError as error:
            self._context.console.event("hook", more=f"{event}: could not be started: {error}")
            return
        self._running.append((process, until_s, event))

    def _opened(self) -> BinaryIO:
        """Open the log for appending, closed to others whatever the umask. Raises OSError, for a FIFO or device too."""
        path = self._log()
        # Without waiting for the reader of a FIFO.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "not a regular file; remove it", str(path))
        return os.fdopen(handle, "ab")

    def _log(self) -> Path:
        """Where hooks write. A new file is begun when it has grown large."""
        path = self._context.home.root / "hooks.log"
        with contextlib.suppress(OSError):
            if path.stat().st_size > LOG_LIMIT_BYTES:
                path.replace(path.with_name("hooks.log.1"))
        return path


def _environment(details: Mapping[str, object]) -> dict[str, str]:
    """`BACKPROP_HOOK_EVENT`, `BACKPROP_HOOK_GROUP`, and each plain value of the run as `BACKPROP_HOOK_RUN_…`."""
    run = details.get("run")
    values: dict[str, object] = {"EVENT": details["event"], "GROUP": details.get("group")}
    if isinstance(run, Mapping):
        values |= {f"RUN_{str(name).upper()}": value for name, value in run.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return {
        f"BACKPROP_HOOK_{name}": str(value).replace("\0", "")
        for name, value in values.items()
        if isinstance(value, str | int | float)
    }
