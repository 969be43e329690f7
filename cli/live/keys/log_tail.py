"""Reads the last lines of a run's output and those that follow, through all segments, for a screen."""

import io

from backprop.cli.live.last_text import last_drawn
from backprop.cli.live.log_stream import LogStream, last_lines
from backprop.scheduler.home.layout import Home

FIRST_LINES = 1000


class _Terminal(io.BytesIO):
    """Takes what a terminal would be given: text and colours alone."""

    def isatty(self) -> bool:
        return True


class LogTail:
    """The output of one run. `segment`: its newest one, 0 for a run that has not started."""

    def __init__(self, home: Home, run_id: str, segment: int) -> None:
        self._home, self._run_id, self._segment = home, run_id, segment
        self._out = _Terminal()
        self._stream: LogStream | None = None
        self._rest = ""

    def read(self) -> tuple[list[str], str]:
        """Return the lines that have come since the last time, and the one that has no end yet. Raises OSError."""
        if self._stream is None:
            first, skip = last_lines(self._home, self._run_id, self._segment, FIRST_LINES, alone=False)
            self._stream = LogStream(self._home, self._run_id, first, self._out, raw=False, skip=skip)
        self._stream.pump(None)
        text = self._rest + self._out.getvalue().decode(errors="replace")
        self._out.seek(0)
        self._out.truncate()
        *lines, self._rest = text.split("\n")
        self._rest = self._rest[self._rest.rstrip("\r").rfind("\r") + 1 :]
        return [last_drawn(line) for line in lines], last_drawn(self._rest)

    def close(self) -> None:
        """Let go of the log. Raises OSError."""
        if self._stream is not None:
            self._stream.finish(None)
