"""A machine that nobody has used yet, as far as a folder can be one: a copy of the checkout, no cache, no home."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.harness import ROOT

SOURCES = (
    *("pyproject.toml", "README.md", "LICENSE", "skills", "tools", "examples"),
    *("scheduler", "worker", "cli", "migrations", "sdk"),
)
NO_CACHE = {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def copy_checkout(folder: Path) -> Path:
    """Copy what is needed to build and to try, so that what lies around in the checkout changes nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*-out"))
        else:
            shutil.copy(path, folder)
    return folder


def environment(**more: str) -> dict[str, str]:
    """Return our environment without what is ours: of Backprop, of Python, of a virtual environment, of caches."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BACKPROP_", "PYTHON", "VIRTUAL_ENV", "PYTEST"))
    }
    return kept | NO_CACHE | more


def run(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command there to its end; return what it prints. Fails where the command does."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment(**(env or {})), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.stdout[-4000:]}"
    return done.stdout
