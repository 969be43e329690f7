"""What is there now of what a run's patterns name? One pass over the disk, in steps of bounded cost."""

import os
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backprop.worker.checkpoints.formats import is_leftover
from backprop.worker.checkpoints.glob_walk import walk
from backprop.worker.checkpoints.validation import CLOCK_GRAIN_S, CheckpointFile, measure

STEP_ENTRIES: Final = 10_000
STEP_S: Final = 0.25
WHOLE_ENTRIES: Final = 200_000
WHOLE_S: Final = 5.0
"""For a pass that has to be made in one go: at a segment's end, and before a start."""


@dataclass
class DirectoryScan:
    """One pass. `since_s`: wall-clock seconds; what was last written before is left out (less the grain of file times).

    `avoid`: a folder that is never looked into: opening and closing the queue's database would drop its locks.
    `found`: by path as the pattern names it: how it looks, links followed, and when (monotonic seconds) it did.
    `hollow`: what is empty, and when it was last written (Unix seconds).
    """

    patterns: Sequence[str]
    since_s: float
    avoid: Path
    found: dict[str, tuple[CheckpointFile, float]] = field(
        default_factory=dict[str, tuple[CheckpointFile, float]]
    )
    hollow: dict[str, float] = field(default_factory=dict[str, float])
    visited: int = 0

    def __post_init__(self) -> None:
        self._steps = self._visit()

    def step(self, entries: int = STEP_ENTRIES, within_s: float = STEP_S) -> bool:
        """Go on for at most so many entries and seconds. True when the pass is complete."""
        end_s = time.monotonic() + within_s
        for _ in range(entries):
            if next(self._steps, None) is None:
                return True
            if time.monotonic() > end_s:
                break
        return False

    def whole(self) -> bool:
        """All of it now; False when there was too much, and only a part was seen."""
        return self.step(WHOLE_ENTRIES, WHOLE_S)

    def close(self) -> None:
        self._steps.close()

    def _visit(self) -> Generator[bool]:
        for pattern in self.patterns:
            for path in walk(pattern):
                self.visited += 1
                if path is not None:
                    self._weigh(path)
                yield True

    def _weigh(self, path: str) -> None:
        try:
            info = os.stat(path)  # noqa: PTH116
            if not stat.S_ISDIR(info.st_mode) and info.st_mtime < self.since_s - CLOCK_GRAIN_S:
                return  # most of what is there, so that nothing dearer is done for it
            real = Path(os.path.realpath(path, strict=True))
            known = measure(real)
        except (OSError, ValueError):
            return
        if is_leftover(real.name) or real == self.avoid or self.avoid in real.parents:
            return
        if isinstance(known, CheckpointFile):
            if known.mtime_ns >= (self.since_s - CLOCK_GRAIN_S) * 1e9:
                self.found[path] = (known, time.monotonic())
        elif info.st_uid == os.geteuid() and info.st_mtime >= self.since_s - CLOCK_GRAIN_S:
            self.hollow[path] = info.st_mtime


def newest_first(found: dict[str, tuple[CheckpointFile, float]]) -> Iterator[tuple[str, CheckpointFile]]:
    """Each checkpoint once, by its own path rather than by a link to it."""

    def order(item: tuple[str, tuple[CheckpointFile, float]]) -> tuple[int, bool]:
        path, (known, _) = item
        return -known.mtime_ns, path != str(known.path)

    seen: set[Path] = set()
    for path, (known, _) in sorted(found.items(), key=order):
        if known.path not in seen:
            seen.add(known.path)
            yield path, known
