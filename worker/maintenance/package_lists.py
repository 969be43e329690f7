"""Deletes the lists of packages that no run names any more: they go with the last of the runs they belong to."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.layout import Home
from backprop.worker.environment.provenance.notes import YOUNG_S

_DIGEST: Final = re.compile(rb'"digest"\s*:\s*"([0-9a-f]{16})"')


def sweep(home: Home) -> int:
    """Delete unneeded lists; return the bytes freed. Where a note cannot be read, all stay. Raises nothing."""
    freed = 0
    try:
        old = [path for path in home.packages.glob("*.json") if time.time() - path.lstat().st_mtime > YOUNG_S]
        named = {digest for folder in _folders(home) for digest in _named(folder)} if old else set[str]()
        for path in old:
            if path.stem not in named:
                size = path.lstat().st_size
                path.unlink(missing_ok=True)
                freed += size
    except OSError:
        return freed
    return freed


def _folders(home: Home) -> Iterator[Path]:
    for root in (home.runs, home.batches):
        if root.is_dir():
            yield from (Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))


def _named(folder: Path) -> Iterator[str]:
    for path in folder.glob("provenance*.json"):
        for digest in _DIGEST.findall(read_if_there(path) or b""):
            yield digest.decode()
