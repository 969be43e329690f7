"""Asks git which files of a folder are code, and lets the folder have no say in what is executed.

A repository from somebody else may name programs: a file-system monitor, hooks, a pager, and the program at the other
end of a fetch, which a partial clone starts by itself for what it lacks. None of them is started here. git itself is
taken from an absolute entry of PATH.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

from backprop.scheduler.errors import BadCommand

GIT_S: Final = 30.0
NO_PROGRAMS: Final = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
                      "-c", "safe.bareRepository=explicit")  # fmt: skip
"""Options ahead of git's command: what they say is stronger than the repository's own configuration."""
NO_FETCH: Final = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
"""An option `protocol.allow=never` would not do: the repository's `protocol.file.allow` is more precise. Only git 2.45
knows the second one."""


def top_of(folder: Path) -> Path | None:
    """Return the top of the working tree that `folder` lies in; None without git, outside a repository, in one that
    git does not trust, and in one that names a working tree elsewhere."""
    output = _git(folder, "rev-parse", "--show-toplevel")
    if output is None or output[0] != 0 or not output[1]:
        return None
    top = Path(os.fsdecode(output[1]).removesuffix("\n"))
    return top if Path(os.path.realpath(folder)).is_relative_to(top) else None


def tracked(root: Path) -> set[str]:
    """Return what git tracks or would track below `root`, submodules and nested repositories included.

    Raises BadCommand when git fails or does not answer in time.
    """
    answer = _git(root, "ls-files", "-z", "-co", "--exclude-standard")
    if answer is None or answer[0] != 0:
        said = answer[2].decode(errors="replace").strip().splitlines() if answer is not None else []
        why = said[-1] if said else "git does not answer"
        raise BadCommand(
            f"git ls-files failed in {root}: {why}; mend it there (nothing is fetched for a snapshot), or leave"
            " --snapshot-code out"
        )
    files: set[str] = set()
    for name in (os.fsdecode(raw) for raw in answer[1].split(b"\0") if raw):
        path = root / name
        if not path.is_dir() or path.is_symlink():
            files.add(name)
        elif (path / ".git").exists():
            files |= {f"{name.rstrip('/')}/{inner}" for inner in tracked(path)}
    return files


def _git(folder: Path, *words: str) -> tuple[int, bytes, bytes] | None:
    """Return git's exit code, output and complaints; None when it is not installed or does not answer in time."""
    git = _program()
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, *NO_PROGRAMS, "-C", str(folder), *words],
            capture_output=True,
            check=False,
            timeout=GIT_S,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"} | NO_FETCH,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, done.stdout, done.stderr


def _program() -> Path | None:
    """Return git from an absolute entry of PATH: an entry such as `.` would let the folder say what git is."""
    folders = (Path(entry) for entry in os.get_exec_path() if entry.startswith("/"))
    candidates = (folder / "git" for folder in folders)
    return next((path for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)
