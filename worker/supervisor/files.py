"""Reads and writes the supervisor's files in its segment's folder.

    order.json      read      what to run and for how long
    processes.json  written   who the supervisor and the leader are, for a worker that finds them later
    pause.json      written   since when it is paused and for how long it was, for a supervisor that takes over
    suspend.json    read      whether the segment is to be suspended: see `suspension`
    stop.json       written   why the leader is about to be signalled: before the signal, and once more after it
    box-N.json      both      the decision on box N: see `boxes`
    box.json        read      the worker's standing order, for when it does not decide
    deadline        written   when the box in force ends, for the script
    exit.json       written   how it ended: the last thing a supervisor does

The worker's side, with every field, is `executor/segment_files.py`. Standard library only, imports nothing of Backprop.
Each file is written under a temporary name and renamed; those that decide a run's future are synced, file and folder.
A file that cannot be read is not one that is missing: it is tried again for a minute. Opening waits for nothing: what
is no regular file, a FIFO that the script put there, counts as one that cannot be read.
"""

import contextlib
import errno
import json
import os
import stat
import time
from pathlib import Path

RETRY_EVERY_S = 1.0
READ_AGAIN_S = 0.2
READ_PATIENCE_S = 60.0
ROOM_BYTES = 64 * 1024


def read(path: Path) -> dict[str, object] | None:
    """Return the JSON object in a file; None when the file is missing or holds anything else.

    Raises OSError when it could not be read for a minute.
    """
    end = time.monotonic() + READ_PATIENCE_S
    while True:
        try:
            content: object = json.loads(_read(path))
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
            return None
        except OSError as error:
            if time.monotonic() >= end:
                error.filename = error.filename or str(path)
                raise
            time.sleep(READ_AGAIN_S)
        else:
            return content if isinstance(content, dict) else None  # pyright: ignore[reportUnknownVariableType]


def read_if_possible(path: Path) -> dict[str, object] | None:
    """As `read`, for a file that is useful but must not stop the supervisor: None also when it cannot be read."""
    try:
        return read(path)
    except OSError:
        return None


def glance(path: Path) -> dict[str, object] | None:
    """As `read`, in one try: None also when the file cannot be read now."""
    try:
        content: object = json.loads(_read(path))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None  # pyright: ignore[reportUnknownVariableType]


def write(path: Path, content: dict[str, object], durable: bool) -> None:
    """Replace the file `path` by `content`; `durable`: so that it survives a crash of the machine. Raises OSError."""
    write_text(path, json.dumps(content) + "\n", durable)


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """As `write`, for a file that is no JSON. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    handle = _open_draft(temporary)
    try:
        body = text.encode()
        if os.write(handle, body) != len(body):
            # A disk that is nearly full takes a part, without an error.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
    try:
        temporary.replace(path)
    except IsADirectoryError:
        # The script made a folder of that name. Nothing in it is deleted.
        path.rename(path.with_name(f"{path.name}.aside-{time.time_ns()}"))
        temporary.replace(path)
    if durable:
        _sync_folder(path.parent)


def write_if_possible(path: Path, content: dict[str, object], durable: bool = False) -> None:
    """As `write`, for a file that is useful but must not stop the supervisor on a full disk."""
    with contextlib.suppress(OSError):
        write(path, content, durable)


def write_when_possible(path: Path, content: dict[str, object], on_share: bool = False) -> None:
    """As `write`, durable, retried for as long as it takes: until a full disk has room, or a share is back.

    No other process knows the content. `on_share`: a folder that is not in sight may come back, since a share that was
    unmounted leaves an empty mount point. Raises OSError when the folder has been removed, or a link put in the way.
    """
    while True:
        try:
            write(path, content, durable=True)
        except OSError as error:
            if error.errno == errno.ELOOP or (not on_share and _is_gone(path.parent)):
                raise
            time.sleep(RETRY_EVERY_S)
        else:
            return


def size(path: Path) -> int | None:
    """Return how long a file is; None when that cannot be seen."""
    try:
        return path.lstat().st_size
    except OSError:
        return None


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file without waiting; return the descriptor. Raises OSError, for whatever else has the name."""
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.ENXIO, "not a regular file", str(path))


def _read(path: Path) -> bytes:
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read()


def _open_draft(path: Path) -> int:
    """Open a new, empty file. A FIFO, a socket or a device of that name is removed. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    try:
        handle = open_regular(path, flags)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        path.unlink()
        handle = open_regular(path, flags)
    os.ftruncate(handle, 0)
    return handle


def has_room(folder: Path) -> bool:
    """Return whether the disk of `folder` takes a little more; True also where that cannot be told."""
    path = folder / "room.tmp"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(handle, 0, ROOM_BYTES)
        finally:
            os.close(handle)
            path.unlink()
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True


def _is_gone(folder: Path) -> bool:
    try:
        folder.lstat()
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
