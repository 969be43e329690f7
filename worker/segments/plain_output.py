"""Looks at the plain output of one segment: the newest of it each time, so that a flood costs nothing more."""

import re
from typing import Final

from backprop.worker.progress.numbers import MAX_BYTES, PlainNumbers, PlainReader
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments.tail import Tail

BEGINNING: Final = 1024
_LINE_END: Final = re.compile(rb"[\r\n\x08]")


class PlainOutput:
    """Follows a log beside the `Tail` that reads its events. `read_before`: bytes that an earlier worker has read."""

    def __init__(self, tail: Tail, reader: PlainReader, read_before: int = 0) -> None:
        self._tail, self._reader = tail, reader
        self._at = read_before
        self._primed = False

    @property
    def trace(self) -> StepTrace | None:
        """The steps of the counter that is the place in the training; None while there is none."""
        return self._reader.trace

    def look(self, final: bool) -> PlainNumbers:
        """Return what the output says since the last look, of its last `MAX_BYTES`. Call when the tail has read on.

        `final`: nothing will be added to its last line. Raises OSError.
        """
        end, numbers = self._tail.read_to, PlainNumbers()
        if end < self._at:
            self._at = 0  # it was emptied
        elif not self._primed and end:
            self._primed = True
            self._prime(end, numbers)
        begin = max(self._at, end - MAX_BYTES)
        data = self._tail.again(begin, end)
        if begin > self._at:
            data = _after_cut_line(data)
        found, done = self._reader.take(data, final)
        self._at = end - len(data) + done
        numbers.add(found)
        return numbers

    def _prime(self, end: int, numbers: PlainNumbers) -> None:
        """Learn from the beginning of a long log which step is the first, and what the columns of a table are; or from
        what an earlier worker has read, without counting it again."""
        if self._at:
            before = max(self._at - MAX_BYTES, 0)
            data = self._tail.again(before, self._at)
            self._reader.take(_after_cut_line(data) if before else data)
        elif end > BEGINNING:
            found, self._at = self._reader.take(self._tail.again(0, BEGINNING))
            numbers.add(found)


def _after_cut_line(data: bytes) -> bytes:
    end = _LINE_END.search(data)
    return data[end.end() :] if end is not None else b""
