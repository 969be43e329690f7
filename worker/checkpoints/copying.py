"""Copies a checkpoint, file or folder, so that the copy shares nothing with what the trainer goes on writing.

By reflink where the file system can (Btrfs, XFS): at once and at no cost in space. Else byte by byte. Never by a hard
link: a trainer that truncates its file would write into the copy.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backprop.scheduler.home.file_reading import open_regular

FICLONE: Final = 0x40049409
"""_IOW(0x94, 9, int), linux/fs.h."""
CHUNK_BYTES: Final = 8 * 1024 * 1024
MAX_ENTRIES: Final = 10_000
_MIB: Final = 1024 * 1024
_NO_KERNEL_COPY: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


class CopyStopped(OSError):
    """The copy was stopped halfway."""


def copy(
    source: Path, target: Path, floor_mib: int | None = None, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Copy `source` to `target`, which must not exist, and sync it. Links inside a folder are copied as links.

    `floor_mib`: what must be left free on the target's file system. `stopped`: asked between two pieces; True gives up.
    Raises OSError (ENOSPC below the floor), CopyStopped; what was copied by then is left behind.
    """
    if source.is_dir():
        _copy_folder(source, target, floor_mib, stopped, [MAX_ENTRIES])
    else:
        _copy_file(source, target, floor_mib, stopped)


def remove(path: Path) -> None:
    """Delete a copy. One that is gone already is not an error."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _copy_folder(
    source: Path, target: Path, floor_mib: int | None, stopped: Callable[[], bool], left: list[int]
) -> None:
    target.mkdir(mode=0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.E2BIG, f"more than {MAX_ENTRIES} files", str(source))
            into = target / entry.name
            if entry.is_symlink():
                into.symlink_to(os.readlink(entry.path))  # noqa: PTH115
            elif entry.is_dir():
                _copy_folder(Path(entry.path), into, floor_mib, stopped, left)
            elif entry.is_file():
                _copy_file(Path(entry.path), into, floor_mib, stopped)
    shutil.copystat(source, target)
    sync_folder(target)


def _copy_file(source: Path, target: Path, floor_mib: int | None, stopped: Callable[[], bool]) -> None:
    reading = open_regular(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        info = os.fstat(reading)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(target, flags, info.st_mode & 0o777 | 0o600)
        try:
            if not _cloned(reading, writing):
                _need_room(target.parent, info.st_size, floor_mib)
                _copy_bytes(reading, writing, stopped)
            os.utime(writing, ns=(info.st_atime_ns, info.st_mtime_ns))
            os.fsync(writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _cloned(reading: int, writing: int) -> bool:
    try:
        fcntl.ioctl(writing, FICLONE, reading)
    except OSError:
        return False
    return True


def _need_room(folder: Path, size_bytes: int, floor_mib: int | None) -> None:
    if floor_mib is None:
        return
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize - size_bytes < floor_mib * _MIB:
        raise OSError(errno.ENOSPC, f"less than {floor_mib} MiB would be left free", str(folder))


def _copy_bytes(reading: int, writing: int, stopped: Callable[[], bool]) -> None:
    by_kernel = True
    while True:
        if stopped():
            raise CopyStopped(errno.ECANCELED, "stopped")
        try:
            done = os.copy_file_range(reading, writing, CHUNK_BYTES) if by_kernel else _pump(reading, writing)
        except OSError as error:
            if not by_kernel or error.errno not in _NO_KERNEL_COPY:
                raise
            by_kernel = False
            continue
        if not done:
            return


def _pump(reading: int, writing: int) -> int:
    data = os.read(reading, CHUNK_BYTES)
    at = 0
    while at < len(data):
        at += os.write(writing, data[at:])
    return len(data)
