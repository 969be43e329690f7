"""Compares two states of the code: which files differ, and how, as far as notes, snapshots and repositories tell."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from backprop.scheduler.home.file_reading import open_regular, read_if_there
from backprop.worker.environment.provenance import patches, repository_status
from backprop.worker.environment.provenance.notes import Noted
from backprop.worker.environment.provenance.patches import Content
from backprop.worker.environment.provenance.records import ChangedFile, Provenance, Repository

MOST_SHOWN_BYTES: Final = 256 * 1024
"""The largest content whose difference is shown."""

Kind = Literal["changed", "only in A", "only in B"]
Ids = Mapping[str, tuple[str, str] | None]


class DifferingFile(msgspec.Struct, frozen=True):
    """`repository`: its path below the root. `path`: within it. `code`: not merely a file that git does not know, and
    that a training may have written."""

    repository: str
    path: str
    kind: Kind
    code: bool

    @property
    def name(self) -> str:
        return os.path.join(self.repository, self.path)  # noqa: PTH118


class CodeDifference(msgspec.Struct, frozen=True):
    """`unknown`: what could not be compared, and why, in words."""

    files: tuple[DifferingFile, ...]
    unknown: tuple[str, ...]


class Trees:
    """The files of commits, each read once. `roots`: where the repositories may be; one may be gone, and another clone
    of it there."""

    def __init__(self, *roots: str) -> None:
        self._roots = tuple(dict.fromkeys(roots))
        self._known: dict[tuple[str, str], dict[str, tuple[str, str]] | None] = {}

    def of(self, repository: Repository) -> dict[str, tuple[str, str]] | None:
        """Return mode and id by path; None where no repository has the commit."""
        if repository.commit is None:
            return {}
        key = (repository.path, repository.commit)
        if key not in self._known:
            found = (
                repository_status.tree_of(top, repository.commit) for top in self.places(repository.path)
            )
            self._known[key] = next((tree for tree in found if tree is not None), None)
        return self._known[key]

    def places(self, path: str) -> list[Path]:
        """Return where the repository of this path may be."""
        return [top for root in self._roots if (top := Path(root) / path).is_dir()]


def compare(a: Provenance, b: Provenance, trees: Trees) -> CodeDifference:
    """Return the files that differ between two notes."""
    files: list[DifferingFile] = []
    unknown: list[str] = []
    of_a, of_b = ({each.path: each for each in note.repositories} for note in (a, b))
    for path in sorted({*of_a, *of_b}):
        one, other = of_a.get(path), of_b.get(path)
        if one is None or other is None:
            unknown.append(f"{path} is a repository in {'A' if other is None else 'B'} alone")
            continue
        ids = _ids_of(one, other, trees)
        if ids is None:
            lacking = one if trees.of(one) is None else other
            unknown.append(
                f"the files of commit {(lacking.commit or '')[:12]}, which is in no repository here"
            )
            ids = _changed(one), _changed(other)
            shared = ids[0].keys() & ids[1].keys()
            ids = tuple({name: each[name] for name in shared} for each in ids)
        files += _differing(path, one, other, *ids, *(_named(note, path) for note in (a, b)))
    if a.more or b.more:
        unknown.append(f"{max(a.more, b.more)} more files, which are not named")
    return CodeDifference(tuple(files), tuple(unknown))


def _ids_of(one: Repository, other: Repository, trees: Trees) -> tuple[Ids, Ids] | None:
    """Return mode and id of the files that may differ, on either side; None where a commit is not to be had."""
    mine, theirs = _changed(one), _changed(other)
    if one.commit == other.commit:
        # What only one of them has changed is on the other side as it was committed, whatever that is.
        as_committed = ("committed", "")
        added = {file.path for each in (one, other) for file in each.changed if file.status in _NEW}
        base: dict[str, tuple[str, str] | None] = {
            name: None if name in added else as_committed for name in (*mine, *theirs)
        }
        return base | mine, base | theirs
    tree, other_tree = trees.of(one), trees.of(other)
    if tree is None or other_tree is None:
        return None
    return tree | mine, other_tree | theirs


_NEW: Final = ("added", "untracked")


def _changed(repository: Repository) -> dict[str, tuple[str, str] | None]:
    return {file.path: _id_of(file) for file in repository.changed}


def _id_of(file: ChangedFile) -> tuple[str, str] | None:
    if file.status == "deleted":
        return None
    return (file.mode, file.id) if file.mode is not None and file.id is not None else (f"{file.size}", "")


def _differing(
    path: str,
    one: Repository,
    other: Repository,
    ids: Ids,
    others: Ids,
    named: Collection[str],
    others_named: Collection[str],
) -> Iterator[DifferingFile]:
    """Yield the files whose ids differ. `named`, `others_named`: those that are known by name alone."""
    minor = {file.path for each in (one, other) for file in each.changed if not file.code}
    for name in sorted({*ids, *others}):
        a, b = ids.get(name), others.get(name)
        if a == b:
            continue
        # Git did not know it there, so that its content was not noted.
        a, b = a or (name in named), b or (name in others_named)
        kind: Kind = "changed" if a and b else "only in A" if a else "only in B"
        yield DifferingFile(path, name, kind, name not in minor)


def _named(note: Provenance, path: str) -> set[str]:
    """Return the files in a repository that were named alone."""
    return {name.removeprefix(f"{path}/") for name in note.untracked} if path else set(note.untracked)


class Side:
    """One of two runs whose code is compared, with what is known of its contents. `snapshot`: its copy of the code."""

    def __init__(self, noted: Noted, snapshot: Path | None, trees: Trees) -> None:
        self._note, self._snapshot, self._trees = noted.provenance, snapshot, trees
        self._repositories = {each.path: each for each in self._note.repositories}
        patch = read_if_there(noted.patch) if noted.patch is not None else None
        self._sections = patches.sections(patch or b"")

    def content(self, file: DifferingFile) -> Content | None:
        """Return what the file held; None where it was not there. Raises LookupError where that is not known."""
        repository = self._repositories[file.repository]
        changed = next((each for each in repository.changed if each.path == file.path), None)
        if changed is not None and changed.status == "deleted":
            return None
        if (copy := self._copy(file.name)) is not None:
            return copy
        if file.name in self._note.untracked:
            raise LookupError("git did not know it, and it was not copied")
        committed = None
        if changed is None or changed.status == "modified":
            committed = self._committed(repository, file.path)
            if changed is None:
                return committed
        section = self._sections.get(patches.heading(os.fsencode(file.name)))
        if section is None or changed.mode is None:
            raise LookupError(changed.left_out or "its patch is gone")
        try:
            return Content(
                changed.mode, patches.apply(section, committed.body if committed is not None else b"")
            )
        except ValueError as error:
            raise LookupError(str(error)) from error

    def _committed(self, repository: Repository, path: str) -> Content | None:
        tree = self._trees.of(repository)
        if tree is None:
            raise LookupError("its commit is in no repository here")
        if path not in tree:
            return None
        mode, oid = tree[path]
        for top in self._trees.places(repository.path):
            body = repository_status.contents(top, [oid], MOST_SHOWN_BYTES).get(oid)
            if body is not None:
                return Content(mode, body)
        raise LookupError("its committed content is too large, or not here")

    def _copy(self, name: str) -> Content | None:
        if self._snapshot is None:
            return None
        path = self._snapshot / name
        try:
            with open(open_regular(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123
                body = file.read(MOST_SHOWN_BYTES + 1)
                executable = os.fstat(file.fileno()).st_mode & 0o100
        except OSError:
            return None
        return Content("100755" if executable else "100644", body) if len(body) <= MOST_SHOWN_BYTES else None


def patch_between(file: DifferingFile, a: Side, b: Side) -> bytes:
    """Return how the file differs. Raises LookupError where a content is not known."""
    old, new = a.content(file), b.content(file)
    if any(content is not None and b"\0" in content.body for content in (old, new)):
        raise LookupError("it is not text")
    return patches.patch(os.fsencode(file.name), old, new)
