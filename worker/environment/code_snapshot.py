"""Copies a run's code when the run is queued (`--snapshot-code`).

    runs/ID/code/       the copy, laid out as the original
    runs/ID/code.json   where the original is

With git, the code is every file that git tracks or would track, as it stands in the working tree. Without, it is what
has the suffix of a source file. Everything else beside it (data, outputs, ignored files) is linked, so that a script
finds it beside its own file. `snapshot_paths` makes a segment use the copy.
"""

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.home.file_reading import open_regular
from backprop.scheduler.home.run_folder import write_synced
from backprop.scheduler.spec import RunSpec
from backprop.worker.environment import git_command, git_listing
from backprop.worker.environment.installed_packages import editable_inside
from backprop.worker.environment.source_suffixes import SOURCE_SUFFIXES
from backprop.worker.supervisor import failpoint

MAX_FILES: Final = 10_000
MAX_BYTES: Final = 256 * 1000 * 1000
MAX_NAMES: Final = 200_000
"""Names that are read at most where git does not list the code."""
MAX_LINKS: Final = 10_000
EXCLUDED: Final = frozenset((".git", "__pycache__"))
FICLONE: Final = 0x40049409
"""ioctl of linux/fs.h: share the blocks until one of the two files is written to (Btrfs, XFS, bcachefs, ZFS)."""


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to a run's code. `root`: absolute. `files`: relative to it, links among them. `listed_by`: "git" or
    "suffix"."""

    root: Path
    files: tuple[str, ...]
    listed_by: str
    size_bytes: int


def find(spec: RunSpec, home: Path) -> Code:
    """Find the code of a run that is about to be queued. `home`: Backprop's, never part of it.

    Raises BadCommand when there is none, or so much that it is not only code.
    """
    cwd = Path(spec.cwd)
    base = Path(spec.script).parent if spec.script else cwd
    top = git_command.top_of(base)
    root = _folder_of(base, cwd) if top is None or git_command.too_broad(top) else top
    listed = git_listing.tracked(root) if top is not None else _sources(root, home)
    files, size_bytes = _measured(root, sorted(listed), home, top is not None)
    if not files:
        raise BadCommand(f"--snapshot-code found no code in {root}; queue the run without it")
    return Code(
        root=root, files=files, listed_by="git" if top is not None else "suffix", size_bytes=size_bytes
    )


def take(code: Code, folder: Path) -> Path:
    """Copy the code into an existing folder, a run's or one that several share; return the path for `RunSpec.code`.

    The copy is on disk on return, since a queued run survives a power cut. Files that vanish meanwhile are left out.
    Raises OSError.
    """
    target = folder / "code"
    target.mkdir(mode=0o700)
    folders = {"", *(str(parent) for name in code.files for parent in Path(name).parents)} - {"."}
    for name in sorted(folders):
        (target / name).mkdir(mode=0o700, exist_ok=True)
    for name in code.files:
        _copy(code.root, target, name)
    failpoint.at("code copied")
    _link_the_rest(code, target, sorted(folders))
    described = {"format": 1, "root": str(code.root), "told_by": code.listed_by, "files": len(code.files)}
    write_synced(folder / "code.json", (json.dumps(described).encode(),), synced=False)
    _sync(folder)
    return target


def warnings(code: Code, spec: RunSpec, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the snapshot does not freeze, as far as that is cheap to find out; one line each."""
    lines: list[str] = []
    script, root = spec.script, code.root
    copied = {str(root / name) for name in code.files}
    if script is not None and copied.isdisjoint((script, os.path.realpath(script))):
        lines.append(f"{script} is not part of the snapshot of {root}: it runs as it is then")
    if script is not None and script.endswith((".sh", ".bash")):
        lines.append(
            f"{Path(script).name} reaches the snapshot's files by $BACKPROP_CODE; other paths in it are live"
        )
    if live := ", ".join(sorted(editable_inside(root, spec.program, environment))):
        lines.append(f"{live} is installed in editable mode from {root}: what is imported through it is live")
    return tuple(lines)


