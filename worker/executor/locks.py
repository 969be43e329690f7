"""Takes and tests the file locks that say who is alive; a pid never decides that.

There are two kinds. Locks that one process holds for its own life (worker, admission) are filelock's. Locks handed
down to another program (a run's) are raw descriptors: a FileLock would be released under a living child when the
worker's object is collected, and closes itself in forked children. A raw descriptor is closed, never unlocked: the
lock lives on in the processes that inherited it, and the kernel frees it when the last of them dies.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from filelock import BaseFileLock

TAKE_PATIENCE_S: Final = 0.5
ADMISSION_PATIENCE_S: Final = 2.0
ADMISSION_RESPECT_S: Final = 10.0
"""A round of decisions takes well under a second; a worker that holds the right for this long has been stopped."""


def take(path: Path) -> int | None:
    """Lock `path` exclusively. Return the descriptor; None when another process holds the lock.

    Tries for half a second, since `held` takes a shared lock for microseconds. Raises OSError, for a planted symbolic
    link too.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if acquire(handle):
        return handle
    os.close(handle)
    return None


def acquire(handle: int) -> bool:
    """Lock an open file exclusively, within half a second; return whether that could be done."""
    end = time.monotonic() + TAKE_PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        else:
            return True


def held(path: Path) -> bool:
    """Return whether any process holds `path` exclusively; False when the file is missing. Raises OSError."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def worker_lock_path(locks: Path, worker: str) -> Path:
    return locks / f"worker-{worker}.lock"


def hold_worker_lock(locks: Path, worker: str) -> "BaseFileLock":
    """Take the lock that says this worker lives. It is held until release or death.

    Raises OSError; filelock's Timeout when another process holds it.
    """
    from filelock import FileLock

    lock = FileLock(worker_lock_path(locks, worker), mode=0o600, fallback_to_soft=False)
    lock.acquire(timeout=0)
    return lock


def worker_alive(locks: Path, worker: str) -> bool:
    """Return whether the worker with this id lives. Raises OSError."""
    return held(worker_lock_path(locks, worker))


class Admission:
    """The home-wide right to start runs, held for one round of decisions. False on entry: try later.

    It gives fairness, and one snapshot at a time. What keeps two workers from promising the same VRAM is the claim's
    own transaction, so a worker that was frozen while it held the right (Ctrl-Z) is passed over after a while.
    """

    def __init__(self, locks: Path) -> None:
        from filelock import FileLock

        self._lock = FileLock(
            locks / "admission.lock", mode=0o600, fallback_to_soft=False, poll_interval=0.01
        )
        self._refused_s: float | None = None

    def __enter__(self) -> bool:
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=ADMISSION_PATIENCE_S)
        except Timeout:
            now_s = time.monotonic()
            self._refused_s = now_s - ADMISSION_PATIENCE_S if self._refused_s is None else self._refused_s
            return now_s - self._refused_s > ADMISSION_RESPECT_S
        self._refused_s = None
        return True

    def __exit__(self, *_: object) -> None:
        self._lock.release()
