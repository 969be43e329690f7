"""Looks at the code of a run as it stands: which commit, and what is otherwise, as a patch within bounds.

With git, everything that it tracks counts, and source files that it does not know. Without, the script and the modules
of its own that it imports. What may hold credentials by its name is named and never copied.
"""

import hashlib
import os
import re
import stat
import time
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import open_regular
from backprop.worker.environment import git_command
from backprop.worker.environment.installed_packages import text_of
from backprop.worker.environment.provenance import patches, repository_status
from backprop.worker.environment.provenance.patches import Content
from backprop.worker.environment.provenance.records import ChangedFile, Repository, Status
from backprop.worker.environment.source_suffixes import PROGRAM_SUFFIXES, SOURCE_SUFFIXES

MOST_TRACKED_BYTES: Final = 256 * 1024
"""The largest tracked file whose change is copied."""
MOST_UNTRACKED_BYTES: Final = 64 * 1024
MOST_PATCH_BYTES: Final = 1024 * 1024
MOST_READ_BYTES: Final = 8 * 1024 * 1024
"""Of one file, to tell contents apart."""
MOST_READ_IN_ALL_BYTES: Final = 64 * 1024 * 1024
MOST_NAMED: Final = 1000
MOST_REPOSITORIES: Final = 20
MOST_MODULES: Final = 100
SECRET: Final = re.compile(
    r"(?:^|/)\.(?:env|netrc|npmrc|pypirc|pgpass|htpasswd|git-credentials|aws|ssh|gnupg|kube|docker)\b"
    r"|(?:^|[^a-z])(?:id_(?:rsa|dsa|ecdsa|ed25519)|secrets?|credentials?|passw(?:or)?ds?|api_?keys?)(?![a-z])"
    r"|(?:^|[^a-z])tokens?\.(?:json|ya?ml|toml|ini|cfg|conf|txt)$"
    r"|(?:^|/)kaggle\.json$|service[-_]account|\.(?:pem|key|p12|pfx|jks|kdbx|keytab|asc|gpg|env)$",
    re.IGNORECASE,
)
"""Names of files that are made for credentials."""
_TEXT_LOOK: Final = 8000
"""As git: a NUL within so many bytes makes a file binary."""


