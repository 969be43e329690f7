"""Records stop signals and wakes the loop, which acts on them.

Handlers only count: nothing runs between two lines of the loop.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Counts INT and TERM in `asked`, and notes HUP in `hung_up`. Installed while it is entered."""

    def __init__(self) -> None:
        self.asked = 0
        self.hung_up = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "StopSignals":
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: the worker is to stay when its terminal goes
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

    def _record(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.hung_up = True
        else:
            self.asked += 1
