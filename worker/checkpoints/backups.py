"""Backs up checkpoints that their trainer overwrites in place, lists the backups and prunes them.

    runs/<id>/kept/<segment>-<n>/    source.json, and copy/ with the copy under its own name

The folder alone says what there is; the database does not know of it. The newest two good copies of each checkpoint
stay. Nothing here touches the database, so that it may run in a thread; and no file of the user's is ever deleted.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import read_regular
from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints import copying
from backprop.worker.checkpoints.formats import looks_whole
from backprop.worker.checkpoints.validation import CheckpointFile, measure
from backprop.worker.supervisor import process_tree

BACKUPS_EACH: Final = 2
DRAFT_CAP_S: Final = 3600.0


class Backup(msgspec.Struct, frozen=True):
    """One copy of a checkpoint. `number`: its ordinal within its segment, from 1. `source`: the original as it was
    then, from `source.json`. `path`: of the copy itself."""

    number: int
    folder: Path
    source: CheckpointRecord

    @property
    def path(self) -> Path:
        return self.folder / "copy" / Path(self.source.path).name

    def holds(self, record: CheckpointRecord) -> bool:
        """Return whether it is a copy of this very content."""
        source = self.source
        return (source.path, source.size_bytes, source.mtime_ns) == (
            record.path,
            record.size_bytes,
            record.mtime_ns,
        )

    def record(self) -> CheckpointRecord:
        """Return the copy as a checkpoint of its run."""
        return msgspec.structs.replace(self.source, path=str(self.path))


class BackupRefused(msgspec.Struct, frozen=True):
    """Why no backup was made. `retry`: the original changed meanwhile, so that the next scan reports it again."""

    why: str
    retry: bool = False


def backups_of(run_folder: Path) -> list[Backup]:
    """Return the backups of a run, newest first. Raises nothing: one that cannot be read is left out."""
    backups: list[Backup] = []
    with contextlib.suppress(OSError):
        for folder in (run_folder / "kept").iterdir():
            segment, _, number = folder.name.partition("-")
            if segment.isdecimal() and number.isdecimal() and (source := _source(folder)) is not None:
                backups.append(Backup(int(number), folder, source))
    return sorted(backups, key=lambda backup: (backup.source.segment, backup.number), reverse=True)


def back_up(
    run_folder: Path, record: CheckpointRecord, floor_mib: int, stopped: Callable[[], bool]
) -> Backup | BackupRefused:
    """Back up a complete checkpoint, and prune its oldest backups. Returns why not, rather than raising.

    `floor_mib`: what must be left free on disk. `stopped`: asked between two pieces; True gives up.
    """
    original, home = Path(record.path), run_folder / "kept"
    expected = CheckpointFile.of(record)
    draft = home / f".draft-{_namespace()}-{os.getpid()}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        _clear_drafts(home)
        draft.mkdir(mode=0o700)
        (draft / "copy").mkdir(mode=0o700)
        copy = draft / "copy" / original.name
        if measure(original) != expected:
            return BackupRefused(f"{original} has changed since", retry=True)
        copying.copy(original, copy, floor_mib, stopped)
        # Before and after the same, and whole: what was written in between shows in one of them.
        if measure(original) != expected:
            return BackupRefused(f"{original} changed while it was copied", retry=True)
        if (why := _fault(copy, record.size_bytes)) is not None:
            return BackupRefused(f"the copy of {original} is not whole: {why}", retry=True)
        backup = _publish(home, draft, record)
    except OSError as error:
        return BackupRefused(f"{original}: {error.strerror or error}")
    finally:
        copying.remove(draft)
    prune(run_folder, record.path)
    return backup


def prune(run_folder: Path, path: str) -> None:
    """Delete all but the newest good backups of the checkpoint at `path`. Raises nothing."""
    good = 0
    for backup in backups_of(run_folder):
        if backup.source.path != path:
            continue
        if good >= BACKUPS_EACH:
            copying.remove(backup.folder)
        good += _is_good(backup)


def drop(run_folder: Path) -> None:
    """Delete the backups of a completed run whose original is whole."""
    for backup in backups_of(run_folder):
        with contextlib.suppress(OSError):
            if looks_whole(Path(backup.source.path)) is None:
                copying.remove(backup.folder)


def _fault(copy: Path, size_bytes: int) -> str | None:
    """Return why a copy differs from an original of this size, or is not whole; None for a good one. Raises OSError."""
    file = measure(copy)
    if isinstance(file, str):
        return file
    if file.size_bytes != size_bytes:
        return f"{file.size_bytes} bytes instead of {size_bytes}"
    return looks_whole(copy)


def _publish(home: Path, draft: Path, record: CheckpointRecord) -> Backup:
    """Give a finished draft the next free number of its segment. Raises OSError."""
    handle = os.open(draft / "source.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:  # noqa: PTH123
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(handle)
    copying.sync_folder(draft / "copy")
    copying.sync_folder(draft)
    numbers = [each.number for each in backups_of(home.parent) if each.source.segment == record.segment]
    number = max(numbers, default=0) + 1
    folder = home / f"{record.segment}-{number}"
    draft.rename(folder)
    copying.sync_folder(home)
    return Backup(number, folder, record)


def _source(folder: Path) -> CheckpointRecord | None:
    try:
        return msgspec.json.decode(read_regular(folder / "source.json"), type=CheckpointRecord)
    except (OSError, msgspec.DecodeError):
        return None


def _is_good(backup: Backup) -> bool:
    try:
        return _fault(backup.path, backup.source.size_bytes) is None
    except OSError:
        return False


def _clear_drafts(home: Path) -> None:
    """Delete the drafts of workers that died halfway. Their pids may be reused by now; no copy takes an hour."""
    for draft in home.glob(".draft-*"):
        with contextlib.suppress(OSError):
            _, _, rest = draft.name.partition(".draft-")
            namespace, _, number = rest.rpartition("-")
            # In another container a pid means another process. 0.1.0 names none.
            is_dead = namespace in ("", _namespace()) and (
                int(number) == os.getpid() or not _alive(int(number))
            )
            if is_dead or time.time() - draft.stat().st_mtime > DRAFT_CAP_S:
                copying.remove(draft)


def _namespace() -> str:
    return "".join(filter(str.isdecimal, process_tree.pid_namespace() or "0"))


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
