"""Asks git about a folder, and lets the folder have no say in what is executed.

A repository from somebody else may name programs: a file-system monitor, hooks, a pager, filters, and the program at
the other end of a fetch, which a partial clone starts by itself for what it lacks. None of them is started here. git
itself is taken from an absolute entry of PATH. What the caller's environment says about one repository (GIT_DIR, in a
hook) holds for none here.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

GIT_S: Final = 30.0
NO_PROGRAMS: Final = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
                      "-c", "safe.bareRepository=explicit")  # fmt: skip
"""Options ahead of git's command: what they say is stronger than the repository's own configuration."""
NO_FETCH: Final = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
"""An option `protocol.allow=never` would not do: the repository's `protocol.file.allow` is more precise. Only git 2.45
knows the second one."""
PLAIN: Final = {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", "LANGUAGE": ""}
KEPT: Final = ("GIT_CONFIG", "GIT_CEILING", "GIT_DISCOVERY", "GIT_EXEC_PATH", "GIT_ATTR")
"""How variables of git begin that are about this machine and its user, not about one repository."""
_FILTER: Final = re.compile(r"(filter\.(.+)\.)(?:clean|smudge|process|required)", re.DOTALL)
_ORDINARY: Final = re.compile(r"[\w.-]+", re.ASCII)
_NOT_GIT: Final = "not a git repository"


def ask(folder: Path, *words: str, given: bytes = b"") -> tuple[int, bytes, bytes] | None:
    """Return git's exit code, output and complaints; None when it is not installed or does not answer in time.

    `given`: its stdin.
    """
    import subprocess  # 8 ms, of commands that never come here

    git = program()
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, *NO_PROGRAMS, "-C", str(folder), *words],
            capture_output=True,
            check=False,
            timeout=GIT_S,
            input=given,
            env=_environment() | PLAIN | NO_FETCH,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, done.stdout, done.stderr


def top_of(folder: Path) -> Path | None:
    """Return the top of the working tree that `folder` lies in; None without git, outside a repository, in one that
    git does not trust, and in one that names a working tree elsewhere."""
    return top_or_why(folder)[0]


def top_or_why(folder: Path) -> tuple[Path | None, str]:
    """As `top_of`, with the reason where there is a repository that cannot be used; "" where there is none."""
    real = Path(os.path.realpath(folder))
    if not any(os.path.lexists(each / ".git") for each in (real, *real.parents)):
        return None, ""
    if program() is None:
        return None, "git is not installed"
    answer = ask(folder, "rev-parse", "--show-toplevel")
    if answer is None or answer[0] != 0 or not answer[1]:
        why = complaint(answer)
        return None, "" if _NOT_GIT in why else why
    top = Path(os.fsdecode(answer[1]).removesuffix("\n"))
    if real.is_relative_to(top):
        return top, ""
    return None, f"its working tree is {top}"


def complaint(answer: tuple[int, bytes, bytes] | None) -> str:
    """Return what git says to a command that failed, in one line."""
    lines = answer[2].decode(errors="replace").strip().splitlines() if answer is not None else []
    fatal = [line for line in lines if line.startswith("fatal: ")]
    return (fatal or lines or ["git does not answer"])[-1].removeprefix("fatal: ")


def without_filters(top: Path) -> Sequence[str] | None:
    """Return options ahead of git's command that switch off every filter which its configuration names.

    None where that cannot be done: then no command may be asked that reads contents of the working tree.
    """
    answer = ask(top, "config", "--null", "--name-only", "--get-regexp", r"^filter\.")
    if answer is None or answer[0] not in (0, 1):  # 1: there is none
        return None
    options: dict[str, None] = {}
    for name in os.fsdecode(answer[1]).split("\0"):
        match = _FILTER.fullmatch(name)
        if match is None:
            continue
        if not _ORDINARY.fullmatch(match[2]):  # `-c a=b.clean=` would set something else
            return None
        switched = [f"{match[1]}{key}=" for key in ("clean", "smudge", "process")]
        options |= dict.fromkeys([*switched, f"{match[1]}required=false"])
    return [word for option in options for word in ("-c", option)]


def program() -> Path | None:
    """Return git from an absolute entry of PATH: an entry such as `.` would let the folder say what git is."""
    folders = (Path(entry) for entry in os.get_exec_path() if entry.startswith("/"))
    candidates = (folder / "git" for folder in folders)
    return next((path for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)


def too_broad(folder: Path) -> bool:
    """Return whether `folder` is the user's home directory (under git for its dot files) or above it."""
    return Path(os.path.expanduser("~")).is_relative_to(folder)  # noqa: PTH111 - Path.home() raises without one


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(KEPT)
    }
