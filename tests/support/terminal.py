"""Runs one command in a terminal of a given width, and shows what a person would see."""

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import time

from tests.support.harness import COMMAND, Bench

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs `backprop words` on a new pseudo-terminal, as its controlling one."""

    def __init__(self, bench: Bench, columns: int, *words: str, env: dict[str, str] | None = None) -> None:
        self._main, side = os.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environment = bench.environment | {"TERM": "xterm-256color"} | (env or {})
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            if env is None or name not in env:
                environment.pop(name, None)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", str(COMMAND), *words],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment,
            cwd=bench.project,
        )
        os.close(side)
        self._seen = b""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._main)

    def press(self, text: str) -> None:
        """Type: the terminal makes signals of ^C as it does for a person."""
        os.write(self._main, text.encode())

    def read_until(self, text: str, timeout_s: float = 30.0) -> str:
        """Read on until `text` has been shown. Return everything that has been."""
        os.set_blocking(self._main, False)
        end = time.monotonic() + timeout_s
        while text.encode() not in self._seen:
            assert time.monotonic() < end, f"not shown: {text!r}; saw: {self.shown()}"
            with contextlib.suppress(OSError):
                self._seen += os.read(self._main, 65536)
            time.sleep(0.02)
        return self.shown()

    def read_all(self, raw: bool = False, timeout_s: float = 60.0) -> str:
        """Read to the end of the command. Return what was shown, without escape sequences unless `raw`."""
        os.set_blocking(self._main, False)
        end = time.monotonic() + timeout_s
        while True:
            assert time.monotonic() < end, f"still running; saw: {self.shown()}"
            ended = self.process.poll() is not None
            try:
                piece = os.read(self._main, 65536)
            except BlockingIOError:
                piece = b""
            except OSError:  # EIO: nobody has the other side open any more
                break
            self._seen += piece
            if ended and not piece:
                break
            time.sleep(0.01)
        self.process.wait(timeout=30)
        return self.shown(raw)

    def shown(self, raw: bool = False) -> str:
        text = self._seen.decode(errors="replace").replace("\r\n", "\n")
        return text if raw else ESCAPES.sub("", text)
