"""Reads files that may not be there, and tells that apart from files that cannot be read.

"Not there" is said by two errors alone: no such file, and a folder on the way that is none. Any other one (no
descriptor, no memory, a disk or a share in trouble, no permission) says nothing about the file: whoever took it for
absent would run a finished run again. It is raised, and the caller tries again later.
"""

import os
from pathlib import Path
from typing import Final

NOT_THERE: Final = (FileNotFoundError, NotADirectoryError)


def read_if_there(path: Path) -> bytes | None:
    """Return what a file holds; None when there is no such file. Raises OSError when it cannot be read, naming it."""
    try:
        return path.read_bytes()
    except NOT_THERE:
        return None
    except OSError as error:
        # A read, unlike an open, does not name its file.
        error.filename = error.filename or str(path)
        raise


def is_there(path: Path) -> bool:
    """Return whether `path` leads to anything. Raises OSError when that cannot be told, unlike `Path.exists`."""
    try:
        os.stat(path)  # noqa: PTH116 - `Path.exists` takes some errors for an absence, in some versions all of them
    except NOT_THERE:
        return False
    return True
