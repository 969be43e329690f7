"""A run's logs as one stream of bytes, segment after segment, safe for a terminal."""

import os
from pathlib import Path
from typing import BinaryIO, Final

from backprop.cli.safe import Colours
from backprop.scheduler.home import Home

CHUNK_BYTES: Final = 1 << 16


class LogStream:
    """Copies logs to `out` as they grow, from segment `first` on. `raw`: every byte passes; otherwise a terminal
    gets text and colours only. `marks`: a line before each segment."""

    def __init__(
        self, home: Home, run_id: str, first: int, out: BinaryIO, *, raw: bool, marks: bool = True
    ) -> None:
        self._home, self._run_id = home, run_id
        self._number = first
        self._out = out
        self._handle: int | None = None
        self._offset = 0
        self._filter = None if raw or not out.isatty() else Colours()
        self._marks = marks

    def pump(self, newest: int | None) -> None:
        """Copy what is there. `newest`: the segment that is live; None to find out from the folders."""
        while True:
            self._copy()
            following = self._number + 1
            if not self._log(following).exists() or (newest is not None and following > newest):
                return
            # The next one began only after this one had ended: nothing more can come.
            self._copy()
            self._close()
            self._number, self._offset = following, 0

    def finish(self, newest: int | None) -> None:
        """Copy the rest."""
        self.pump(newest)
        self._close()
        if self._filter is not None:
            self._out.write(self._filter.close())
            self._out.flush()

    def _copy(self) -> None:
        if self._handle is None:
            try:
                self._handle = os.open(self._log(self._number), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                return
            if self._marks:
                self._out.write(f"==> segment {self._number} <==\n".encode())
        while chunk := os.pread(self._handle, CHUNK_BYTES, self._offset):
            self._offset += len(chunk)
            self._out.write(chunk if self._filter is None else self._filter.feed(chunk))
        self._out.flush()

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _log(self, number: int) -> Path:
        return self._home.segment_folder(self._run_id, number) / "log"
