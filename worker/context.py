"""What the parts of a worker share: the home, the database, the place, the clock, and a voice."""

import contextlib
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from backprop.scheduler.config.settings import Settings
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.executor.base import Place


class Clock:
    """Time from outside: wall for what is stored, monotonic for durations. Seconds."""

    def wall_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()


@dataclass
class Talk:
    """One calm line an event, fit for tmux and for a log file. Survives the loss of its terminal."""

    stream: TextIO = field(default_factory=lambda: sys.stdout)
    quiet: bool = False
    verbose: bool = False

    def say(self, what: str, run: RunRecord | None = None, more: str = "") -> None:
        """`what` in a fixed column, then the run, then more."""
        who = f"{run.name} ({run.id})  " if run is not None else ""
        self.line(f"{time.strftime('%H:%M:%S')}  {what:<10}  {who}{more}".rstrip())

    def detail(self, what: str, run: RunRecord, more: str) -> None:
        """As `say`, for whoever asked for more."""
        if self.verbose:
            self.say(what, run, more)

    def ring(self, text: str) -> None:
        """A bell, and a notice of the desktop's (OSC 9, which iTerm2, WezTerm, kitty and Windows Terminal show), where
        there is a terminal."""
        if self.quiet or os.environ.get("TERM", "dumb") == "dumb":
            return
        safe = "".join(char if char.isprintable() else "?" for char in text)
        with contextlib.suppress(OSError, ValueError):
            if self.stream.isatty():
                self.stream.write(f"\x1b]9;backprop: {safe}\a\a")
                self.stream.flush()

    def line(self, text: str) -> None:
        if self.quiet:
            return
        safe = "".join(char if char.isprintable() else "?" for char in text)
        with contextlib.suppress(OSError, ValueError):
            print(safe, file=self.stream, flush=True)


@dataclass
class Context:
    """`only`: the ids this worker may touch; None for every run. `settings`: the worker's own limits."""

    home: Home
    database: Database
    place: Place
    worker: str
    settings: Settings
    clock: Clock
    talk: Talk
    only: frozenset[str] | None = None

    def mine(self, run: RunRecord) -> bool:
        return self.only is None or run.id in self.only
