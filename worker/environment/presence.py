"""Looks whether what a run needs is there: its directory, its program, its script, the disk of its checkpoints.

A path that is not there may come back: a disk is not mounted yet, an environment is being rebuilt. So its absence says
nothing about the run, and the run waits. Only a file that is gone alone, from a folder that is there, counts as
removed. Where the folder is a mount point, the mounts that the run was seen to use tell (`runs/ID/mounts.json`): an
unmounted one is an empty folder.

Every look at such a path goes through `trouble_with`.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import NOT_THERE, read_if_there
from backprop.scheduler.home.mounts import mounts
from backprop.scheduler.home.run_folder import write_synced
from backprop.scheduler.spec import RunSpec
from backprop.worker.environment.snapshot_paths import snapshot_command

PROGRAM: Final = "its program"
MISSING: Final = "is not there"
UNMOUNTED: Final = "is not mounted"
SILENT: Final = "does not answer"
NOT_ON_PATH: Final = "is not on its PATH"
MOUNTS: Final = "mounts.json"
HEAD_BYTES: Final = 256
"""What the kernel reads of a program to find its interpreter."""


Look = Callable[[str, str], "Absence | None"]


@dataclass(frozen=True)
class Absence:
    """What a run waits for. `what`: what the path is to the run. `trouble`: what is wrong with it, in words. `folders`:
    where a program is looked for by its name, which `path` is then. `alone`: the folder above what the run needs is
    there."""

    what: str
    path: str
    trouble: str
    folders: tuple[str, ...] = ()
    alone: bool = field(default=False, compare=False)

    @property
    def lasts(self) -> bool:
        """Whether it is still so."""
        if self.folders:
            return not _is_in(self.folders, self.path)
        if self.trouble == UNMOUNTED:
            return not _is_mounted(self.path, mounted())
        return trouble_with(self.path) is not None

    def sentence(self) -> str:
        """Say it with what to do, for the reason of the run."""
        cures = {
            UNMOUNTED: "mount it",
            MISSING: "put it back or mount it",
            NOT_ON_PATH: "put it back",
            SILENT: "see to its server",
        }
        cure = cures.get(self.trouble, "make it readable")
        return f"waits for {self.what}: {self.path} {self.trouble}; {cure}, and the run starts by itself"


class _MountsFile(msgspec.Struct, frozen=True):
    mounts: tuple[str, ...]


def trouble_with(path: str) -> str | None:
    """Return why `path` cannot be used now, as words that follow its name; None when it is there."""
    try:
        os.stat(path)  # noqa: PTH116 - `Path.exists` takes errors for an absence
    except NOT_THERE:
        return MISSING
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    return None


def missing(what: str, path: str) -> Absence | None:
    """Return the uppermost part of `path` that is not there; None when all of it is."""
    trouble = trouble_with(path)
    if trouble is None:
        return None
    top, above = path, os.path.dirname(path)  # noqa: PTH120 - of text, as are the records
    while above != top and (worse := trouble_with(above)) is not None:
        top, trouble, above = above, worse, os.path.dirname(above)  # noqa: PTH120
    return Absence(what, top, trouble, alone=top == path)


def missing_part(what: str, path: str) -> Absence | None:
    """As `missing`; of a program the interpreter too."""
    found = missing(what, path)
    return missing_interpreter(path) if found is None and what == PROGRAM else found


def missing_for_start(spec: RunSpec, look: Look) -> Absence | None:
    """Return what a run cannot be started without and is not there: its directory, program or script. `look`: as
    `missing_part`, or a memory of it."""
    wanted = [("its directory", spec.cwd), (PROGRAM, spec.program)]
    wanted += [("its script", spec.script)] if spec.script not in (None, spec.program) else []
    for what, path in wanted:
        found = look(what, path)
        if found is not None and not is_copied(spec, path):
            return found
    return None


def removed_for_start(spec: RunSpec, noted: Collection[str]) -> Absence | None:
    """Return the file that a run cannot be started without and that was removed: it is gone alone. A directory may be
    a disk that is away. `noted`: the mounts that the run has used."""
    found = missing_for_start(spec, missing_part)
    if found is None or not found.alone or found.trouble != MISSING or found.path == spec.cwd:
        return None
    return found if unmounted(found.path, noted) is None else None


def missing_interpreter(program: str) -> Absence | None:
    """Return the interpreter that a program's first line names, if that is not there."""
    words = _first_line(program)
    return missing(PROGRAM, words[0]) if words and words[0].startswith("/") else None


