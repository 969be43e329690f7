"""Keeps a supervisor at its segment while it is signalled.

A standby supervises one segment after the other under one pid. A signal for the segment that has just ended would
otherwise ask, pause or kill the next one.
"""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from backprop.worker.executor import segment_files


@contextlib.contextmanager
def kept_at(folder: Path) -> Generator[bool]:
    """Yield whether the supervisor still serves the segment in `folder`; meanwhile it accepts no other segment.

    A supervisor writes `exit.json`, then tries to lock the order exclusively. It ends instead of going on where that
    fails. Whoever holds the order shared and sees no end therefore signals the right one. Raises OSError.
    """
    try:
        order = os.open(folder / segment_files.ORDER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # the folder was deleted: without it a supervisor does not go on either
        yield True
        return
    try:
        yield _share(order) and segment_files.read_exit(folder) is None
    finally:
        os.close(order)


def _share(handle: int) -> bool:
    """Lock an open file shared; return whether that could be done."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
