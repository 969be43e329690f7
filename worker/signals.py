"""Records signals and wakes the loop, which acts on them.

Handlers only count: nothing runs between two lines of the loop. A worker that was stopped in the middle of a
transaction would lock everybody out, so Ctrl-Z waits for the end of the tick.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
LEFT_IGNORED: Final = (signal.SIGHUP, signal.SIGTSTP)
"""Ignored from the start, they stay so: under nohup the worker is to stay when its terminal goes."""


class StopSignals:
    """Counts INT and TERM in `asked`, and notes HUP in `hung_up`. TSTP waits for `suspend`. Installed while it is
    entered."""

    def __init__(self) -> None:
        self.asked = 0
        self.hung_up = False
        self._suspend = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "StopSignals":
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in SIGNALS:
            if number in LEFT_IGNORED and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when a signal comes."""
        return self._read

    def drain(self) -> None:
        """Let `fileno` wait for the next signal."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            return

    def suspend(self) -> None:
        """Stop this process if TSTP has asked for that, until somebody continues it. Call outside transactions.

        By the signal itself: where no shell could continue it (its own tmux window, say), the kernel lets it run."""
        if self._suspend:
            self._suspend = False
            before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, before)

    def _record(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.hung_up = True
        elif number == signal.SIGTSTP:
            self._suspend = True
        else:
            self.asked += 1
