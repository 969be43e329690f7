"""Reads from files which Python a run has, and which packages that Python can import; executes nothing.

What comes first among the folders of `installed_packages` is taken for what is imported.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from backprop.scheduler.home.file_reading import open_regular
from backprop.worker.environment.installed_packages import (
    interpreter_of,
    package_folders,
    settings_version,
    text_of,
)

MOST_PACKAGES: Final = 5000
_METADATA: Final = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py\d[\d.]*)?\.(?:dist|egg)-info")
_VERSION_LINE: Final = re.compile(r"^Version:[ \t]*(\S+)", re.MULTILINE)
_COMMIT: Final = re.compile(r'"commit_id"\s*:\s*"([0-9a-f]{7,64})"')
_EDITABLE: Final = re.compile(r'"editable"\s*:\s*true')
_VERSION: Final = re.compile(rb"\0(3\.\d{1,2}\.\d{1,2}(?:a\d+|b\d+|rc\d+)?\+?)\0")
_MINOR: Final = re.compile(r"3\.\d+")
_BLOCK_BYTES: Final = 1 << 20
_LONGEST: Final = 32
_NORMAL: Final = re.compile(r"[-_.]+")


def python_of(argv: Sequence[str], program: str, cwd: Path, environment: Mapping[str, str]) -> Path | None:
    """Return the interpreter that a command runs under, None where its files do not tell. Raises OSError."""
    if Path(program).name == "uv" and argv[1:2] == ("run",):
        named = environment.get("UV_PROJECT_ENVIRONMENT") or ".venv"
        found = (folder / named / "bin" / "python" for folder in (cwd, *cwd.parents))
        return next((path for path in found if path.is_file()), None)
    return interpreter_of(program, environment)


def version_of(python: Path) -> str | None:
    """Return the version of an interpreter: that of its virtual environment, unless the installation behind it is
    newer; then as it stands in its program or library. Raises OSError."""
    real = Path(os.path.realpath(python))
    minor = _MINOR.search(real.name)
    libraries = list(real.parent.parent.glob(f"lib/libpython{minor[0]}*.so.*")) if minor is not None else []
    noted, noted_s = settings_version(python)
    # Not the time of modification, which a package manager sets back.
    if minor is None or (noted and all(path.stat().st_ctime < noted_s for path in (real, *libraries))):
        return noted
    stated = (_stated_in(path, minor[0]) for path in (real, *libraries))
    return next((version for version in stated if version is not None), noted)


def list_of(python: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of the packages that an interpreter can import, by name. An editable install, or one from a
    commit, says so behind its version. Raises OSError."""
    found: dict[str, str] = {}
    for folder in dict.fromkeys(package_folders(python, environment)):
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone
        except OSError:
            continue
        for name in names:
            if len(found) < MOST_PACKAGES and name.endswith(("-info", ".egg-link")):
                package, version = _package(folder / name)
                found.setdefault(package, version)
    return dict(sorted(found.items()))


def kept_form(python: str, version: str | None, packages: Mapping[str, str]) -> tuple[str, bytes]:
    """Return the digest of a list, and the list as it is kept."""
    body = json.dumps({"format": 1, "python": python, "version": version, "packages": dict(packages)})
    text = json.dumps([version, dict(packages)]).encode()
    return hashlib.sha256(text).hexdigest()[:16], body.encode("ascii")


def _package(metadata: Path) -> tuple[str, str]:
    match = _METADATA.fullmatch(metadata.name)
    name = match["name"] if match else metadata.name.rpartition(".")[0]
    version = match["version"] if match else _stated_version(metadata)
    record = text_of(metadata / "direct_url.json")
    commit = _COMMIT.search(record)
    more = f" @ {commit[1][:12]}" if commit else " (editable)" if _EDITABLE.search(record) else ""
    return _NORMAL.sub("-", name).lower(), version + more


def _stated_version(metadata: Path) -> str:
    stated = _VERSION_LINE.search(text_of(metadata / "PKG-INFO", 4096) or text_of(metadata, 4096))
    return stated[1] if stated else "?"


def _stated_in(program: Path, minor: str) -> str | None:
    """Return the version of Python that an executable or a library holds as a text of its own."""
    begin = f"\0{minor}.".encode()
    with open(open_regular(program), "rb") as file:  # noqa: PTH123
        kept = b""
        while block := file.read(_BLOCK_BYTES):
            block, at = kept + block, -1
            while (at := block.find(begin, at + 1)) >= 0:
                if (match := _VERSION.match(block, at)) is not None:
                    return match[1].decode()
            kept = block[-_LONGEST:]
    return None
