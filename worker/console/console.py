"""Prints the worker's lines, fit for tmux and for a log file, and never waits for whoever is to read them.

A terminal may be stopped for an hour (Ctrl-S), a pipe never read. So lines wait for a thread of their own, which writes
them. Where too many wait the next ones are left out, and a line says how many.
"""

import contextlib
import io
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from typing import Final, TextIO

from backprop.scheduler.records import RunRecord
from backprop.worker.console import pane

WAITING: Final = 1000
CLOSE_S: Final = 1.0


class Console:
    """One line per event. Survives the loss of its terminal. `stream`: stdout unless given. `verbose`: prints `debug`
    lines too. `close()` it at the end."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False, verbose: bool = False) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.quiet = quiet
        self.verbose = verbose
        self._waiting: deque[str] = deque()
        self._left_out = 0
        self._writing = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def event(self, what: str, run: RunRecord | None = None, more: str = "") -> None:
        """Print the time, a sign, the run, `what`, and `more`."""
        name, run_id = (_printable(run.name), run.id) if run is not None else ("", "")
        now = time.strftime("%H:%M:%S")
        self._put(pane.line(now, what, name, run_id, _printable(more), self._look()) + "\n")

    def debug(self, what: str, run: RunRecord, more: str) -> None:
        """As `event`, if the console is verbose."""
        if self.verbose:
            self.event(what, run, more)

    def bell(self, text: str) -> None:
        """Ring, and show a desktop notice (OSC 9, which iTerm2, WezTerm, kitty and Windows Terminal show), where there
        is a terminal."""
        if os.environ.get("TERM", "dumb") == "dumb":
            return
        with contextlib.suppress(OSError, ValueError):
            if self.stream.isatty():
                self._put(f"\x1b]9;backprop: {_printable(text)}\a\a")

    def line(self, text: str) -> None:
        """Print one line; what is not printable becomes a question mark."""
        self._put(pane.plain(_printable(text), self._look()) + "\n")

    def complaints(self) -> TextIO:
        """Return a stand-in for stderr. What Python itself says, as warnings and errors in threads, becomes lines."""
        return _Complaints(self)

    def close(self, patience_s: float = CLOSE_S) -> None:
        """Wait up to `patience_s` until everything is written. What is left then is left out."""
        with self._changed:
            if self._thread is not None:
                self._changed.wait_for(self._is_done, patience_s)
            self._closed = True
            self._changed.notify_all()
            finished = self._is_done()
        if self._thread is not None and finished:
            self._thread.join(patience_s)

    def _look(self) -> pane.PaneLook:
        """Return what this stream takes now: a terminal may get another width at any time."""
        signs = (getattr(self.stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
        with contextlib.suppress(OSError, ValueError):
            if self.stream.isatty():
                width = os.get_terminal_size(self.stream.fileno()).columns
                plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
                return pane.PaneLook(width or None, not plain, signs)
        return pane.PaneLook(signs=signs)

    def _put(self, text: str) -> None:
        if self.quiet or self._closed:
            return
        with self._changed:
            if len(self._waiting) >= WAITING:
                self._left_out += 1
            else:
                self._own_up()
                self._waiting.append(text)
            self._changed.notify_all()
        self._have_thread()

    def _own_up(self) -> None:
        """Say at the place of lines that were left out how many they were."""
        if self._left_out:
            lines = "1 line was" if self._left_out == 1 else f"{self._left_out:,} lines were"
            self._waiting.append(f"… {lines} not shown: the terminal took none\n")
            self._left_out = 0

    def _is_done(self) -> bool:
        return not self._waiting and not self._left_out and not self._writing

    def _have_thread(self) -> None:
        """If the thread cannot be started just now, the next line tries again."""
        if self._thread is not None:
            return
        # A daemon: a terminal that takes nothing must not keep a worker from ending.
        thread = threading.Thread(target=self._work, name="console", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        # Signals are for the thread of the ticks. And while SIGTTOU is blocked here, a worker in the background of its
        # terminal is not stopped for a line (`stty tostop`).
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._left_out or self._closed)
                if self._closed:
                    return
                if not self._waiting:
                    self._own_up()
                text = self._waiting.popleft()
                self._writing = True
            # A terminal that is gone takes nothing more, and the worker goes on.
            with contextlib.suppress(OSError, ValueError):
                self._write(text)

    def _write(self, text: str) -> None:
        """Write past the stream's own buffer: whoever flushes that at the end would wait for this thread."""
        handle = self.stream.fileno()
        data = text.encode(getattr(self.stream, "encoding", None) or "utf-8", "replace")
        while data:
            try:
                data = data[os.write(handle, data) :]
            except BlockingIOError:
                # Somebody who shares the terminal has made it so.
                poll = select.poll()
                poll.register(handle, select.POLLOUT)
                poll.poll()


class _Complaints(io.StringIO):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._begun = ""

    def write(self, text: str, /) -> int:
        """Print the lines that this completes."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._console.event("trouble", more=line)
        return len(text)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
