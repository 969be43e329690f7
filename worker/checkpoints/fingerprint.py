"""Tells whether a checkpoint holds anything new, by comparing the directories of two zips. Nothing is loaded.

Some scripts save as they start (nanoGPT: whenever `iter_num` is a multiple of `eval_interval`, so always right after a
resume). Taken for new work, such a file would let a chain that never gets to its next save go on for ever.
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backprop.scheduler.home.file_reading import open_regular

Contents = frozenset[tuple[str, int, int]]
"""(name, CRC-32, bytes) of each tensor's storage."""

_STORAGES: Final = "/data/"
"""What `torch.save` writes: NAME/data.pkl with everything that is no tensor, NAME/data/0 and so on. Any step of an
optimizer changes one of the storages; the rest changes without one: a best loss that was measured again, a time."""


def contents(path: Path, wanted: Callable[[os.stat_result], bool] = lambda _: True) -> Contents | None:
    """Return the contents of a file by `torch.save`.

    None for any other file, and for one that is not `wanted`.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            if not wanted(os.fstat(file.fileno())):
                return None
            with zipfile.ZipFile(file) as archive:
                storages = frozenset(
                    (entry.filename.partition("/")[2], entry.CRC, entry.file_size)
                    for entry in archive.infolist()
                    if _STORAGES in entry.filename
                )
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return None
    # Checksums can be turned off (torch.serialization.set_crc32_options).
    return storages if any(crc for _, crc, _ in storages) else None


def holds_the_same(path: Path, resumed: Contents | None) -> bool:
    """Return whether the file at `path` holds what `resumed` holds, tensor for tensor; False if that is unknown."""
    return resumed is not None and contents(path) == resumed
