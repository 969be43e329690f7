"""Tells a result from a checkpoint: a save that has lost what the run's earlier ones had, such as the optimizer.

Trainers write one as they end: weights alone, or their last checkpoint stripped in place. To resume from it would start
over with good weights. A run whose saves were never more is left alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

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


class EarlierSaves:
    """The saves of a run so far. `recorded`: its checkpoints on record, newest first."""

    def __init__(self, recorded: Sequence[CheckpointRecord]) -> None:
        self._newest = next((each for each in recorded if each.refused is None), None)
        self._size_bytes: int | None = None
        self._had_optimizer: bool | None = None
        self._passed_bytes = 0

    def why_result(self, file: CheckpointFile) -> str | None:
        """Return what this save has lost, in words; None for one that counts, which is then compared with. Reads it."""
        self._look_back()
        content = content_at(file.path) if not file.is_dir else None
        why = self._lost(file, content)
        if why is None:
            self._size_bytes = file.size_bytes
            self._had_optimizer = _has_optimizer(content) if content is not None else None
            self._passed_bytes = 0
        return why

    def _lost(self, file: CheckpointFile, content: TorchContent | None) -> str | None:
        before = self._size_bytes
        if before is None or file.is_dir or (content is not None and _has_optimizer(content)):
            return None
        if content is not None:
            stripped = self._had_optimizer or (
                self._had_optimizer is None and file.size_bytes < STRIPPED * before
            )
            return f"{RESULT}: without the optimizer that earlier saves had" if stripped else None
        if file.size_bytes >= HALF * before:
            return None
        # A result comes once. What is saved so again is how this script saves now.
        again = abs(file.size_bytes - self._passed_bytes) <= ALIKE * file.size_bytes
        self._passed_bytes = file.size_bytes
        return None if again else f"{RESULT}: {file.size_bytes} bytes, earlier saves had {before}"

    def _look_back(self) -> None:
        """Take what is on record for what came before, once."""
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
