"""Keeps what is whole and of no use from the next segments.

That is a suspect, with which a segment failed at once, and a result that took the place of a checkpoint. Both stay on
record as refused. The one before is tried, or a copy that was kept of it.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from backprop.scheduler.records import SUSPECT, CheckpointRecord
from backprop.worker.checkpoints.backups import Backup
from backprop.worker.checkpoints.content.results import RESULT
from backprop.worker.checkpoints.validation import measure


def without_suspects(saved: Sequence[CheckpointRecord]) -> list[CheckpointRecord]:
    """Leave out older saves at the path of such a one, unless one of them was put back there: that file is no good.

    `saved`: newest first. Reads those files.
    """
    suspects, kept = set[str](), list[CheckpointRecord]()
    for record in saved:
        if is_suspect(record) or (record.refused is not None and RESULT in record.refused):
            suspects.add(record.path)
        elif record.path in suspects and not _is_there(record):
            continue
        kept.append(record)
    return kept


def is_suspect(record: CheckpointRecord) -> bool:
    return record.refused is not None and record.refused.startswith(SUSPECT)


def holds_suspect(backup: Backup, saved: Iterable[CheckpointRecord]) -> bool:
    """Return whether a kept copy is one of a suspect."""
    return any(is_suspect(record) and backup.holds(record) for record in saved)


def _is_there(record: CheckpointRecord) -> bool:
    try:
        file = measure(Path(os.path.realpath(record.path)))
    except OSError:
        return False
    return not isinstance(file, str) and (file.size_bytes, file.mtime_ns) == (
        record.size_bytes,
        record.mtime_ns,
    )
