"""Reads scripts and settings for the recipes, in bounded amounts."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Final

from backprop.scheduler.recipes.source_reader import READ_LIMIT_BYTES


class DiskReader:
    """Implements `SourceReader` with the files of this machine and the caller's environment."""

    @property
    def environment(self) -> Mapping[str, str]:
        return os.environ

    def is_file(self, path: PurePath) -> bool:
        try:
            return Path(path).is_file()
        except (OSError, ValueError):  # too long a name, a NUL
            return False

    def read(self, path: PurePath, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
        if not self.is_file(path):  # opening a device may do something
            return b""
        try:
            # Without O_NONBLOCK, opening a FIFO put there meanwhile would wait for its writer.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return b""
        with open(handle, "rb") as file:  # noqa: PTH123
            try:
                return file.read(limit_bytes) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
            except OSError:
                return b""

    def expand_user(self, path: str) -> str:
        return os.path.expanduser(path)  # noqa: PTH111 - a pattern may be meant, not a path


DISK: Final = DiskReader()
