"""Which checkpoint a run can resume from. What a script announces is a claim: checked then, and before use.

Rules: inside the run's roots after every link is followed, ours, not empty, saved during the segment that
announces it; at resume, still there and whole as far as `wholeness.py` can tell. Nothing here writes.

Out of descriptors or memory nothing can be said of a file: that is raised, never taken for a fault of the file.
"""

import errno
import fnmatch
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from backprop.worker.checkpoints.formats import files_in, looks_torn
from backprop.worker.checkpoints.formats import looks_whole as looks_whole

MAX_PATH_BYTES = 4096
# File systems stamp from a coarse clock that lags by up to a tick; FAT and some network mounts keep 2 s.
CLOCK_GRAIN_S = 2.0
MAX_ROOTS = 64
CANNOT_LOOK = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# A root here would make every file of the machine or of the user a possible checkpoint.
_TOO_BROAD = frozenset(
    ("/", "/dev", "/dev/shm", "/home", "/media", "/mnt", "/opt", "/run", "/srv", "/tmp", "/var", "/var/tmp")
)
_NOT_FOR_DATA = tuple(
    Path(each)
    for each in ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
)


class CheckpointFile(msgspec.Struct, frozen=True):
    """A checkpoint that passed: absolute path without links, and how it looked then.

    For a directory, `size_bytes` is the sum and `mtime_ns` the newest of its regular files.
    """

    path: Path
    size_bytes: int
    mtime_ns: int
    is_dir: bool


class Rejected(msgspec.Struct, frozen=True):
    """Why a claim was not accepted, in words for the run's log."""

    why: str


def validate_announced(
    path: str, cwd: Path, roots: Sequence[Path], segment_started_s: float, now_s: float
) -> CheckpointFile | Rejected:
    """Check an announced `path` (relative to `cwd`) against `roots`, from `roots_for`.

    Times are wall-clock seconds. If the clock was set back during the segment, `now_s` is before its start
    and counts instead: nothing saved now can be newer than now. Raises OSError when it cannot look just now.
    """
    if "\0" in path or not 0 < len(path.encode(errors="surrogatepass")) <= MAX_PATH_BYTES:
        return Rejected("not a path: empty, too long, or with a NUL")
    try:
        resolved = Path(os.path.realpath(cwd / path, strict=True))
        str(resolved).encode()  # a link may lead to a name that the database could not hold
        if not any(_inside(resolved, root) for root in roots):
            return Rejected(
                f"{resolved} is outside the run's folders ({', '.join(map(str, roots)) or 'none'}); "
                "to allow it, add its folder to checkpointRoots in config.json"
            )
        found = measure(resolved)
    except OSError as error:
        if error.errno in CANNOT_LOOK:
            raise
        return Rejected(f"{path}: {error.strerror or error}")
    except ValueError:
        return Rejected("a name in its path is not UTF-8")
    if isinstance(found, str):
        return Rejected(f"{resolved}: {found}")
    if found.mtime_ns < (min(segment_started_s, now_s) - CLOCK_GRAIN_S) * 1e9:
        return Rejected(f"{resolved}: last written before this segment started, so it holds no new work")
    return found


def still_good(known: CheckpointFile, needs: Sequence[str] = ()) -> str | None:
    """None if a segment may resume from it now, else why not. Raises OSError when it cannot look just now. `needs`:
    patterns of files that a directory must hold.

    Changed since it was announced is no fault by itself: a script may have replaced its file and been killed
    before it said so. Then it must look whole; unchanged, it must only not be torn, as a power cut leaves it.
    """
    try:
        if os.path.realpath(known.path, strict=True) != str(known.path):
            return "its path leads through a link now"
        found = measure(known.path)
        if isinstance(found, str):
            return found
        if found.is_dir != known.is_dir:
            return "a directory now, a file before" if found.is_dir else "a file now, a directory before"
        if missing := lacks(found, needs):
            return missing
        return looks_torn(known.path) if found == known else looks_whole(known.path)
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        if error.errno in CANNOT_LOOK:
            raise
        return error.strerror or str(error)
    except ValueError:
        return "a name in its path is not UTF-8"


def newest_good(
    candidates: Sequence[CheckpointFile], needs: Sequence[str] = ()
) -> tuple[CheckpointFile | None, list[tuple[CheckpointFile, str]]]:
    """The first of `candidates`, the last announced first, that is still good, and each before it with why it is not.

    Not by the files' times: where the wall clock was set back, what was saved last looks oldest. Raises OSError.
    """
    rejected: list[tuple[CheckpointFile, str]] = []
    for known in candidates:
        why = still_good(known, needs)
        if why is None:
            return known, rejected
        rejected.append((known, why))
    return None, rejected


def lacks(known: CheckpointFile, needs: Sequence[str]) -> str | None:
    """Which of `needs` a checkpoint directory is without; None for a file, or when all are there. Raises OSError."""
    if not known.is_dir or not needs:
        return None
    names = [os.path.relpath(entry.path, known.path) for entry in files_in(str(known.path))]
    missing = [need for need in needs if not fnmatch.filter(names, need)]
    return f"without {' and '.join(missing)}" if missing else None


def roots_for(
    cwd: Path, argv: Sequence[str], resume_from: Path | None, extra: Sequence[Path]
) -> tuple[Path, ...]:
    """The folders a run may save checkpoints in: its own, and those the user named.

    Its own counts whatever it is, but for /: people do start runs in their home folder or in /tmp. `argv` is the
    whole command line. Each argument, or its value after "=", that leads out of `cwd` counts: an absolute path,
    `../out`, or a link in `cwd` to another disk; not a program. Of a file its folder counts, or, if that is too
    broad (the home folder, /tmp, /), the file alone. System folders never do.
    """
    named = [argument for text in argv for argument in (text, text.partition("=")[2]) if argument]
    candidates = [*extra]
    if resume_from is not None:
        candidates += [(cwd / resume_from).parent, cwd / resume_from]
    candidates += [cwd / text for text in named if _could_be_path(text, cwd)]
    own = Path(os.path.realpath(cwd))
    roots = [] if own == Path("/") else [own]
    for candidate in candidates:
        root = _as_root(candidate)
        if root is not None and len(roots) < MAX_ROOTS and not any(_inside(root, each) for each in roots):
            roots.append(root)
    return tuple(roots)


def _could_be_path(text: str, cwd: Path) -> bool:
    """Not an address, and not a program: the interpreter's own folder is no place for checkpoints."""
    if "://" in text or len(text) > MAX_PATH_BYTES:
        return False
    try:
        return not (os.access(cwd / text, os.X_OK) and (cwd / text).is_file())
    except (OSError, ValueError):  # too long a name, a NUL, half a character
        return False


def _as_root(candidate: Path) -> Path | None:
    """The folder to accept, without links; None for one that is too broad or the system's."""
    try:
        path = Path(os.path.realpath(candidate))
        if path.is_file() or (path.suffix and not path.is_dir()):
            path = path if _too_broad(path.parent) else path.parent
    except (OSError, ValueError):
        return None
    return None if _too_broad(path) or any(_inside(path, each) for each in _NOT_FOR_DATA) else path


def _too_broad(path: Path) -> bool:
    home = Path(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111 - Path.home() raises without one
    return str(path) in _TOO_BROAD or _inside(home, path)


def _inside(path: Path, root: Path) -> bool:
    return path == root or root in path.parents


def measure(path: Path) -> CheckpointFile | str:
    """How a file or directory looks now, or why it can be no checkpoint. Follows no link. Raises OSError."""
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
