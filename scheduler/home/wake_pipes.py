"""Wakes sleeping processes of this home by a byte in a FIFO: workers, and commands that wait for runs to end.

Each sleeper reads a FIFO of its own in the home's folder of locks. Nothing depends on the byte, since every sleeper
looks by itself before long. Opening a FIFO without a reader fails at once, so it also shows whether a sleeper is alive.

Whoever settles a run notes so inside its transaction, and `Database.write` wakes all that wait once that is committed.
Standard library only: `backprop run` stays light.
"""

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import Final

YOUNG_S: Final = 60.0
"""A FIFO is made before it is opened: one without a reader is left alone for so long."""

_settled = False


class WakePipe:
    """The reader's end. Opened for both directions, so that it never reads end-of-file. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        self._handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

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


def is_read(path: Path, byte: bytes = b"") -> bool:
    """Return whether a process reads this FIFO, and wake it with `byte`. Raises nothing."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        with contextlib.suppress(OSError):
            os.write(handle, byte)
    finally:
        os.close(handle)
    return True


def new_waiter(locks: Path) -> WakePipe:
    """Make the FIFO of a command that waits for runs. `locks`: the home's folder of locks. Raises OSError."""
    return WakePipe(locks / f"wait-{os.urandom(4).hex()}.wake")


def note_settled() -> None:
    """Note that this transaction brings a run to its end, or takes one away."""
    global _settled
    _settled = True


def wake_if_settled(locks: Path) -> None:
    """After a commit: wake the commands that wait, if a run was settled. Raises nothing."""
    global _settled
    if not _settled:
        return
    _settled = False
    for path in locks.glob("wait-*.wake"):
        if not is_read(path, b"."):
            _remove_left(path)


def _remove_left(path: Path) -> None:
    """Delete the FIFO of a command that was killed."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if stat.S_ISFIFO(status.st_mode) and time.time() - status.st_mtime > YOUNG_S:
            path.unlink()
