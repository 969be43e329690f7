"""Removes one checkpoint from disk, so that a crash at any moment leaves it whole, or out of every trainer's sight.

    rename   NAME to .backprop-moved-RUN-NAME, in the same folder, synced
    look     that what was renamed is what was judged; else it gets its name back
    rename   to .backprop-removed-RUN-NAME, synced
    delete   that

An interrupted removal is told by these names, and goes on where it was.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints import copying
from backprop.worker.checkpoints.open_files import in_use
from backprop.worker.checkpoints.validation import CheckpointFile, measure
from backprop.worker.supervisor import failpoint

IN_USE: Final = "a process has it open"


def is_begun(record: CheckpointRecord) -> bool:
    """Return whether a removal of it was interrupted."""
    return any(map(os.path.lexists, _hidden(record)))


def remove(record: CheckpointRecord) -> str | None:
    """Remove a checkpoint; return why it is still there, None once it is gone. Raises OSError."""
    path, (moved, removed) = Path(record.path), _hidden(record)
    if not os.path.lexists(removed):
        if not os.path.lexists(moved):
            if in_use([record.path]):
                return IN_USE
            failpoint.at("rotation looked")
            _rename(path, moved)
            failpoint.at("rotation moved")
        if (why := _changed(record, moved)) is not None:
            return _put_back(moved, path, why)
        _rename(moved, removed)
        failpoint.at("rotation judged")
    if removed.is_dir():
        shutil.rmtree(removed)
    else:
        removed.unlink()
    failpoint.at("rotation deleted")
    return None


def take_back(record: CheckpointRecord) -> None:
    """Give a checkpoint its name again whose removal was interrupted before any of it was deleted. Raises OSError."""
    moved, _ = _hidden(record)
    if os.path.lexists(moved):
        _put_back(moved, Path(record.path), "")


def _hidden(record: CheckpointRecord) -> tuple[Path, Path]:
    """Return what it is called while it is judged, and while it is deleted."""
    path = Path(record.path)
    moved, removed = (f".backprop-{state}-{record.run_id}-{path.name}" for state in ("moved", "removed"))
    return path.with_name(moved), path.with_name(removed)


def _rename(path: Path, to: Path) -> None:
    path.rename(to)
    copying.sync_folder(path.parent)


def _changed(record: CheckpointRecord, moved: Path) -> str | None:
    """Return why what was renamed is not what was judged. Raises OSError."""
    now, then = measure(moved), CheckpointFile.of(record)
    if isinstance(now, str):
        return now
    if (now.size_bytes, now.mtime_ns, now.is_dir) != (then.size_bytes, then.mtime_ns, then.is_dir):
        return "it has changed since it was saved"
    return IN_USE if in_use([str(moved)]) else None


def _put_back(moved: Path, path: Path, why: str) -> str:
    """Give it its name again, unless something has taken that; return why it stays. Raises OSError."""
    if os.path.lexists(path):
        return f"{why}; another one has its name by now, so it is called {moved.name}"
    _rename(moved, path)
    return why
