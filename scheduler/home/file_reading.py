"""Opens and reads files that a script, or its user, may have removed, replaced or made something else.

"Not there" is said by two errors alone: no such file, and a folder on the way that is none. Any other one (no
descriptor, no memory, a disk or a share in trouble, no permission) says nothing about the file: whoever took it for
absent would run a finished run again. It is raised, and the caller tries again later.

A FIFO, a device or a folder under a file's name is such an error too. To open a FIFO in the ordinary way means to wait
for its other end, for ever, and a device has no end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

NOT_THERE: Final = (FileNotFoundError, NotADirectoryError)
MOST_BYTES: Final = 256 << 20
"""None of our files comes near. What is larger is not ours, and would take the machine's memory."""
_KINDS: Final = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFile(OSError):
    """A path leads to something other than a regular file."""


def open_regular(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file without waiting; return the descriptor, which is closed on exec. Raises OSError; NotAFile or
    IsADirectoryError for whatever else has the name."""
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a FIFO that nobody reads
            raise NotAFile(errno.ENXIO, "is a FIFO or a socket, not a file", str(path)) from error
        raise
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return handle
    os.close(handle)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    what = next((name for is_it, name in _KINDS if is_it(kind)), "something else")
    raise NotAFile(errno.EINVAL, f"is {what}, not a file", str(path))


def read_regular(path: Path) -> bytes:
    """Return what a file holds. Raises OSError, naming the file."""
    try:
        with open(open_regular(path), "rb") as file:
            large = os.fstat(file.fileno()).st_size > MOST_BYTES
            content = b"" if large else file.read()
    except OSError as error:
        # A read, unlike an open, does not name its file.
        error.filename = error.filename or str(path)
        raise
    if large:
        raise OSError(errno.EFBIG, f"is larger than {MOST_BYTES >> 20} MiB", str(path))
    return content


def read_if_there(path: Path) -> bytes | None:
    """As `read_regular`; None when there is no such file."""
    try:
        return read_regular(path)
    except NOT_THERE:
        return None


def is_there(path: Path) -> bool:
    """Return whether `path` leads to anything. Raises OSError when that cannot be told, unlike `Path.exists`."""
    try:
        os.stat(path)  # noqa: PTH116 - `Path.exists` takes some errors for an absence, in some versions all of them
    except NOT_THERE:
        return False
    return True


def open_draft(path: Path) -> int:
    """Open a new, empty file for what is to be renamed once it is whole. A FIFO or a device of that name is removed, a
    link refused. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    try:
        handle = open_regular(path, flags)
    except NotAFile:
        path.unlink()
        handle = open_regular(path, flags)
    # Only once it is known to be a file of ours.
    os.ftruncate(handle, 0)
    return handle
