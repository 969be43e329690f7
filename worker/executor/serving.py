"""Keeps a supervisor at its segment while it is signalled.

A standby supervises one segment after the other under one pid. A signal for the segment that has just ended would
otherwise ask, pause or kill the next one.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

from backprop.scheduler.home.file_reading import NOT_THERE, NotAFile, open_regular
from backprop.worker.executor import segment_files

NOT_OURS: Final = (NotAFile, IsADirectoryError)


@contextlib.contextmanager
def kept_at(folder: Path) -> Generator[bool]:
    """Yield whether the supervisor still serves the segment in `folder`; meanwhile it accepts no other segment.

    A supervisor writes `exit.json`, then tries to lock the order exclusively. It ends instead of going on where that
    fails. Whoever holds the order shared and sees no end therefore signals the right one. Raises OSError.
    """
    try:
        order = open_regular(folder / segment_files.ORDER, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        if not isinstance(error, (*NOT_THERE, *NOT_OURS)) and error.errno != errno.ELOOP:
            raise
        yield True  # without an order of ours, a supervisor does not go on either
        return
    try:
        yield _share(order) and not _has_ended(folder)
    finally:
        os.close(order)


def _has_ended(folder: Path) -> bool:
    """Return whether the segment's end is on record: whatever else has that name would have been replaced by it."""
    try:
        return segment_files.read_exit(folder) is not None
    except NOT_OURS:
        return False


def _share(handle: int) -> bool:
    """Lock an open file shared; return whether that could be done."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
