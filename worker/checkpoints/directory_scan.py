"""Scans the disk for what a run's patterns name: one pass, in steps of bounded cost."""

import os
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.worker.checkpoints.formats import is_leftover
from backprop.worker.checkpoints.glob_walk import walk
from backprop.worker.checkpoints.seen.baseline import Beginning
from backprop.worker.checkpoints.validation import CheckpointFile, measure

STEP_ENTRIES: Final = 10_000
STEP_S: Final = 0.25
FINISH_ENTRIES: Final = 200_000
FINISH_S: Final = 5.0
"""For a pass that has to be made in one go: at a segment's end, and before a start."""


class DirectoryScan(msgspec.Struct, dict=True):
    """One pass.

    `began`: the beginning of the segment; what lay there before is left out. `avoid`: a folder that is never opened:
    opening and closing the queue's database would drop its locks. `files`: by path as the pattern names it: how it
    looks, links followed, and when (monotonic seconds) it did. `empty`: what is empty, and when it was last written
    (Unix seconds).
    """

    patterns: Sequence[str]
    began: Beginning
    avoid: Path
    files: dict[str, tuple[CheckpointFile, float]] = {}
    empty: dict[str, float] = {}

    def __post_init__(self) -> None:
        self._steps = self._visit()

    def step(self, entries: int = STEP_ENTRIES, within_s: float = STEP_S) -> bool:
        """Go on for at most `entries` and `within_s` seconds. Return whether the pass is complete."""
        end_s = time.monotonic() + within_s
        for _ in range(entries):
            if next(self._steps, None) is None:
                return True
            if time.monotonic() > end_s:
                break
        return False

    def finish(self) -> bool:
        """Make the whole pass now. Return False when there was too much, and only a part was visited."""
        return self.step(FINISH_ENTRIES, FINISH_S)

    def close(self) -> None:
        self._steps.close()

    def _visit(self) -> Generator[bool]:
        for pattern in self.patterns:
            for path in walk(pattern):
                if path is not None:
                    self.measure(path)
                yield True

    def measure(self, path: str) -> None:
        """Add how one path looks now, if it counts."""
        try:
            info = os.stat(path)  # noqa: PTH116
            is_folder = stat.S_ISDIR(info.st_mode)
            if not is_folder and self.began.is_old(path, info):
                return  # most of what is there, so nothing dearer is done for it
            real = Path(os.path.realpath(path, strict=True))
            file = measure(real)
            is_old = is_folder and self.began.is_all_old(str(real))
        except (OSError, ValueError):
            return
        if is_leftover(real.name) or real == self.avoid or self.avoid in real.parents:
            return
        if isinstance(file, CheckpointFile):
            if not is_old:
                self.files[path] = (file, time.monotonic())
        elif info.st_uid == os.geteuid() and not self.began.is_old(path, info):
            self.empty[path] = info.st_mtime


def newest_first(files: dict[str, tuple[CheckpointFile, float]]) -> Iterator[tuple[str, CheckpointFile]]:
    """Yield each checkpoint once, by its own path rather than by a link to it. `files`: of a `DirectoryScan`."""

    def order(item: tuple[str, tuple[CheckpointFile, float]]) -> tuple[int, bool]:
        path, (file, _) = item
        return -file.mtime_ns, path != str(file.path)

    yielded: set[Path] = set()
    for path, (file, _) in sorted(files.items(), key=order):
        if file.path not in yielded:
            yielded.add(file.path)
            yield path, file
