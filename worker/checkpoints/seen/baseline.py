"""Tells what a segment has written from what lay there before it, whatever the wall clock did meanwhile.

As a segment begins, what lies where it may save is noted in its folder. Content that lay there is old, under whatever
name it is found; what has appeared or changed in those folders since is new. Only where nothing was noted does a file's
time decide: for a segment of an older program, and far down in large trees.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePath
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import NOT_THERE
from backprop.worker.checkpoints.formats import files_in
from backprop.worker.checkpoints.roots import is_inside
from backprop.worker.checkpoints.seen.looks_like import is_left_out
from backprop.worker.executor.segment_files import BeforeFile, earliest_start_s, read_before

CLOCK_GRAIN_S: Final = 2.0
"""File systems stamp from a coarse clock that lags by up to a tick; FAT and some network mounts keep 2 s."""
KEPT_TIME_S: Final = 60.0
"""A file that was last changed so long after the time it bears is a copy that keeps its original's time."""
MAX_DEPTH: Final = 3
MAX_FOLDERS: Final = 200
MAX_ENTRIES: Final = 5000
WITHIN_S: Final = 0.3


class Beginning(msgspec.Struct, frozen=True, dict=True):
    """The beginning of a segment. `at_s`: on the earliest wall clock known, Unix seconds. `before`: what lay where it
    may save; None where that was not noted."""

    at_s: float
    before: BeforeFile | None = None

    def is_old(self, path: str, info: os.stat_result, announced: bool = False) -> bool:
        """Return whether a file's content was there before. `info`: of the file that `path` leads to. `announced`: the
        segment says that it has just saved it."""
        if (info.st_size, info.st_mtime_ns) in self._contents:
            return True
        # Where the clock was set back, nothing saved now can be newer than now.
        if info.st_mtime >= min(self.at_s, time.time()) - CLOCK_GRAIN_S:
            return False
        keeps_time = not announced and abs(info.st_ctime - info.st_mtime) > KEPT_TIME_S
        return keeps_time or stat.S_ISDIR(info.st_mode) or not self._saw(path)

    def is_all_old(self, path: str, announced: bool = False) -> bool:
        """Return the same of a checkpoint, a file or a folder. Raises OSError."""
        if not os.path.isdir(path):  # noqa: PTH112
            return self.is_old(path, os.stat(path), announced)  # noqa: PTH116
        return all(self.is_old(each.path, each.stat(), announced) for each in files_in(path))

    def may_have_lain_there(self, path: str) -> bool:
        """Return False only for a file or folder whose name is known to be new."""
        below = PurePath(_text(os.path.realpath(path)))
        for name, folder in zip(below.parts[:0:-1], below.parents, strict=False):
            if str(folder) in self._folders:
                return name in self._folders[str(folder)]
        return True

    @cached_property
    def _contents(self) -> frozenset[tuple[int, int]]:
        return frozenset(self.before.contents) if self.before is not None else frozenset()

    @cached_property
    def _folders(self) -> dict[str, frozenset[str]]:
        folders = self.before.folders if self.before is not None else {}
        return {folder: frozenset(names) for folder, names in folders.items()}

    def _saw(self, path: str) -> bool:
        """Return whether it would be known if this file had been there."""
        if not self._folders:
            return False
        own, name = os.path.split(_text(os.path.realpath(path)))
        folder = own
        while folder not in self._folders:
            if folder == "/":
                return False
            folder, name = os.path.split(folder)
        return folder == own or name not in self._folders[folder]


def beginning_of(folder: Path, started_s: float) -> Beginning:
    """Return how the segment in `folder` began. `started_s`: as it was recorded, Unix seconds."""
    try:
        before = read_before(folder)
    except OSError:
        before = None
    return Beginning(earliest_start_s(folder, started_s), before)


def note(roots: Iterable[str], avoid: Path) -> BeforeFile:
    """Return what lies in `roots` and below them, the nearest first, for as far as a start may take. Follows a link of
    a file, and none of a folder. `avoid`: a folder that is never opened. Raises nothing."""
    waiting = deque((os.path.realpath(root), 0) for root in roots)
    folders: dict[str, tuple[str, ...]] = {}
    contents: list[tuple[int, int]] = []
    left, end_s = MAX_ENTRIES, time.monotonic() + WITHIN_S
    while waiting and len(folders) < MAX_FOLDERS and time.monotonic() < end_s:
        folder, depth = waiting.popleft()
        if _text(folder) in folders or is_inside(Path(folder), avoid):
            continue
        names: list[str] = []
        below: list[str] = []
        found: list[tuple[int, int]] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    names.append(_text(entry.name))
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
                    elif (content := _content(entry)) is not None:
                        found.append(content)
                    if left < len(names) or time.monotonic() > end_s:
                        break
        except NOT_THERE:
            pass  # what appears there is new
        except OSError:
            continue
        if left < len(names) or time.monotonic() > end_s:
            continue  # one that is not known in full is not known
        left -= len(names)
        folders[_text(folder)] = tuple(names)
        contents += found
        if depth < MAX_DEPTH:
            waiting += [(each, depth + 1) for each in below if not is_left_out(Path(each).name)]
    return BeforeFile(folders=folders, contents=tuple(contents))


def _text(path: str) -> str:
    """Return a path as JSON can hold it."""
    return os.fsencode(path).decode(errors="replace")


def _content(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        info = entry.stat()
    except OSError:
        return None
    return (info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else None
