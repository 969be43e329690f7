"""Measures the disk that the home takes and finds logs that are too large: in bounded time, from names and sizes."""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.layout import Home

GB: Final = 10**9
LARGE_LOG_BYTES: Final = GB
LARGE_HOME_BYTES: Final = 10 * GB


class DiskUse(msgspec.Struct):
    """`total_bytes`: on disk; a part of the home only if `whole` is False, because time ran out. `large_logs`: run id,
    segment, bytes, largest first."""

    total_bytes: int = 0
    whole: bool = True
    large_logs: list[tuple[str, str, int]] = []

    @property
    def large_home(self) -> bool:
        return self.total_bytes > LARGE_HOME_BYTES

    def sentences(self) -> list[str]:
        """Return what a person should know, and the command that helps; empty when all is well."""
        sentences = [
            f"the log of {run_id}, segment {segment}, has {size / GB:.1f} GB; let the script print less, or once it"
            " has ended: backprop prune --compress-logs --keep-last 0"
            for run_id, segment, size in self.large_logs[:3]
        ]
        if self.large_home:
            least = "" if self.whole else "at least "
            sentences.append(
                f"Backprop's home takes {least}{self.total_bytes / GB:.1f} GB; see what may go:"
                " backprop prune --older-than 30d --dry-run"
            )
        return sentences


def measure(home: Home, budget_s: float) -> DiskUse:
    """Add up all files of the home for at most `budget_s` seconds, the logs of runs first. Links are not followed.

    Raises nothing.
    """
    use, end = DiskUse(), time.monotonic() + budget_s
    pending = [home.root, home.runs]
    while pending:
        if time.monotonic() > end:
            use.whole = False
            break
        folder = pending.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        if Path(entry.path) != home.runs:
                            pending.append(Path(entry.path))
                    else:
                        _count(use, folder, entry)
    use.large_logs.sort(key=lambda log: -log[2])
    return use


def _count(use: DiskUse, folder: Path, entry: "os.DirEntry[str]") -> None:
    info = entry.stat(follow_symlinks=False)
    use.total_bytes += info.st_blocks * 512
    if entry.name == "log" and info.st_size > LARGE_LOG_BYTES:
        use.large_logs.append((folder.parent.name, folder.name, info.st_size))
