"""Reads the lines of a growing file, a run's log or its events file, in bounded memory.

`offset` is all there is to remember between processes: the byte after the last complete line returned. Reading again
from it gives exactly the lines that came after, so events are applied once.

What a user may do to the file meanwhile:
- delete, rename or replace it: the writer's descriptor still leads to the old file, and so does the reader's, which
  stays open. The file that has the name now was not written by the run.
- truncate it (`: > log`, copytruncate, the script opening its events file again): reading starts again at 0.
  If old lines were left, they come twice: a checkpoint is validated by file and time anyway and progress is
  overwritten by the next line, whereas skipping could lose a checkpoint that is announced once. A file truncated
  and grown past `offset` between two reads looks untouched; its first line then arrives cut.
"""

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from backprop.worker.segments import events
from backprop.worker.segments.events import MAX_LINE

CHUNK_BYTES = 64 * 1024
MAX_READ_BYTES = 1024 * 1024
LAST_BYTES = 64 * 1024

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)  # no file, a link, a socket
NO_LOG = (*_NOTHING_THERE, errno.EACCES, errno.EPERM)
"""Errors after which a log has nothing to tell of its end. Any other one may pass."""
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
# `prefix` is what torchrun ("[rank0]: ") or an exception group ("  | ") puts before each line of a traceback.
_TRACEBACK = re.compile(r"(?P<prefix>.*?)(?:Exception Group )?Traceback \(most recent call last\):\s*$")
# What the launcher of several ranks raises because one of them failed: the rank's own error says more.
_LAUNCHER_ERROR = "ChildFailedError"


class Tail:
    """Follows one file. Not thread-safe. Holds one descriptor once the file exists; `close()` it.

    `at_end`: the last `read` met the end of the file, so there was nothing more at that moment.
    """

    def __init__(self, path: Path, offset: int = 0, wanted: Callable[[bytes], bool] = lambda _: True) -> None:
        """`wanted`: told a block of whole lines, returns whether any may matter; where none does, they are passed over
        all at once. Single lines may be returned in any case."""
        self.path = path
        self._wanted = wanted
        self.offset = offset
        self.at_end = False
        self._fd = -1
        self._at = offset
        self._partial = bytearray()
        self._skipping = False

    def __enter__(self) -> "Tail":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Safe to call twice. A later `read` opens the path again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, max_bytes: int = MAX_READ_BYTES) -> list[bytes]:
        """Return the next complete lines, without their newlines, from at most `max_bytes` of the file.

        Empty while the file does not exist or is not a regular file, and also inside a line of over
        `max_bytes`: `at_end` tells these apart. Raises OSError if the file exists but cannot be read.
        """
        self.at_end = False
        if not self._ready():
            self.at_end = True
            return []
        lines: list[bytes] = []
        left = max_bytes
        while left > 0:
            chunk = os.pread(self._fd, min(CHUNK_BYTES, left), self._at)
            if not chunk:
                self.at_end = True
                break
            left -= len(chunk)
            self._take(chunk, lines)
        return lines

    def unread_bytes(self) -> int:
        """Return how much of the file has not been read; 0 while there is none. Raises OSError as `read`."""
        return max(os.fstat(self._fd).st_size - self._at, 0) if self._ready() else 0

    @property
    def read_to(self) -> int:
        """How far the file has been read, with what is of no complete line yet."""
        return self._at

    def again(self, begin: int, end: int) -> bytes:
        """Return bytes that were read before. Raises OSError as `read`."""
        return os.pread(self._fd, end - begin, begin) if self._fd >= 0 and end > begin else b""

    def rest(self) -> bytes:
        """Return the text after the last newline, as a line; empty if there is none, or over 64 KiB.

        Call only when nothing can write any more and `at_end` is set: a script killed between its text and its
        newline leaves such a line, and it may announce a checkpoint.
        """
        last = bytes(self._partial)
        self._restart(self._at)
        return last

    def replaced(self) -> bool:
        """Return whether the path no longer leads to the file being followed. False while nothing is followed yet."""
        if self._fd < 0:
            return False
        try:
            return not os.path.samestat(self.path.lstat(), os.fstat(self._fd))
        except FileNotFoundError:
            return True

    def written_s(self) -> float | None:
        """Return when the file was last written to, Unix seconds; None while nothing is followed."""
        return os.fstat(self._fd).st_mtime if self._fd >= 0 else None

    def _ready(self) -> bool:
        if self._fd < 0:
            try:
                fd = os.open(self.path, _OPEN)
            except OSError as error:
                if error.errno in _NOTHING_THERE:
                    return False
                raise  # for example out of descriptors: "no lines" would be believed, and a checkpoint lost
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                return False
            self._fd = fd
        if os.fstat(self._fd).st_size < self._at:
            self._restart(0)
        return True

    def _restart(self, at: int) -> None:
        self.offset = self._at = at
        self._partial.clear()
        self._skipping = False

    def _take(self, chunk: bytes, lines: list[bytes]) -> None:
        """Cut a chunk into lines; what is left waits in `_partial`, or is forgotten once over the limit."""
        start = chunk.find(b"\n") + 1
        if start:
            self._line(chunk[: start - 1], start, lines)
            last = chunk.rfind(b"\n") + 1
            if last > start and not self._wanted(chunk[start:last]):
                start = last
                self.offset = self._at + start
        while (end := chunk.find(b"\n", start)) >= 0:
            self._line(chunk[start:end], end + 1, lines)
            start = end + 1
        self._keep(chunk[start:])
        self._at += len(chunk)

    def _line(self, piece: bytes, end: int, lines: list[bytes]) -> None:
        """Complete a line by its last piece. `end`: where the next line begins, in the chunk."""
        self._keep(piece)
        if not self._skipping:
            lines.append(bytes(self._partial))
        self._partial.clear()
        self._skipping = False
        self.offset = self._at + end

    def _keep(self, piece: bytes) -> None:
        if self._skipping or len(self._partial) + len(piece) > MAX_LINE:
            self._skipping = True
            self._partial.clear()
        else:
            self._partial += piece


