"""How does a command reach a sleeping worker at once?

Each worker reads a FIFO beside its lock. A byte written to it means "look at the queue now"; nothing depends on
it, since every worker looks by itself before long. Opening a FIFO that nobody reads fails at once, so the same
call tells whether a worker is there. Standard library only: `backprop run` stays light.

A follower (`backprop run --follow` without a worker) is a worker for one run alone. It is woken like any other, but
nobody may rely on it to start anything else.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

FOLLOWER: Final = "follow-"
"""How the id of a worker begins that serves one run alone."""


def wake_path(locks: Path, worker: str) -> Path:
    return locks / f"worker-{worker}.wake"


def wake_workers(locks: Path) -> int:
    """Wake every living worker of this home; how many of them start whatever is queued."""
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
    """The worker's end. Opened for both directions, so that it never sees end-of-file."""

    def __init__(self, locks: Path, worker: str) -> None:
        self._path = wake_path(locks, worker)
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        self._handle = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

    def fileno(self) -> int:
        return self._handle

    def drain(self) -> bool:
        """Take what was written; whether anything was."""
        try:
            return bool(os.read(self._handle, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._handle)
