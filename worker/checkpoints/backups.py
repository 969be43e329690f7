"""Copies of checkpoints that their trainer overwrites in place: made, found again, put back, thrown away.

    runs/<id>/kept/<segment>-<n>/    source.json, and copy/ with the copy under its own name

The folder alone says what there is; the database holds no word of it. The newest two good copies of each checkpoint
stay. Nothing here touches the database, so that it may run in a thread; and no file of the user's is ever deleted.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints import copying
from backprop.worker.checkpoints.formats import looks_whole
from backprop.worker.checkpoints.glob_walk import matches
from backprop.worker.checkpoints.open_files import open_for_writing, own_processes
from backprop.worker.checkpoints.validation import CheckpointFile, measure

KEPT_EACH: Final = 2
TRIES: Final = 100
DRAFT_CAP_S: Final = 3600.0


@dataclass(frozen=True)
class Backup:
    """One copy. `number`: the how many-th of its segment. `source`: what it is a copy of, as that was then, from
    `source.json`. `path`: of the copy itself."""

    number: int
    folder: Path
    source: CheckpointRecord

    @property
    def path(self) -> Path:
        return self.folder / "copy" / Path(self.source.path).name

    def is_of(self, record: CheckpointRecord) -> bool:
        """Whether it holds this very content."""
        source = self.source
        return (source.path, source.size_bytes, source.mtime_ns) == (
            record.path,
            record.size_bytes,
            record.mtime_ns,
        )

    def record(self) -> CheckpointRecord:
        """The copy as a checkpoint of its run."""
        return msgspec.structs.replace(self.source, path=str(self.path))


@dataclass(frozen=True)
class BackupRefused:
    """Why no copy was made. `again`: the source changed meanwhile; the next look sees to it."""

    why: str
    again: bool = False


def copies(run_folder: Path) -> list[Backup]:
    """What is kept of a run, newest first. Raises nothing: what cannot be read is not there."""
    found: list[Backup] = []
    with contextlib.suppress(OSError):
        for folder in (run_folder / "kept").iterdir():
            segment, _, number = folder.name.partition("-")
            if segment.isdecimal() and number.isdecimal() and (source := _source(folder)) is not None:
                found.append(Backup(int(number), folder, source))
    return sorted(found, key=lambda kept: (kept.source.segment, kept.number), reverse=True)


def back_up(
    run_folder: Path, record: CheckpointRecord, floor_mib: int, stopped: Callable[[], bool]
) -> Backup | BackupRefused:
    """Copy a complete checkpoint aside, and forget the oldest copies of it. Returns why not, rather than raising."""
    original, home = Path(record.path), run_folder / "kept"
    known = CheckpointFile(original, record.size_bytes, record.mtime_ns, record.is_dir)
    draft = home / f".draft-{os.getpid()}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        _clear_drafts(home)
        (draft / "copy").mkdir(mode=0o700, parents=True)
        copy = draft / "copy" / original.name
        if measure(original) != known:
            return BackupRefused(f"{original} has changed since", again=True)
        copying.copy(original, copy, floor_mib, stopped)
        # Before and after the same, and whole: what was written in between shows in one of them.
        if measure(original) != known:
            return BackupRefused(f"{original} changed while it was copied", again=True)
        if (why := _not_same(copy, known)) is not None:
            return BackupRefused(f"the copy of {original} is not whole: {why}", again=True)
        kept = _name(home, draft, record)
    except OSError as error:
        return BackupRefused(f"{original}: {error.strerror or error}")
    finally:
        copying.remove(draft)
    prune(run_folder, record.path)
    return kept


def prune(run_folder: Path, path: str) -> None:
    """Throw away all but the newest good copies of one checkpoint. Raises nothing."""
    good = 0
    for kept in copies(run_folder):
        if kept.source.path != path:
            continue
        if good >= KEPT_EACH:
            copying.remove(kept.folder)
        good += _is_good(kept)


def drop(run_folder: Path) -> None:
    """The run is completed: a copy whose original is whole is of no more use."""
    for kept in copies(run_folder):
        with contextlib.suppress(OSError):
            if looks_whole(Path(kept.source.path)) is None:
                copying.remove(kept.folder)


def put_back(kept: Backup, patterns: Sequence[str]) -> Path | None:
    """Put a copy where its original was, which is renamed, never deleted; its new name, None where there was none.

    Raises OSError; then the original is as it was, or under the new name.
    """
    target = Path(kept.source.path)
    _refuse_written(target)
    draft = target.with_name(f".{target.name}.backprop-draft")
    copying.remove(draft)
    try:
        copying.copy(kept.path, draft)
        aside = set_aside(target, patterns, kept.source.segment) if os.path.lexists(target) else None
        draft.rename(target)
    finally:
        copying.remove(draft)
    copying.sync_folder(target.parent)
    return aside


def set_aside(path: Path, patterns: Sequence[str], segment: int) -> Path:
    """Rename a broken checkpoint so that neither its trainer nor `patterns` find it again; its new name.

    A folder by what comes first: trainers look for checkpoint-120 by its beginning. A file by what comes last: they
    look for *.pt by its end. Where a pattern fits both, with a dot before it. Raises OSError.
    """
    _refuse_written(path)
    for attempt in range(TRIES):
        torn = f"torn-{segment}-{attempt}" if attempt else f"torn-{segment}"
        names = [f"{torn}-{path.name}", f"{path.name}.{torn}"]
        for name in (*(names if path.is_dir() else names[::-1]), f".{torn}-{path.name}"):
            aside = path.with_name(name)
            if not os.path.lexists(aside) and not any(matches(str(aside), one) for one in patterns):
                path.rename(aside)
                copying.sync_folder(path.parent)
                return aside
    raise OSError(errno.EEXIST, "no name is free to set it aside", str(path))


def _refuse_written(path: Path) -> None:
    """Several runs may save in one folder: what somebody is writing is not torn."""
    if open_for_writing([os.path.realpath(path)], own_processes()):
        raise OSError(errno.ETXTBSY, "a process is writing it", str(path))


def _not_same(copy: Path, known: CheckpointFile) -> str | None:
    found = measure(copy)
    if isinstance(found, str):
        return found
    if found.size_bytes != known.size_bytes:
        return f"{found.size_bytes} bytes instead of {known.size_bytes}"
    return looks_whole(copy)


def _name(home: Path, draft: Path, record: CheckpointRecord) -> Backup:
    """Give a finished draft the next free number of its segment. Raises OSError."""
    handle = os.open(draft / "source.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:  # noqa: PTH123
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(handle)
    copying.sync_folder(draft / "copy")
    copying.sync_folder(draft)
    mine = [one.number for one in copies(home.parent) if one.source.segment == record.segment]
    number = max(mine, default=0) + 1
    folder = home / f"{record.segment}-{number}"
    draft.rename(folder)
    copying.sync_folder(home)
    return Backup(number, folder, record)


def _source(folder: Path) -> CheckpointRecord | None:
    try:
        return msgspec.json.decode((folder / "source.json").read_bytes(), type=CheckpointRecord)
    except (OSError, msgspec.DecodeError):
        return None


def _is_good(kept: Backup) -> bool:
    try:
        return _not_same(kept.path, _known(kept)) is None
    except OSError:
        return False


def _known(kept: Backup) -> CheckpointFile:
    source = kept.source
    return CheckpointFile(kept.path, source.size_bytes, source.mtime_ns, source.is_dir)


def _clear_drafts(home: Path) -> None:
    """What workers that died halfway have left. A pid may belong to somebody else by now; no copy takes an hour."""
    for draft in home.glob(".draft-*"):
        with contextlib.suppress(OSError):
            pid = int(draft.name.rpartition("-")[2])
            if pid == os.getpid() or time.time() - draft.stat().st_mtime > DRAFT_CAP_S or not _alive(pid):
                copying.remove(draft)


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
