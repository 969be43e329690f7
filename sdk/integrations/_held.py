"""Holds open the checkpoint to go on from, from a framework's import until its training, and puts it back.

A script that knows nothing of resuming may clear its output folder when it starts, and the checkpoint lies in there:
the training would begin from zero. What a process holds open is still there after it was deleted.
"""

import os
import shutil
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_FILES = 256

_held: "dict[str, int]" = {}  # descriptors, by path


def hold() -> None:
    """Open the checkpoint's files, once. More of them than a process should hold are left."""
    checkpoint = os.environ.get("BACKPROP_RESUME_FROM")
    paths = list(_files(checkpoint)) if checkpoint and not _held else []
    if len(paths) > MOST_FILES:
        return
    for path in paths:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would be waited for
        except OSError:
            continue
        if stat.S_ISREG(os.fstat(handle).st_mode):
            _held[path] = handle
        else:
            os.close(handle)


def put_back() -> int:
    """Put back those that are gone, and hold none any more; how many there were. Raises OSError."""
    gone = [path for path in _held if not os.path.lexists(path)]
    try:
        for path in gone:
            _put_back(path, _held[path])
    finally:
        while _held:
            os.close(_held.popitem()[1])
    return len(gone)


def _put_back(path: str, held: int) -> None:
    draft = f"{path}.{os.getpid()}.part"
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(held, "rb", closefd=False) as source, open(draft, "wb") as file:  # noqa: PTH123
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    was = os.fstat(held)
    os.utime(draft, ns=(was.st_atime_ns, was.st_mtime_ns))  # it is no new save
    os.replace(draft, path)  # noqa: PTH105


def _files(checkpoint: str) -> "Iterator[str]":
    if not os.path.isdir(checkpoint):  # noqa: PTH112
        yield checkpoint
    for folder, _, names in os.walk(checkpoint):
        yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118
