"""Asks git for the commit of a repository and for what in its working tree is not as committed; executes nothing of
the repository's."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import open_regular
from backprop.worker.environment import git_command

_SUBMODULE: Final = re.compile(r"^[ \t]*path[ \t]*=[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_NOTHING: Final = "000000"
_LINK_TO_REPOSITORY: Final = "160000"


class RepositoryStatus(msgspec.Struct, frozen=True):
    """`committed`: mode and id, in the commit, of each path that may be otherwise now; None where the commit does not
    have it. `unknown`: files that git does not know. `inside`: paths of submodules and of other repositories."""

    commit: str | None
    branch: str | None
    committed: dict[str, tuple[str, str] | None]
    unknown: tuple[str, ...]
    inside: tuple[str, ...]


class NoStatus(Exception):
    """Git does not say, for the reason given."""


def status_of(top: Path, *, with_unknown: bool = True) -> RepositoryStatus:
    """Return the state of the repository whose working tree is `top`. `with_unknown`: look for files that git does not
    know. Raises NoStatus."""
    filters = git_command.without_filters(top)
    if filters is None:
        raise NoStatus("it names filters that cannot be switched off")
    untracked = "--untracked-files=all" if with_unknown else "--untracked-files=no"
    words = ("--porcelain=v2", "--branch", "-z", untracked, "--ignore-submodules=all", "--no-renames")
    answer = git_command.ask(top, *filters, "status", *words, "--no-ahead-behind")
    if answer is None or answer[0] != 0:
        raise NoStatus(git_command.complaint(answer))
    commit = branch = None
    committed: dict[str, tuple[str, str] | None] = {}
    unknown: list[str] = []
    inside = _submodules(top)
    for line in os.fsdecode(answer[1]).split("\0"):
        kind, _, rest = line.partition(" ")
        if kind == "#":
            name, _, value = rest.partition(" ")
            known = None if value.startswith("(") else value
            commit = known if name == "branch.oid" else commit
            branch = known if name == "branch.head" else branch
        elif kind == "1":  # XY, submodule, modes of HEAD, index and tree, ids of HEAD and index, path
            _, _, mode, _, _, oid, _, path = rest.split(" ", 7)
            if mode != _LINK_TO_REPOSITORY:
                committed[path] = None if mode == _NOTHING else (mode, oid)
        elif kind == "u":  # XY, submodule, modes of three stages and tree, ids of three stages, path
            _, _, _, mode, _, _, _, oid, _, path = rest.split(" ", 9)
            committed[path] = None if mode == _NOTHING else (mode, oid)
        elif kind == "?" and rest.endswith("/"):
            inside.append(rest.rstrip("/"))
        elif kind == "?":
            unknown.append(rest)
    return RepositoryStatus(commit, branch, committed, tuple(unknown), tuple(inside))


def knows(top: Path, path: str) -> bool:
    """Return whether git tracks the file, as far as it says so."""
    answer = git_command.ask(top, "--literal-pathspecs", "ls-files", "-z", "--", path)
    return answer is not None and answer[1] != b""


def contents(top: Path, ids: Sequence[str], most_bytes: int) -> dict[str, bytes]:
    """Return the committed contents of these ids that are there and no larger than `most_bytes`."""
    if not ids:
        return {}
    asked = "".join(f"{oid}\n" for oid in ids).encode()
    answer = git_command.ask(top, "cat-file", "--batch-check", given=asked)
    sizes = [line.split() for line in answer[1].splitlines()] if answer is not None else []
    small = [
        words[0] for words in sizes if len(words) == 3 and words[1] == b"blob" and int(words[2]) <= most_bytes
    ]
    if not small:
        return {}
    answer = git_command.ask(top, "cat-file", "--batch", given=b"\n".join(small) + b"\n")
    found: dict[str, bytes] = {}
    rest = answer[1] if answer is not None else b""
    while rest:
        head, _, rest = rest.partition(b"\n")
        words = head.split()
        if len(words) != 3:
            continue
        size = int(words[2])
        found[words[0].decode()] = rest[:size]
        rest = rest[size + 1 :]
    return found


def tree_of(top: Path, commit: str) -> dict[str, tuple[str, str]] | None:
    """Return mode and id of each file in a commit, by path; None where the repository does not have it."""
    answer = git_command.ask(top, "ls-tree", "-r", "-z", "--full-tree", commit)
    if answer is None or answer[0] != 0:
        return None
    found: dict[str, tuple[str, str]] = {}
    for line in os.fsdecode(answer[1]).split("\0"):
        about, _, path = line.partition("\t")
        if path and not about.startswith(_LINK_TO_REPOSITORY):
            mode, _, oid = about.split(" ")
            found[path] = mode, oid
    return found


def _submodules(top: Path) -> list[str]:
    """Return the paths of submodules that are there, as `.gitmodules` lists them; links are not followed."""
    try:
        with open(open_regular(top / ".gitmodules"), "rb") as file:  # noqa: PTH123
            text = os.fsdecode(file.read(1 << 20))
    except OSError:
        return []
    paths = [os.path.normpath(path) for path in _SUBMODULE.findall(text)]
    return [path for path in paths if os.path.realpath(top / path) == str(top / path) != str(top)]
