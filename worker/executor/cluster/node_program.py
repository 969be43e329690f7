"""Copies what runs on the nodes to the share: the node agent with the supervisor, and the integrations.

Each version lies in a folder of its own that never changes: a job that begins tomorrow must not depend on what has been
installed here meanwhile.
"""

import hashlib
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Final

import backprop
from backprop.worker.executor.supervisor_program import SUPERVISOR

_PACKAGE: Final = Path(backprop.__file__).parent


@cache
def _sources() -> tuple[tuple[Path, str], ...]:
    """Return each file of the program with its path in the copy."""
    own = [(path, path.name) for path in sorted(SUPERVISOR.glob("*.py"))]
    found = [*_PACKAGE.glob("*.py"), *(_PACKAGE / "integrations").rglob("*.py")]
    sdk = [(path, f"backprop/{path.relative_to(_PACKAGE)}") for path in sorted(found)]
    return tuple(own + sdk)


@cache
def version() -> str:
    """Return the name of this program's folder."""
    digest = hashlib.sha256()
    for path, name in _sources():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def folder_on(share: str) -> Path:
    """Return where this version lies below a cluster's folder."""
    return Path(share) / "bin" / version()


def install(share: str) -> Path:
    """Copy this version to the share unless it is there; return its folder. Raises OSError."""
    target = folder_on(share)
    if target.is_dir():
        return target
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    for path, name in _sources():
        copy = draft / name
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    try:
        draft.rename(target)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not target.is_dir():
            raise
    return target