def _sources(root: Path, home: Path) -> set[str]:
    """Return the files below `root` that are source by their suffix, without hidden files and virtual environments.

    Raises BadCommand when there are too many names to read.
    """
    files: set[str] = set()
    count = 0
    for path, folders, names in os.walk(root):
        parent = Path(path)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in EXCLUDED
            and parent / name != home
            and not (parent / name / "pyvenv.cfg").exists()
        ]
        count += len(names) + len(folders)
        if count > MAX_NAMES:
            raise BadCommand(
                f"--snapshot-code gave up in {root}: more than {MAX_NAMES} files; keep the code in a folder of its own,"
                " make it a git repository with the data in .gitignore, or queue without it"
            )
        files |= {
            str((parent / name).relative_to(root))
            for name in names
            if Path(name).suffix.lower() in SOURCE_SUFFIXES and not name.startswith(".")
        }
    return files


def _folder_of(base: Path, cwd: Path) -> Path:
    """Return the root without git: the directory the run is started in, if it holds the script and is not a home
    directory; else the script's own."""
    return cwd if base.is_relative_to(cwd) and not git_command.too_broad(cwd) else base


def _measured(root: Path, listed: Sequence[str], home: Path, by_git: bool) -> tuple[tuple[str, ...], int]:
    """Return those of the listed files that exist and are to be copied, and their size in bytes. Raises BadCommand
    beyond the limits."""
    environments = {str(Path(name).parent) + "/" for name in listed if Path(name).name == "pyvenv.cfg"}
    sizes: dict[str, int] = {}
    for name in listed:
        path = root / name
        if any(name.startswith(folder) for folder in environments) or path.is_relative_to(home):
            continue
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # tracked, and deleted from the working tree
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            sizes[name] = status.st_size
    total = sum(sizes.values())
    if len(sizes) > MAX_FILES or total > MAX_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        how = "put data and outputs into .gitignore" if by_git else "keep data out of this folder, or use git"
        raise BadCommand(
            f"--snapshot-code would copy {len(sizes)} files of {total / 1e6:.0f} MB from {root}, more than"
            f" {MAX_FILES} or {MAX_BYTES / 1e6:.0f} MB; the largest is {largest} ({sizes[largest] / 1e6:.1f} MB);"
            f" {how}, or queue without it"
        )
    return tuple(sizes), total


def _copy(root: Path, target: Path, name: str) -> None:
    source, copy = root / name, target / name
    try:
        if source.is_symlink():
            _copy_link(root, source, copy)
        else:
            _copy_file(source, copy)
    except FileNotFoundError:
        copy.unlink(missing_ok=True)


def _copy_link(root: Path, link: Path, copy: Path) -> None:
    """Copy a link. One that leads into the code leads to the same path in the copy, any other to its target."""
    target = Path(os.path.normpath(link.parent / link.readlink()))
    inside = target.is_relative_to(root)
    copy.symlink_to(os.path.relpath(target, link.parent) if inside else target)


def _copy_file(source: Path, copy: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(open_regular(source), "rb") as old, os.fdopen(os.open(copy, flags, 0o600), "wb") as new:
        try:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new)
        status = os.fstat(old.fileno())
        # Owner's rights only: it lies in the home. Writable, since scripts copy their config with its mode.
        os.fchmod(new.fileno(), 0o600 | (status.st_mode & 0o100))
        os.utime(new.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


def _link_the_rest(code: Code, target: Path, folders: Iterable[str]) -> None:
    """Link whatever else lies in a copied folder to its original, up to MAX_LINKS."""
    copied, made = {*code.files, *folders}, 0
    for folder in folders:
        try:
            names = sorted(path.name for path in (code.root / folder).iterdir())
        except OSError:
            continue
        for name in names:
            inside = f"{folder}/{name}" if folder else name
            if inside in copied or name in EXCLUDED or target.is_relative_to(code.root / inside):
                continue
            (target / inside).symlink_to(code.root / inside)
            made += 1
            if made == MAX_LINKS:
                return


def _sync(folder: Path) -> None:
    """Write the copy to disk with one syncfs: an fsync per file would take seconds. Raises OSError."""
    import ctypes

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)
