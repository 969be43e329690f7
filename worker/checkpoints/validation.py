"""Validates checkpoints: a path that a script announces, then, and a checkpoint on record, before it is used.

An announced path must be inside the run's roots after every link is followed, owned by the user, not empty, and saved
during the segment that announces it. At a resume the checkpoint must still be there, and whole as far as `formats` can
tell. Nothing here writes.

Out of descriptors or memory nothing can be said of a file: that is raised, never taken for a fault of the file.
"""

import errno
import fnmatch
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from backprop.scheduler.records import CheckpointRecord
from backprop.worker.checkpoints.formats import files_in, looks_torn, looks_whole
from backprop.worker.checkpoints.roots import MAX_PATH_BYTES, is_inside
from backprop.worker.checkpoints.seen.baseline import Beginning

OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class CheckpointFile(msgspec.Struct, frozen=True):
    """How a checkpoint on disk looked at some time. `path`: absolute, without links.

    For a directory, `size_bytes` is the sum and `mtime_ns` the newest of its regular files.
    """

    path: Path
    size_bytes: int
    mtime_ns: int
    is_dir: bool

    @classmethod
    def of(cls, record: CheckpointRecord) -> "CheckpointFile":
        """Return how the checkpoint looked when `record` was made."""
        return cls(Path(record.path), record.size_bytes, record.mtime_ns, record.is_dir)


class Rejected(msgspec.Struct, frozen=True):
    """Why an announced path was not accepted, in words for the run's log."""

    why: str


def validate_announced(
    path: str, cwd: Path, roots: Sequence[Path], began: Beginning | None, said: bool = True
) -> CheckpointFile | Rejected:
    """Check an announced `path` (relative to `cwd`) against `roots`, from `roots_for`.

    `began`: the segment's beginning; None for a file that may be of any age. `said`: the segment has said that it saved
    it. Raises OSError when out of resources.
    """
    if "\0" in path or not 0 < len(path.encode(errors="surrogatepass")) <= MAX_PATH_BYTES:
        return Rejected("not a path: empty, too long, or with a NUL")
    try:
        resolved = Path(os.path.realpath(cwd / path, strict=True))
        str(resolved).encode()  # a link may lead to a name that the database could not hold
        if not any(is_inside(resolved, root) for root in roots):
            return Rejected(
                f"{resolved} is outside the run's folders ({', '.join(map(str, roots)) or 'none'}); "
                "to allow it, add its folder to checkpointRoots in config.json"
            )
        file = measure(resolved)
        is_old = began is not None and not isinstance(file, str) and began.is_all_old(str(resolved), said)
    except OSError as error:
        if error.errno in OUT_OF_RESOURCES:
            raise
        return Rejected(f"{path}: {error.strerror or error}")
    except ValueError:
        return Rejected("a name in its path is not UTF-8")
    if isinstance(file, str):
        return Rejected(f"{resolved}: {file}")
    if is_old:
        return Rejected(f"{resolved}: last written before this segment started, so it holds no new work")
    return file


def still_good(file: CheckpointFile, needs: Sequence[str] = ()) -> str | None:
    """Return None if a segment may resume from it now, else why not. Raises OSError when out of resources.

    `needs`: patterns of files that a directory must hold. One without a size was announced while its disk was away,
    and has not been measured. A change since it was announced is no fault by itself: a
    script may have replaced its file and been killed before it announced it. A changed checkpoint must look whole; an
    unchanged one must only not be torn, as a power cut leaves it.
    """
    try:
        if os.path.realpath(file.path, strict=True) != str(file.path):
            return "its path leads through a link now"
        now = measure(file.path)
        if isinstance(now, str):
            return now
        if now.is_dir != file.is_dir and file.size_bytes:
            return "a directory now, a file before" if now.is_dir else "a file now, a directory before"
        if missing := lacks(now, needs):
            return missing
        return looks_torn(file.path) if now == file else looks_whole(file.path)
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        if error.errno in OUT_OF_RESOURCES:
            raise
        return error.strerror or str(error)
    except ValueError:
        return "a name in its path is not UTF-8"


def newest_good(
    saved: Sequence[CheckpointRecord], needs: Sequence[str] = ()
) -> tuple[CheckpointRecord | None, list[tuple[CheckpointRecord, str]]]:
    """Return the first of `saved` that is still good, and those before it, each with why it is not.

    `saved`: the last announced first. Not by the files' times: where the wall clock was set back, what was saved last
    looks oldest. Raises OSError when out of resources.
    """
    broken: list[tuple[CheckpointRecord, str]] = []
    for record in saved:
        why = still_good(CheckpointFile.of(record), needs)
        if why is None:
            return record, broken
        broken.append((record, why))
    return None, broken


def lacks(file: CheckpointFile, needs: Sequence[str]) -> str | None:
    """Return which of `needs` a checkpoint directory lacks, in words; None for a file, or when all are there.

    Raises OSError.
    """
    if not file.is_dir or not needs:
        return None
    names = [os.path.relpath(entry.path, file.path) for entry in files_in(str(file.path))]
    missing = [need for need in needs if not fnmatch.filter(names, need)]
    return f"without {' and '.join(missing)}" if missing else None


def measure(path: Path) -> CheckpointFile | str:
    """Return how a file or directory looks now, or why it cannot be a checkpoint. Follows no link. Raises OSError."""
    info = path.lstat()
    if info.st_uid != os.geteuid():
        return f"owned by uid {info.st_uid}, not by you"
    if stat.S_ISREG(info.st_mode):
        return (
            CheckpointFile(path, info.st_size, info.st_mtime_ns, is_dir=False)
            if info.st_size
            else "it is empty"
        )
    if not stat.S_ISDIR(info.st_mode):
        return "neither a file nor a directory"
    files = [entry.stat(follow_symlinks=False) for entry in files_in(str(path))]
    size_bytes = sum(each.st_size for each in files)
    newest_ns = max((each.st_mtime_ns for each in files), default=0)
    return (
        CheckpointFile(path, size_bytes, newest_ns, is_dir=True)
        if size_bytes
        else "a directory without any data"
    )
