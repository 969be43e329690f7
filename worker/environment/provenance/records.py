"""Defines a note of what a run was queued with: `provenance.json`.

Paths need not be UTF-8; the standard library writes and reads them, see `scheduler.home.run_folder`.
"""

from typing import Final, Literal

import msgspec

FORMAT: Final = 1

Status = Literal["modified", "added", "deleted", "untracked"]


class ChangedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file that is not as the commit has it. `path`: within its repository. `id`: of its content, as git names it;
    None for a deleted one, and where it is too large to be read. `mode`: as git's. `left_out`: why the patch lacks
    it; "" where it is there. `code`: it is tracked, or a program, which no training writes."""

    path: str
    status: Status
    mode: str | None = None
    id: str | None = None
    size: int | None = None
    left_out: str = ""
    code: bool = True


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """The code at `path` below the root, "" for the root itself. `commit`: None before the first one, and without git.
    `branch`: None where HEAD is detached, and without git."""

    path: str
    commit: str | None
    branch: str | None
    changed: tuple[ChangedFile, ...]


class InstalledPackages(msgspec.Struct, frozen=True, kw_only=True):
    """What a Python can import. `digest` names the list, which lies in `packages/` of the home."""

    digest: str
    count: int


class PythonOfRun(msgspec.Struct, frozen=True, kw_only=True):
    """The interpreter. `version`: None where its files do not tell."""

    path: str
    version: str | None
    packages: InstalledPackages | None


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """The note. `at_s`: when the code was looked at, Unix seconds. `cwd`, `program`, `script`: of the run, as in its
    specification. `root`: the folder of the code. `git`: whether git says what it is. `untracked`: names of other files
    that git does not know; `more`: how many changed or untracked ones are not named at all. `patch`: the name of the
    patch beside this file, None where there is nothing in it. `trouble`: why git could not be asked, in words."""

    at_s: float
    cwd: str
    program: str
    script: str | None
    root: str
    git: bool
    repositories: tuple[Repository, ...]
    untracked: tuple[str, ...] = ()
    more: int = 0
    patch: str | None = None
    trouble: str = ""
    python: PythonOfRun | None = None
    format: int = FORMAT

    @property
    def own(self) -> Repository:
        """The repository of the root."""
        return self.repositories[0]

    @property
    def dirty(self) -> bool:
        """Whether the code is not what the commits say."""
        return self.git and any(file.code for each in self.repositories for file in each.changed)
