"""Carries out the worker's order to suspend a segment: freezes it at a moment at which that harms nobody.

    suspend.json  read     the worker's order, with a number: suspend the segment, or let it go on
    pause.json    written  the answer, see `pauses`: the number of the order that is carried out, or refused and why

A frozen process keeps its file locks, and what it was writing stays half-written. So the tree is frozen first, which
nothing can slip past, and looked at then: where it holds a lock, or has just begun a file, it goes on for a moment and
is tried again. After half a minute the order is refused. A signal to this program means "look at the order", never
"suspend". Standard library only, imports nothing of Backprop.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

import failpoint
import files
import process_tree
from pauses import Pauses

NAME = "suspend.json"
FORMAT = 1
"""Of the orders that this program understands, as `processes.json` says."""
SUSPENDED = "suspended"
TRY_EVERY_S = 0.1
PATIENCE_S = 30.0
SAVE_BYTES = 1024 * 1024
"""A file that grows by so much between two tries is being saved; a log of the script's own is not."""
SPARED, USUAL = 0, 300
"""How soon the kernel, short of memory, ends a process: what waits in RAM is the only copy of its work."""

Sizes = dict[tuple[int, int], int]
"""Of the regular files that are open for writing, by device and inode."""


class Suspension:
    """What is ordered of one segment. `due_s`: when to try next, on CLOCK_MONOTONIC; None where nothing is to do."""

    def __init__(self, folder: Path, pauses: Pauses, find: process_tree.Finder) -> None:
        self._folder = folder
        self._pauses = pauses
        self._find = find
        self._ordered: int | None = None
        self._until_s = 0.0
        self._sizes: Sizes | None = None
        self.due_s: float | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether the last order that was read is to suspend the segment."""
        return self._ordered is not None

    def look(self) -> None:
        """Read the order anew. One that cannot be read now changes nothing."""
        order = files.glance(self._folder / NAME)
        if order is None or order.get("format") != FORMAT:
            return
        number = order.get("number") if order.get("wanted") == SUSPENDED else None
        number = number if isinstance(number, int) else None
        if number == self._ordered and number is not None:
            if self._pauses.suspended == number:
                process_tree.freeze(self._find)  # somebody outside may have let it go on
            return
        self._ordered, self._sizes, self.due_s = number, None, None
        if number is not None and number not in (self._pauses.suspended, self._pauses.refused):
            self.due_s = time.monotonic()
            self._until_s = self.due_s + PATIENCE_S

    def step(self) -> None:
        """Try to carry the order out, where that is due."""
        now_s = time.monotonic()
        if self._ordered is None or self.due_s is None or now_s < self.due_s:
            return
        self.due_s = now_s + TRY_EVERY_S
        if self._sizes is None:
            self._sizes = self._open_files()
            return
        failpoint.at("suspending")
        was_paused = self._pauses.since_s is not None
        self._pauses.begin()
        why = self._why_not(self._sizes)
        if why is None:
            failpoint.at("frozen")
            self._score(SPARED)
            self._pauses.confirm(self._ordered)
            self.due_s = None
            failpoint.at("suspended")
            return
        self._sizes = self._open_files()
        if was_paused or now_s >= self._until_s:
            self._pauses.refuse(self._ordered, why)
            self.due_s = None
        if not was_paused:
            self._pauses.end()

    def release(self) -> None:
        """Make ready for what follows a suspension."""
        self._score(USUAL)

    def _why_not(self, before: Sizes) -> str | None:
        pids = {process.pid for process in self._find()}
        if holds_lock(pids):
            return "it holds a lock on a file"
        for key, size in self._open_files().items():
            if key not in before or size - before[key] >= SAVE_BYTES:
                return "it is writing a file"
        return None

    def _open_files(self) -> Sizes:
        """Return the files that the segment has open for writing, but for its log and our own."""
        found: Sizes = {}
        for process in self._find():
            for path in _entries(process.pid):
                with contextlib.suppress(OSError):
                    info = path.stat()
                    if stat.S_ISREG(info.st_mode) and path.lstat().st_mode & stat.S_IWUSR:
                        found[info.st_dev, info.st_ino] = info.st_size
        for name in ("log", "events.jsonl", "run.lock"):
            with contextlib.suppress(OSError):
                info = (self._folder / name).stat()
                found.pop((info.st_dev, info.st_ino), None)
        return found

    def _score(self, value: int) -> None:
        for process in self._find():
            with contextlib.suppress(OSError):
                (process_tree.PROC / str(process.pid) / "oom_score_adj").write_text(str(value))


def holds_lock(pids: Iterable[int]) -> bool:
    """Return whether one of these processes holds a lock on a file. One that waits for a lock does not."""
    wanted = {str(pid) for pid in pids}
    try:
        lines = (process_tree.PROC / "locks").read_text().splitlines()
    except OSError:
        return False
    fields = (line.split() for line in lines)
    return any(len(each) > 4 and each[1] != "->" and each[4] in wanted for each in fields)


def _entries(pid: int) -> list[Path]:
    folder = process_tree.PROC / str(pid) / "fd"
    try:
        return [folder / name for name in os.listdir(folder)]  # noqa: PTH208
    except OSError:
        return []
