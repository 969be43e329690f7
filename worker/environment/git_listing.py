"""Asks git which files of a folder are code."""

import os
from pathlib import Path

from backprop.scheduler.errors import BadCommand
from backprop.worker.environment import git_command


def tracked(root: Path) -> set[str]:
    """Return what git tracks or would track below `root`, submodules and nested repositories included.

    Raises BadCommand when git fails or does not answer in time.
    """
    answer = git_command.ask(root, "ls-files", "-z", "-co", "--exclude-standard")
    if answer is None or answer[0] != 0:
        raise BadCommand(
            f"git ls-files failed in {root}: {git_command.complaint(answer)}; mend it there (nothing is fetched for a"
            " snapshot), or leave --snapshot-code out"
        )
    files: set[str] = set()
    for name in (os.fsdecode(raw) for raw in answer[1].split(b"\0") if raw):
        path = root / name
        if not path.is_dir() or path.is_symlink():
            files.add(name)
        elif (path / ".git").exists():
            files |= {f"{name.rstrip('/')}/{inner}" for inner in tracked(path)}
    return files
