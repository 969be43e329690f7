"""Streams a run's logs as bytes, segment after segment, safe for a terminal."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from backprop.cli.live.folded_events import FoldedEvents
from backprop.cli.live.watch import can_redraw, takes_colours
from backprop.cli.render.terminal_text import Colours, safe
from backprop.scheduler.home.layout import Home
from backprop.worker.maintenance.log_archive import log_of, open_log

CHUNK_BYTES: Final = 1 << 16
LINE_BYTES: Final = 1 << 16
"""A longer line is broken, where lines carry a prefix."""


class Lines:
    """Writes whole lines to `out`, each with a prefix. An unfinished line waits for its end."""

    def __init__(self, out: BinaryIO, prefix: str) -> None:
        self._out = out
        self._prefix = f"{safe(prefix)}: ".encode()
        self._rest = b""

    def isatty(self) -> bool:
        return self._out.isatty()

    def write(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._out.write(b"".join(self._prefix + line + b"\n" for line in lines))

    def flush(self) -> None:
        self._out.flush()

    def end(self) -> None:
        """Write the last line, if it is unfinished."""
        if self._rest:
            self.write(b"\n")
            self._out.flush()


class LogStream:
    """Copies logs to `out` as they grow, from segment `first` on.

    `raw`: copy every byte; otherwise a terminal gets text and colours only. `marks`: print a line before each segment.
    `prefix`: printed before each line, where several runs share `out`. `skip`: bytes of the first segment to leave out.
    `end_of`: returns how a segment ended, and `begin_of` how it began, which a terminal is told too. Our own lines are
    dim there. `fold`: on a terminal that can be drawn on, show events as one line instead of printing them.
    """

    def __init__(
        self,
        home: Home,
        run_id: str,
        first: int,
        out: BinaryIO,
        *,
        raw: bool,
        marks: bool = True,
        prefix: str | None = None,
        skip: int = 0,
        end_of: Callable[[int], str | None] = lambda _number: None,
        begin_of: Callable[[int], str | None] = lambda _number: None,
        fold: bool = False,
    ) -> None:
        self._home, self._run_id = home, run_id
        self._number = first
        self._lines: Lines | FoldedEvents | None = Lines(out, prefix) if prefix is not None else None
        if fold and prefix is None and can_redraw():
            self._lines = FoldedEvents(out, shutil.get_terminal_size().columns)
        self._out = self._lines or out
        self._log: BinaryIO | None = None
        self._filter = None if raw or not out.isatty() else Colours()
        self._marks = marks
        self._skip = skip
        self._end_of = end_of
        self._begin_of = begin_of
        self._dim = self._filter is not None and takes_colours()
        self._last = b"\n"

    def pump(self, newest: int | None) -> None:
        """Copy what is there now. `newest`: the last segment to copy; None for all that have a folder."""
        while True:
            self._copy()
            following = self._number + 1
            if not log_of(self._segment(following)).exists() or (newest is not None and following > newest):
                return
            # The next segment starts only after this one has ended: its log is complete.
            self._copy()
            self._tell_end()
            self._close()
            self._number = following

    def finish(self, newest: int | None) -> None:
        """Copy the rest. `newest`: as for `pump`."""
        self.pump(newest)
        if self._filter is not None:
            self._out.write(self._filter.close())
            self._tell_end()
            self._out.flush()
        self._close()
        if self._lines is not None:
            self._lines.end()

    def _copy(self) -> None:
        if self._log is None:
            try:
                self._log = open_log(self._segment(self._number))
            except OSError:
                return
            self._log.seek(self._skip)
            self._skip = 0
            if self._marks:
                begin = self._begin_of(self._number) if self._filter is not None else None
                self._say(f"segment {self._number}{f', {begin}' if begin else ''}")
        while chunk := self._log.read(CHUNK_BYTES):
            self._out.write(chunk if self._filter is None else self._filter.feed(chunk))
            self._last = chunk[-1:]
        self._out.flush()

    def _tell_end(self) -> None:
        """Say on a terminal how the segment ended: what it printed when it was asked to stop looks like a crash."""
        if self._filter is not None and self._log is not None and (end := self._end_of(self._number)):
            self._say(f"segment {self._number} ended: {end}")

    def _say(self, words: str) -> None:
        """Print a line of ours."""
        line = f"==> {safe(words)} <=="
        begin = "\n" if self._filter is not None and self._last != b"\n" else ""
        self._out.write(
            f"{begin}\x1b[0;2m{line}\x1b[0m\n".encode() if self._dim else f"{begin}{line}\n".encode()
        )
        self._last = b"\n"

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _segment(self, number: int) -> Path:
        return self._home.segment_folder(self._run_id, number)


def last_lines(home: Home, run_id: str, newest: int, lines: int, *, alone: bool) -> tuple[int, int]:
    """Return where the last lines of a run's output begin: the segment, and bytes of its log to skip. `newest`: the
    segment to begin looking in. `alone`: look into no other; else those before it follow as far as needed."""
    left = lines
    for number in range(newest, 0, -1):
        try:
            with open_log(home.segment_folder(run_id, number)) as log:
                found, skip = _back(log, left)
        except OSError:
            continue
        left -= found
        if left <= 0 or number == 1 or alone:
            return number, skip
    return 1, 0


def _back(log: BinaryIO, lines: int) -> tuple[int, int]:
    """Return how many of the last `lines` lines a log has, and where the first of them begins."""
    end = log.seek(0, 2) if log.seekable() and not isinstance(log, gzip.GzipFile) else None
    if end is None:
        text = log.read()
        rows = text.splitlines(keepends=True)[-lines:]
        return len(rows), len(text) - sum(map(len, rows))
    at, seen = end, 0
    # The line break at the very end closes the last line and begins none.
    while at > 0:
        size = min(CHUNK_BYTES, at)
        log.seek(at - size)
        chunk = log.read(size)
        stop = size - 1 if at == end and chunk.endswith(b"\n") else size
        while (stop := chunk.rfind(b"\n", 0, stop)) >= 0:
            seen += 1
            if seen == lines:
                return lines, at - size + stop + 1
        at -= size
    return seen + (1 if end else 0), 0
