"""Tells which folders a run may save checkpoints in: its own, and those the user named."""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

MAX_PATH_BYTES = 4096
MAX_ROOTS = 64
MAX_ENTRIES = 500

# A root here would make every file of the machine or of the user a possible checkpoint.
_TOO_BROAD = frozenset(
    ("/", "/dev", "/dev/shm", "/home", "/media", "/mnt", "/opt", "/run", "/srv", "/tmp", "/var", "/var/tmp")
)
_NOT_FOR_DATA = tuple(
    Path(folder)
    for folder in ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
)


def roots_for(
    cwd: Path, argv: Sequence[str], resume_from: Path | None, extra: Sequence[Path]
) -> tuple[Path, ...]:
    """Return the folders a run may save checkpoints in, without links.

    `cwd` counts whatever it is, but for /: people do start runs in their home folder or in /tmp. `argv` is the whole
    command line. Each argument, or its value after "=", that leads out of `cwd` counts: an absolute path, `../out`, or
    a link in `cwd` to another disk; not a program. Of a file its folder counts. Where that is too broad (the home
    folder, /tmp, /), the file alone counts. System folders never do.
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
        if root is not None and len(roots) < MAX_ROOTS and not any(is_inside(root, each) for each in roots):
            roots.append(root)
    return tuple(roots)


def linked_folders(cwd: Path) -> list[Path]:
    """Return the folders that links of the user's, in `cwd` or one folder below it, lead to: bigger disks."""
    found: list[Path] = []
    for folder in (cwd, *_entries(cwd)):
        for path in _entries(folder) if folder.is_dir() and not folder.is_symlink() else ():
            if path.is_symlink() and path.lstat().st_uid == os.geteuid() and path.is_dir():
                found.append(path)
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path) for entry in islice(entries, MAX_ENTRIES) if not entry.name.startswith(".")
            ]
    except OSError:
        return []


def is_inside(path: Path, root: Path) -> bool:
    """Return whether `path` is `root` or below it. Both without links."""
    return path == root or root in path.parents


def _could_be_path(text: str, cwd: Path) -> bool:
    """Return False for an address, and for a program: the interpreter's own folder holds no checkpoints."""
    if "://" in text or len(text) > MAX_PATH_BYTES:
        return False
    try:
        return not (os.access(cwd / text, os.X_OK) and (cwd / text).is_file())
    except (OSError, ValueError):  # too long a name, a NUL, half a character
        return False


def _as_root(candidate: Path) -> Path | None:
    """Return the folder to accept, without links; None for one that is too broad or the system's."""
    try:
        path = Path(os.path.realpath(candidate))
        if path.is_file() or (path.suffix and not path.is_dir()):
            path = path if too_broad(path.parent) else path.parent
    except (OSError, ValueError):
        return None
    return None if too_broad(path) else path


def too_broad(path: Path) -> bool:
    """Return whether this folder (without links) is the system's, or so broad that it says nothing about a run."""
    home = Path(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111 - Path.home() raises without one
    return (
        str(path) in _TOO_BROAD
        or is_inside(home, path)
        or any(is_inside(path, each) for each in _NOT_FOR_DATA)
    )