def failure_line(path: Path) -> str | None:
    """Return what went wrong, in the script's words: the exception of the last Python traceback, else the last line
    that is not an event. None when the log has neither, or may not be read. Raises OSError when it cannot be read now.

    "Last" is right for chained exceptions ("During handling of the above exception..."): Python prints the
    one that ended the program last. A carriage return ends a line: the last state of a progress bar is what a person
    would have seen. Undecodable bytes are replaced; control characters stay, for the output boundary to deal with.
    """
    lines = _last_lines(path)
    ordinary = (line for line in reversed(lines) if events.parse(line.encode()) is None)
    fallback: str | None = next(ordinary, "").strip() or None
    for at in range(len(lines) - 1, -1, -1):
        header = _TRACEBACK.fullmatch(lines[at])
        error = _exception_after(lines[at + 1 :], header["prefix"].replace("+", "|")) if header else None
        if error and _LAUNCHER_ERROR not in error.partition(":")[0]:
            return error
        fallback = error or fallback
    return fallback


def _exception_after(lines: list[str], prefix: str) -> str | None:
    """The first line after a traceback's header that is neither indented nor of another rank."""
    for line in lines:
        text = line.removeprefix(prefix)
        same_rank = line.startswith(prefix)
        if same_rank and text[:1].strip() and not text.startswith(("+-", "| ")):
            return text.strip()
    return None


def _last_lines(path: Path) -> list[str]:
    """The lines that are not blank in the last 64 KiB; none if the file is missing or not a regular file."""
    try:
        fd = os.open(path, _OPEN)
    except OSError as error:
        if error.errno in NO_LOG:
            return []
        raise
    try:
        info = os.fstat(fd)
        start = max(0, info.st_size - LAST_BYTES)
        data = os.pread(fd, LAST_BYTES, start) if stat.S_ISREG(info.st_mode) else b""
    finally:
        os.close(fd)
    lines = [line for line in re.split(r"[\r\n]+", data.decode(errors="replace")) if line.strip()]
    # The first line was probably cut; it is worth showing only when it is all there is.
    return lines[1:] if start and len(lines) > 1 else lines
