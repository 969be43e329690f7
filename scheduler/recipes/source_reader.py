"""What recipes may read of the machine. They open nothing themselves: the caller hands a reader in."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Final, Protocol

READ_LIMIT_BYTES: Final = 1 << 20


class SourceReader(Protocol):
    """Reads small regular files. Its methods raise nothing."""

    @property
    def environment(self) -> Mapping[str, str]: ...

    def is_file(self, path: PurePath) -> bool:
        """Return whether `path` leads to a regular file."""
        ...

    def read(self, path: PurePath, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
        """Return the first `limit_bytes` of a regular file; nothing when it cannot be read, or is a FIFO or device."""
        ...

    def expand_user(self, path: str) -> str:
        """Return `path` with a leading ~ or ~user replaced by that home folder, or unchanged."""
        ...
