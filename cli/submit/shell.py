"""Reads what a run takes from its shell: directory, environment, umask, limits, and the programs on PATH."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backprop.scheduler.errors import BadCommand

KEPT_VARIABLES: Final = ("BACKPROP_HOME", "BACKPROP_ALLOW_REMOTE_HOME")
KEPT_LIMITS: Final = ("NOFILE", "STACK", "MEMLOCK", "CORE")
"""Open files, a thread's stack, memory that a library pins, core dumps."""
SCRIPT_SUFFIXES: Final = (".py", ".sh", ".bash")


def umask_of_shell() -> int:
    """Return the umask. There is no way to read it without setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def soft_limits_of_shell() -> dict[str, int]:
    """Return the soft limits that depend on how a process was started: systemd's are not those of a login."""
    import resource

    return {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in KEPT_LIMITS}


def environment_of_shell(given: Sequence[str]) -> dict[str, str]:
    """Return this shell's environment with the KEY=VALUE texts of `given`, without what an enclosing Backprop run put
    there. Raises BadCommand."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BACKPROP_") or name in KEPT_VARIABLES
    }
    return inherited | env_values(given)


def env_values(given: Sequence[str]) -> dict[str, str]:
    """Split KEY=VALUE texts. Raises BadCommand."""
    values: dict[str, str] = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise BadCommand(f"--env {entry} is not KEY=VALUE")
        values[name] = value
    return values


def resolve_command(
    words: Sequence[str], cwd: Path, python: Path | None
) -> tuple[tuple[str, ...], str, Path | None]:
    """Return argv, the absolute path of the program and the script, None if no script is recognised.

    `words`: SCRIPT and its arguments. `python`: the interpreter for a .py SCRIPT, None for this shell's. Raises
    BadCommand.
    """
    return _python_script(words, cwd, python) if words[0].endswith(".py") else _program(words, cwd)


def python_of_shell(chosen: Path | None, cwd: Path) -> str:
    """Return the absolute path of the chosen interpreter, else of this shell's `python`, else of its `python3`. Raises
    BadCommand."""
    if chosen is None:
        python = _on_path("python") or _on_path("python3") or _own_python()
    elif (python := _on_path(str(chosen))) is None:
        raise BadCommand(f"--python {chosen} is not an executable program")
    return str(cwd / python)


def _python_script(words: Sequence[str], cwd: Path, chosen: Path | None) -> tuple[tuple[str, ...], str, Path]:
    script = cwd / words[0]
    if not script.is_file():
        what = "is a directory" if script.is_dir() else "does not exist"
        raise BadCommand(f"{words[0]} {what} in {cwd}; give a .py file, or a program after --")
    python = python_of_shell(chosen, cwd)
    # The whole path is argv[0] too: by it, the python of a virtual environment finds its packages.
    return (python, *words), python, script


def _program(words: Sequence[str], cwd: Path) -> tuple[tuple[str, ...], str, Path | None]:
    first = words[0]
    executable = _on_path(str(cwd / first) if os.sep in first else first)
    if executable is None:
        if (cwd / first).is_file():
            raise BadCommand(_how_to_start(first, os.access(cwd / first, os.X_OK)))
        where = f"in {cwd}" if os.sep in first else f"on PATH, nor a script in {cwd}"
        raise BadCommand(f"{first} is not a program {where}")
    program = str(cwd / executable)
    named = [cwd / word for word in words if word.endswith(SCRIPT_SUFFIXES)]
    script = next((path for path in named if path.is_file()), None)
    return (program if first.startswith("python") else first, *words[1:]), program, script


def _how_to_start(first: str, executable: bool) -> str:
    """Say how a file that was named, and is no program as named, can be started."""
    path = first if os.sep in first else f"./{first}"
    if executable:
        return f"{first} is in this directory, which is not on PATH; give its path: {path}"
    then = "" if path == first else f" and give {path}"
    ways = f"chmod +x {path}{then}, or name its interpreter: bash {first}"
    return f"{first} is not executable and does not end in .py; {ways}"


def _on_path(name: str) -> str | None:
    """Return the program of that name, or at that path; None if there is none. `shutil.which` does the same, but its
    module imports every compressor there is: 5 ms of each `backprop run`."""
    folders = os.get_exec_path()
    candidates = [name] if os.sep in name else [os.path.join(folder, name) for folder in folders]  # noqa: PTH118
    return next((path for path in candidates if Path(path).is_file() and os.access(path, os.X_OK)), None)


def _own_python() -> str:
    import sys

    return sys.executable