class CodeState(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of `records.Provenance` that are about code, and the patch itself."""

    at_s: float
    root: Path
    git: bool
    repositories: tuple[Repository, ...]
    untracked: tuple[str, ...]
    more: int
    patch: bytes
    trouble: str


def look(base: Path, script: Path | None, home: Path) -> CodeState:
    """Return the state of the code that `base` lies in. `home`: Backprop's, never part of it. Raises nothing that git
    or a single file causes."""
    top, trouble = git_command.top_or_why(base)
    if top is not None:
        try:
            return _Look(top, home).at_repository(script)
        except repository_status.NoStatus as error:
            trouble = str(error)
    return _Look(base, home).at_files(script, trouble)


class _Look:
    """One look, with what is left of its bounds."""

    def __init__(self, root: Path, home: Path) -> None:
        self._root, self._home, self._at_s = root, home, time.time()
        self._trouble = ""
        self._sections: list[bytes] = []
        self._untracked: list[str] = []
        self._patch_left, self._read_left = MOST_PATCH_BYTES, MOST_READ_IN_ALL_BYTES
        self._named_left, self._more = MOST_NAMED, 0

    def at_repository(self, script: Path | None) -> CodeState:
        broad = git_command.too_broad(self._root)
        found: list[Repository] = []
        pending = [""]
        while pending and len(found) < MOST_REPOSITORIES:
            path = pending.pop(0)
            top = self._root / path
            if path and git_command.top_of(top) != top:
                continue
            try:
                status = self._status(top, with_unknown=not broad)
            except repository_status.NoStatus as error:
                if not path:
                    raise
                self._trouble = f"{path}: {error}"
                continue
            found.append(self._repository(top, path, status, script))
            pending += [os.path.join(path, inner) for inner in status.inside]  # noqa: PTH118
        return self._state(git=True, repositories=tuple(found))

    def _status(self, top: Path, *, with_unknown: bool) -> repository_status.RepositoryStatus:
        """Return the state of a repository; without the files that git does not know, where it cannot list them: a
        partial clone may lack a .gitignore. Raises NoStatus."""
        try:
            return repository_status.status_of(top, with_unknown=with_unknown)
        except repository_status.NoStatus as error:
            status = repository_status.status_of(top, with_unknown=False)
            self._trouble = f"files that git does not know are left out: {error}"
            return status

    def at_files(self, script: Path | None, trouble: str) -> CodeState:
        self._trouble = trouble
        files = _own_files(self._root, script) if script is not None else []
        changed = [self._changed(self._root, "", name, None, None, "untracked") for name in files]
        only = Repository(
            path="", commit=None, branch=None, changed=tuple(each for each in changed if each is not None)
        )
        return self._state(git=False, repositories=(only,))

    def _state(self, *, git: bool, repositories: tuple[Repository, ...]) -> CodeState:
        return CodeState(
            at_s=self._at_s,
            root=self._root,
            git=git,
            repositories=repositories,
            untracked=tuple(self._untracked),
            more=self._more,
            patch=b"".join(self._sections),
            trouble=self._trouble,
        )

    def _repository(
        self, top: Path, path: str, status: repository_status.RepositoryStatus, script: Path | None
    ) -> Repository:
        unknown = [
            name for name in status.unknown if name not in status.committed and not self._is_ours(top / name)
        ]
        own = os.path.relpath(os.path.realpath(script), top) if script is not None else None
        listed = {*unknown, *status.committed}
        if own is not None and not own.startswith("..") and own not in listed and not path:
            # One that .gitignore names is code all the same.
            unknown += [] if repository_status.knows(top, own) else [own]
        copied = [name for name in unknown if Path(name).suffix.lower() in SOURCE_SUFFIXES or name == own]
        for name in sorted(set(unknown).difference(copied)):
            self._name_only(os.path.join(path, name))  # noqa: PTH118
        old = status.committed
        wanted = list({known[1] for known in old.values() if known is not None})
        bodies = repository_status.contents(top, wanted[:MOST_NAMED], MOST_TRACKED_BYTES)
        changed: list[ChangedFile] = []
        for name in sorted({*old, *copied}):
            known = old.get(name)
            body = bodies.get(known[1]) if known is not None else None
            file = self._changed(top, path, name, known, body, "added" if name in old else "untracked")
            changed += [file] if file is not None else []
        return Repository(path=path, commit=status.commit, branch=status.branch, changed=tuple(changed))

    def _is_ours(self, path: Path) -> bool:
        return path.is_relative_to(self._home)

    def _name_only(self, name: str) -> None:
        if self._named_left > 0:
            self._named_left -= 1
            self._untracked.append(name)
        else:
            self._more += 1

    def _changed(
        self,
        top: Path,
        prefix: str,
        name: str,
        known: tuple[str, str] | None,
        old_body: bytes | None,
        new_status: Status,
    ) -> ChangedFile | None:
        """Return one file as it is now, and put its change into the patch; None where it is as the commit has it.

        `known`: mode and id in the commit, None where it has no such file. `old_body`: its content there, None where
        that cannot be had. `new_status`: of a file that the commit does not have.
        """
        if self._named_left <= 0:
            self._more += 1
            return None
        new, size = self._content(top / name)
        if known is None and size is None:
            return None  # gone meanwhile, or added and deleted again
        oid = _oid(new.body, known[1] if known is not None else "") if new is not None else None
        mode = new.mode if new is not None else None
        if known is not None and new is not None and (mode, oid) == known:
            return None
        self._named_left -= 1
        status: Status = "deleted" if size is None else "modified" if known is not None else new_status
        file = ChangedFile(
            path=name,
            status=status,
            mode=mode,
            id=oid,
            size=size,
            code=status != "untracked" or Path(name).suffix.lower() in PROGRAM_SUFFIXES,
        )
        old = Content(known[0], old_body) if known is not None and old_body is not None else None
        why = self._why_not(file, os.path.join(prefix, name), known is not None, old, new)  # noqa: PTH118
        if not why:
            section = patches.patch(os.fsencode(os.path.join(prefix, name)), old, new)  # noqa: PTH118
            why = "the patch is full" if len(section) > self._patch_left else ""
            if not why:
                self._patch_left -= len(section)
                self._sections.append(section)
        return msgspec.structs.replace(file, left_out=why)

    def _why_not(
        self, file: ChangedFile, name: str, tracked: bool, old: Content | None, new: Content | None
    ) -> str:
        """Return why the change of a file is not copied, "" where it is."""
        most = MOST_UNTRACKED_BYTES if file.status == "untracked" else MOST_TRACKED_BYTES
        if SECRET.search(name):
            return "it may hold credentials"
        if file.size is not None and (file.size > most or new is None):
            return "it is too large" if file.size > most else "it cannot be read"
        if tracked and old is None:
            return "its committed content is too large, or not here"
        if any(each is not None and b"\0" in each.body[:_TEXT_LOOK] for each in (old, new)):
            return "it is not text"
        return ""

    def _content(self, path: Path) -> tuple[Content | None, int | None]:
        """Return what a file holds, None where it is too large or cannot be read, and its size, None where there is no
        file."""
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                target = os.fsencode(path.readlink())
                return Content("120000", target), len(target)
            if not stat.S_ISREG(status.st_mode):
                return None, None
            if status.st_size > min(self._read_left, MOST_READ_BYTES):
                return None, status.st_size
            with open(open_regular(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123
                body = file.read(MOST_READ_BYTES)
        except FileNotFoundError:
            return None, None
        except OSError:
            return None, 0
        self._read_left -= len(body)
        return Content("100755" if status.st_mode & 0o100 else "100644", body), len(body)


def _oid(body: bytes, like: str) -> str:
    """Return the id that git gives a content, by the algorithm of the id `like`; SHA-1 where there is none."""
    # Not for security, in either case: it names a content.
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % len(body))
    digest.update(body)
    return digest.hexdigest()


def _own_files(root: Path, script: Path) -> list[str]:
    """Return the script and the modules that lie beside it and that it imports, directly or by another, as paths below
    `root`: at most MOST_MODULES. Raises nothing."""
    from backprop.worker.environment.script_imports import imported

    found: dict[Path, None] = {script: None}
    pending = [script]
    while pending and len(found) < MOST_MODULES:
        try:
            text = text_of(pending.pop(0), MOST_TRACKED_BYTES)
            beside = [path for name in imported(text) for path in _files_of(root / name)]
        except OSError:
            continue
        new = [path for path in dict.fromkeys(beside) if path not in found][: MOST_MODULES - len(found)]
        found |= dict.fromkeys(new)
        pending += new
    return sorted(os.path.relpath(path, root) for path in found)


def _files_of(module: Path) -> list[Path]:
    """Return the files of a module, or of a package with those that lie in it. Raises OSError."""
    alone = module.with_name(f"{module.name}.py")
    if alone.is_file():
        return [alone]
    if not (module / "__init__.py").is_file() or module.is_symlink():
        return []
    found: list[Path] = []
    for at, folders, names in os.walk(module):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found += [Path(at, name) for name in sorted(names) if name.endswith(".py")]
        if len(found) >= MOST_MODULES:
            break
    return found
