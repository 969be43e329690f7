"""Prints the worker's lines, fit for tmux and for a log file."""

import contextlib
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from backprop.scheduler.records import RunRecord


@dataclass
class Console:
    """One line per event. Survives the loss of its terminal. `verbose`: prints `debug` lines too."""

    stream: TextIO = field(default_factory=lambda: sys.stdout)
    quiet: bool = False
    verbose: bool = False

    def event(self, what: str, run: RunRecord | None = None, more: str = "") -> None:
        """Print the time, `what` in a fixed column, the run, and `more`."""
        who = f"{run.name} ({run.id})  " if run is not None else ""
        self.line(f"{time.strftime('%H:%M:%S')}  {what:<10}  {who}{more}".rstrip())

    def debug(self, what: str, run: RunRecord, more: str) -> None:
        """As `event`, if the console is verbose."""
        if self.verbose:
            self.event(what, run, more)

    def bell(self, text: str) -> None:
        """Ring, and show a desktop notice (OSC 9, which iTerm2, WezTerm, kitty and Windows Terminal show), where there
        is a terminal."""
        if self.quiet or os.environ.get("TERM", "dumb") == "dumb":
            return
        safe = "".join(char if char.isprintable() else "?" for char in text)
        with contextlib.suppress(OSError, ValueError):
            if self.stream.isatty():
                self.stream.write(f"\x1b]9;backprop: {safe}\a\a")
                self.stream.flush()

    def line(self, text: str) -> None:
        """Print one line; what is not printable becomes a question mark."""
        if self.quiet:
            return
        safe = "".join(char if char.isprintable() else "?" for char in text)
        with contextlib.suppress(OSError, ValueError):
            print(safe, file=self.stream, flush=True)
