"""Repairs a run's checkpoints on disk before its next segment: restores backups, renames what is broken.

No file of the user's is ever deleted, and none that a process is writing is touched.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backprop.scheduler.spec import Plan, RunSpec
from backprop.worker.checkpoints import copying
from backprop.worker.checkpoints.backups import Backup
from backprop.worker.checkpoints.candidate import fault_of
from backprop.worker.checkpoints.glob_walk import matches
from backprop.worker.checkpoints.open_files import open_for_writing, own_processes
from backprop.worker.checkpoints.resume import StartPoint
from backprop.worker.checkpoints.validation import CheckpointFile, measure

MAX_TRIES: Final = 100


def repair(start: StartPoint, spec: RunSpec, segment: int) -> list[str]:
    """Do what `choose_start` found to be needed. Return what was done, in words. Raises OSError."""
    plan = spec.plan or Plan()
    done: list[str] = []
    for path in start.set_aside:
        why = _fault_now(path, plan)
        if why is not None:
            done.append(f"{path}: {why}; renamed {set_aside(Path(path), plan.globs, segment).name}")
    if start.restore is not None:
        aside = restore(start.restore, plan.globs)
        renamed = f"; what was there is renamed {aside.name}" if aside is not None else ""
        source = start.restore.source
        done.append(f"{source.path}: the backup of segment {source.segment} is restored{renamed}")
    return done


def restore(backup: Backup, patterns: Sequence[str]) -> Path | None:
    """Put a backup where its original was, which is renamed. Return its new name; None where there was none.

    Raises OSError; then the original is as it was, or under the new name.
    """
    target = Path(backup.source.path)
    _refuse_written(target)
    draft = target.with_name(f".{target.name}.backprop-draft")
    copying.remove(draft)
    try:
        copying.copy(backup.path, draft)
        aside = set_aside(target, patterns, backup.source.segment) if os.path.lexists(target) else None
        draft.rename(target)
    finally:
        copying.remove(draft)
    copying.sync_folder(target.parent)
    return aside


def set_aside(path: Path, patterns: Sequence[str], segment: int) -> Path:
    """Rename a broken checkpoint so that neither its trainer nor `patterns` find it again. Return its new name.

    A folder gets a new beginning: trainers look for checkpoint-120 by its beginning. A file gets a new end: they look
    for *.pt by its end. Where a pattern fits both, a dot comes first. Raises OSError.
    """
    _refuse_written(path)
    for attempt in range(MAX_TRIES):
        torn = f"torn-{segment}-{attempt}" if attempt else f"torn-{segment}"
        names = [f"{torn}-{path.name}", f"{path.name}.{torn}"]
        for name in (*(names if path.is_dir() else names[::-1]), f".{torn}-{path.name}"):
            aside = path.with_name(name)
            if not os.path.lexists(aside) and not any(matches(str(aside), each) for each in patterns):
                path.rename(aside)
                copying.sync_folder(path.parent)
                return aside
    raise OSError(errno.EEXIST, "no name is free to set it aside", str(path))


def _refuse_written(path: Path) -> None:
    """Raise OSError if a process is writing it. Several runs may save in one folder, and a save is not torn."""
    if open_for_writing([os.path.realpath(path)], own_processes()):
        raise OSError(errno.ETXTBSY, "a process is writing it", str(path))


def _fault_now(path: str, plan: Plan) -> str | None:
    """Check again: it may have been finished since, or be gone. Raises OSError."""
    try:
        file = measure(Path(path))
    except FileNotFoundError:
        return None
    return fault_of(file, plan.needs) if isinstance(file, CheckpointFile) else file
