"""Writes and reads the notes of what runs were queued with.

    runs/ID/provenance.json         the note of a run; provenance-after-N.json: of its resume after segment N
    runs/ID/code-DIGEST.patch       what was not as the commit has it
    batches/ID/provenance-K.json    the notes of runs that were queued together, one for each script and Python
    packages/DIGEST.json            a list of installed packages, kept once

All of it may be missing: a run is queued first, and its note is not waited for.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.run_folder import write_synced
from backprop.scheduler.spec import RunSpec
from backprop.worker.environment.provenance.records import (
    FORMAT,
    InstalledPackages,
    Provenance,
    PythonOfRun,
)

if TYPE_CHECKING:
    from backprop.worker.environment.provenance.code_state import CodeState

MOST_BYTES: Final = 4 << 20
"""Of a note that is read; none that is written comes near."""
_NOTE: Final = re.compile(r"provenance(?:-(?:after-)?(\d+))?\.json")
YOUNG_S: Final = 86400.0
"""Of a list of packages. It may be written, or found, before the note that names it; a younger one is not deleted."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What runs that are queued together have in common where they have one note. `start`: the first two words of the
    command."""

    start: tuple[str, ...]
    program: str
    cwd: str
    script: str | None

    @property
    def base(self) -> Path:
        """The folder that the code is looked for from."""
        return Path(self.script).parent if self.script is not None else Path(self.cwd)


class Noted(msgspec.Struct, frozen=True):
    """A note and where it was found. `after`: the segment after which the run was resumed with this code; 0 for that
    of its queueing."""

    provenance: Provenance
    folder: Path
    after: int = 0

    @property
    def patch(self) -> Path | None:
        return self.folder / self.provenance.patch if self.provenance.patch is not None else None


def kind_of(spec: RunSpec) -> Kind:
    """Return the kind of a run."""
    return Kind(start=spec.argv[:2], program=spec.program, cwd=spec.cwd, script=spec.script)


def name_of(after: int) -> str:
    """Return the name of a run's note."""
    return f"provenance-after-{after}.json" if after else "provenance.json"


def make(
    kind: Kind, state: "CodeState", environment: Mapping[str, str], home: Home
) -> tuple[Provenance, bytes]:
    """Return the note of a run of this kind with the packages that it has now, and the patch. Keeps the list of
    packages. Raises OSError."""
    name = f"code-{hashlib.sha256(state.patch).hexdigest()[:16]}.patch" if state.patch else None
    note = Provenance(
        at_s=state.at_s,
        cwd=kind.cwd,
        program=kind.program,
        script=kind.script,
        root=str(state.root),
        git=state.git,
        repositories=state.repositories,
        untracked=state.untracked,
        more=state.more,
        patch=name,
        trouble=state.trouble,
        python=_python(kind, environment, home),
    )
    return note, state.patch


def write(folder: Path, name: str, note: Provenance, patch: bytes) -> None:
    """Write a note into an existing folder, the patch first. Raises OSError."""
    if note.patch is not None:
        _replace(folder / note.patch, patch)
    _replace(folder / name, json.dumps(msgspec.to_builtins(note)).encode("ascii"))


def read(home: Home, run_id: str, batch: str | None, spec: RunSpec) -> Noted | None:
    """Return the newest note of a run, None where there is none that this program understands. Raises OSError."""
    own = home.run_folder(run_id)
    names = {name: int(match[1] or 0) for name in _names(own) if (match := _NOTE.fullmatch(name))}
    for name in sorted(names, key=names.__getitem__, reverse=True):
        if (note := _read(own / name)) is not None:
            return Noted(note, own, names[name])
    if batch is None:
        return None
    shared, kind = home.batch_folder(batch), kind_of(spec)
    for name in filter(_NOTE.fullmatch, sorted(_names(shared))):
        note = _read(shared / name)
        if note is not None and (note.cwd, note.program, note.script) == (
            kind.cwd,
            kind.program,
            kind.script,
        ):
            return Noted(note, shared)
    return None


def read_packages(home: Home, digest: str) -> dict[str, str] | None:
    """Return a list of packages, version by name; None where it is gone or damaged. Raises OSError."""
    content = read_if_there(home.packages / f"{digest}.json")
    try:
        body: Any = json.loads(content) if content is not None else {}
        return msgspec.convert(body.get("packages"), dict[str, str] | None)
    except (ValueError, AttributeError):
        return None


def _python(kind: Kind, environment: Mapping[str, str], home: Home) -> PythonOfRun | None:
    from backprop.worker.environment.provenance import packages

    try:
        python = packages.python_of(kind.start, kind.program, Path(kind.cwd), environment)
        if python is None:
            return None
        version = packages.version_of(python)
        listed = packages.list_of(python, environment) if not environment.get("PYTHONHOME") else None
    except (OSError, RuntimeError, ValueError):
        return None
    if not listed and version is None:  # a script that stands for a Python, such as pyenv's
        listed = None
    if listed is None:
        return PythonOfRun(path=str(python), version=version, packages=None)
    digest, body = packages.kept_form(str(python), version, listed)
    path = home.packages / f"{digest}.json"
    with contextlib.suppress(FileExistsError):
        home.packages.mkdir(mode=0o700)
    if path.exists():
        if time.time() - path.lstat().st_mtime > YOUNG_S / 2:
            os.utime(path)  # young again: nobody deletes it before the note names it
    else:
        _replace(path, body)
    found = InstalledPackages(digest=digest, count=len(listed))
    return PythonOfRun(path=str(python), version=version, packages=found)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path) -> Provenance | None:
    content = read_if_there(path)
    if content is None or len(content) > MOST_BYTES:
        return None
    try:
        note = msgspec.convert(json.loads(content), Provenance)
    except ValueError:
        return None
    return note if note.format == FORMAT and note.repositories else None


def _replace(path: Path, content: bytes) -> None:
    # Of several processes that write a list of packages at once, each has its own draft.
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(draft, (content,), synced=False)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
