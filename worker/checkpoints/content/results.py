"""Tells a result from a checkpoint: a save that has lost what the run's earlier ones had, such as the optimizer.

Trainers write one as they end: weights alone, or their last checkpoint stripped in place. To resume from it would start
over with good weights. A run whose saves were never more is left alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints.content.torch_file import TorchContent, content_at
from backprop.worker.checkpoints.validation import CheckpointFile

RESULT: Final = "a result, no checkpoint"
STRIPPED: Final = 0.75
"""Of the earlier size: an optimizer's state is at least as large as what it keeps of each weight."""
HALF: Final = 0.55
"""The same for a format that cannot be looked into. Momentum alone doubles a file."""
ALIKE: Final = 0.05
_OPTIMIZER: Final = re.compile(r"(?:^|_)opt(?:im\w*|imizers?|s)?(?:_|$)", re.IGNORECASE)


class SavedContent(msgspec.Struct, frozen=True):
    """What tells a save from a result. `has_optimizer`: None for a format that cannot be looked into."""

    size_bytes: int
    is_dir: bool
    has_optimizer: bool | None


def saved_content(file: CheckpointFile) -> SavedContent:
    """Read what a file holds."""
    content = content_at(file.path) if not file.is_dir else None
    return SavedContent(
        file.size_bytes, file.is_dir, _has_optimizer(content) if content is not None else None
    )


class EarlierSaves:
    """The saves of a run so far. `recorded`: its checkpoints on record, newest first."""

    def __init__(self, recorded: Sequence[CheckpointRecord]) -> None:
        self._newest = next((each for each in recorded if each.refused is None), None)
        self._size_bytes: int | None = None
        self._had_optimizer: bool | None = None
        self._passed_bytes = 0

    def why_result(self, saved: SavedContent) -> str | None:
        """Return what a save of this run has lost, in words; None for one that counts, which is then compared with."""
        why = self._lost(saved)
        if why is None:
            self._size_bytes, self._had_optimizer = saved.size_bytes, saved.has_optimizer
            self._passed_bytes = 0
        return why

    def _lost(self, saved: SavedContent) -> str | None:
        before = self._size_bytes
        if before is None or saved.is_dir or saved.has_optimizer:
            return None
        if saved.has_optimizer is not None:
            stripped = self._had_optimizer or (
                self._had_optimizer is None and saved.size_bytes < STRIPPED * before
            )
            return f"{RESULT}: without the optimizer that earlier saves had" if stripped else None
        if saved.size_bytes >= HALF * before:
            return None
        # A result comes once. What is saved so again is how this script saves now.
        again = abs(saved.size_bytes - self._passed_bytes) <= ALIKE * saved.size_bytes
        self._passed_bytes = saved.size_bytes
        return None if again else f"{RESULT}: {saved.size_bytes} bytes, earlier saves had {before}"

    def look_back(self) -> None:
        """Take what is on record for what came before, once. Reads it."""
        newest, self._newest = self._newest, None
        if newest is None or newest.is_dir:
            return
        self._size_bytes = newest.size_bytes
        content = content_at(Path(newest.path)) if _is_unchanged(newest) else None
        self._had_optimizer = _has_optimizer(content) if content is not None else None


def _has_optimizer(content: TorchContent) -> bool:
    return any(_OPTIMIZER.search(key) for key in content.keys)


def _is_unchanged(record: CheckpointRecord) -> bool:
    try:
        info = Path(record.path).stat()
    except OSError:
        return False
    return (info.st_mtime_ns, info.st_size) == (record.mtime_ns, record.size_bytes)
