"""Makes a file that is made once: of several that try, one succeeds, and everybody finds what that one wrote.

Standard library only, imports nothing of Backprop: the worker and the supervisor share it.
"""

import contextlib
import errno
import json
import os
from pathlib import Path

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system without hard links answers."""


def make_once(path: Path, content: dict[str, object]) -> bool:
    """Make the file `path`, whole and on disk; False when it is there already, and was left alone. Raises OSError."""
    body = json.dumps(content).encode() + b"\n"
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        _write(draft, body, os.O_TRUNC)
        try:
            os.link(draft, path)
        except FileExistsError:
            # A share may carry a request out, lose the answer and be asked again.
            return draft.stat().st_nlink > 1
        except OSError as error:
            if draft.stat().st_nlink > 1:
                return True
            if error.errno not in NO_LINKS:
                raise
            try:
                _write(path, body, os.O_EXCL)
            except FileExistsError:
                return False
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
    _sync(path.parent)
    return True


def _write(path: Path, body: bytes, how: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | how
    handle = os.open(path, flags, 0o600)
    whole = False
    try:
        # A disk that is nearly full takes a part, without an error.
        whole = os.write(handle, body) == len(body)
        os.fsync(handle)
    finally:
        os.close(handle)
        if not whole and how == os.O_EXCL:
            path.unlink()
    if not whole:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
