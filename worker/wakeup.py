"""Lets a command wake sleeping workers at once.

Each worker reads a FIFO beside its lock. A byte written to it means "read the queue now". Nothing depends on it, since
every worker reads the queue by itself before long. Opening a FIFO without a reader fails at once, so the same call
shows whether a worker is running. Standard library only: `backprop run` stays light.

A follower (`backprop run --follow` without a worker) is a worker for one run only. It is woken like any other, but
starts nothing else.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

FOLLOWER: Final = "follow-"
"""Prefix of the id of a worker that serves one run only."""


def wake_path(locks: Path, worker: str) -> Path:
    """Return the path of a worker's FIFO. `locks`: the home's folder of locks."""
    return locks / f"worker-{worker}.wake"


def wake_workers(locks: Path) -> int:
    """Wake every living worker of this home; return how many of them start whatever is queued: all but followers."""
    woken = 0
    for path in locks.glob("worker-*.wake"):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            woken += not path.name.startswith(f"worker-{FOLLOWER}")
            try:
                os.write(handle, b".")
            finally:
                os.close(handle)
    return woken


class WakePipe:
    """The worker's end of its FIFO. Opened for both directions, so that it never reads end-of-file."""

    def __init__(self, locks: Path, worker: str) -> None:
        self._path = wake_path(locks, worker)
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        self._handle = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

    def fileno(self) -> int:
        return self._handle

    def drain(self) -> bool:
        """Take what was written; return whether anything was."""
        try:
            return bool(os.read(self._handle, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._handle)