def missing_named_interpreter(program: str, environment: Mapping[str, str]) -> Absence | None:
    """Return the interpreter that `env` in a program's first line would look for in vain. `environment`: the run's."""
    words = _first_line(program)
    if not words or os.path.basename(words[0]) != "env":  # noqa: PTH119 - of text
        return None
    rest = words[2:] if words[1:2] == ["-S"] else words[1:]
    if not rest or rest[0].startswith("-") or "=" in rest[0] or os.sep in rest[0]:
        return None
    folders = tuple(environment.get("PATH", os.defpath).split(os.pathsep))
    # A folder that is relative, or empty, is below the run's directory: that is for `env` to find out.
    if not all(folder.startswith("/") for folder in folders) or _is_in(folders, rest[0]):
        return None
    return Absence(PROGRAM, rest[0], NOT_ON_PATH, folders)


def _is_in(folders: Iterable[str], name: str) -> bool:
    return any(os.access(f"{folder}/{name}", os.X_OK) for folder in folders)


def _first_line(program: str) -> list[str]:
    """Return the words of a program's first line, if that names an interpreter."""
    try:
        handle = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        head = os.read(handle, HEAD_BYTES)
    except OSError:
        return []
    finally:
        os.close(handle)
    return os.fsdecode(head[2:].partition(b"\n")[0]).split() if head.startswith(b"#!") else []


def checkpoint_away(path: str, noted: Collection[str] = (), beside: Iterable[str] = ()) -> Absence | None:
    """Return what a run has to wait for before anything can be said of a checkpoint; None for one that is there, or
    gone alone.

    `noted`: the mounts that the run has used. `beside`: its other checkpoints. Where each has a folder of its own, and
    another one of them is there, the folder was removed with its checkpoint.
    """
    found = missing("its checkpoint", path)
    if found is None:
        return None
    if (mount := unmounted(path, noted)) is not None:
        return Absence("its disk", mount, UNMOUNTED)
    if found.trouble != MISSING:
        return found
    if found.path == path:
        return None
    folder, depth = os.path.dirname(found.path), path.count(os.sep)  # noqa: PTH120
    siblings = (other for other in beside if other.count(os.sep) == depth and _is_below(other, folder))
    return None if any(trouble_with(other) is None for other in siblings) else found


def empty_mount_point(folder: str, noted: Collection[str]) -> Absence | None:
    """Return the disk that a folder was on, if it is away and has left an empty folder."""
    mount = unmounted(folder, noted)
    if mount is None:
        return None
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        if next(entries, None) is not None:
            return None
    return Absence("its disk", mount, UNMOUNTED)


def mounted() -> frozenset[str] | None:
    """Return the mount points of this process; None when they cannot be read."""
    try:
        return frozenset(mount.folder for mount in mounts())
    except OSError:
        return None


def unmounted(path: str, noted: Collection[str]) -> str | None:
    """Return the mount that `path` was on if it is not mounted now; None where that is not known."""
    above = [mount for mount in noted if _is_below(path, mount)]
    if not above:
        return None
    mount = max(above, key=len)
    return None if _is_mounted(mount, mounted()) else mount


def noted_mounts(folder: Path) -> tuple[str, ...]:
    """Return the mounts that a run has been seen to use, but for the root. `folder`: the run's. Raises nothing."""
    try:
        content = read_if_there(folder / MOUNTS)
        return msgspec.json.decode(content, type=_MountsFile).mounts if content is not None else ()
    except (OSError, msgspec.DecodeError):
        return ()


def note_mounts(folder: Path, paths: Iterable[str]) -> None:
    """Note the mounts of paths that are there now. Raises nothing: without the note a run is only held for less."""
    table = mounted()
    if table is None:
        return
    found = {_mount_of(os.path.realpath(path), table) for path in paths} - {"/", ""}
    known = noted_mounts(folder) if found else ()
    if found <= set(known):
        return
    draft = folder / f"{MOUNTS}.tmp"
    with contextlib.suppress(OSError, UnicodeEncodeError):
        write_synced(draft, (msgspec.json.encode(_MountsFile(tuple(sorted({*known, *found})))),))
        draft.replace(folder / MOUNTS)


def is_copied(spec: RunSpec, path: str) -> bool:
    """Return whether the run's code snapshot has a copy of its program or script, so that the original may go."""
    if spec.code is None or path == spec.cwd:
        return False
    try:
        code = snapshot_command(spec, {}).spec
    except OSError:
        return False
    copy = code.program if path == spec.program else code.script
    return copy is not None and copy != path and trouble_with(copy) is None


def _mount_of(path: str, table: Collection[str]) -> str:
    return max((mount for mount in table if _is_below(path, mount)), key=len, default="")


def _is_mounted(mount: str, table: Collection[str] | None) -> bool:
    """A table that cannot be read says nothing."""
    return table is None or mount in table


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
