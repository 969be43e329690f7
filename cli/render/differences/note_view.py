"""Shows the note of one run: a line for people, and its JSON, documented in docs/json.md."""

from typing import TYPE_CHECKING, Any

from backprop.cli.render.json_views import iso
from backprop.scheduler.home.layout import Home
from backprop.worker.environment.provenance import notes
from backprop.worker.environment.provenance.notes import Noted

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord


def note_of(home: Home, run: "RunRecord") -> Noted | None:
    """Return a run's newest note; None where it has none, or it cannot be read."""
    try:
        return notes.read(home, run.id, run.batch, run.spec)
    except OSError:
        return None


def code_words(noted: Noted) -> str:
    """Return which code it was, in words."""
    note = noted.provenance
    count = sum(file.code for each in note.repositories for file in each.changed)
    if not note.git:
        trouble = f" ({note.trouble})" if note.trouble else ""
        return f"no git commit{trouble}; {_files(count)} noted"
    commit = note.own.commit[:7] if note.own.commit is not None else "no commit yet"
    branch = f", {note.own.branch}" if note.own.branch is not None else ", detached"
    changes = f", + changes in {_files(count)}" if count else ""
    after = f"; since its resume after segment {noted.after}" if noted.after else ""
    return f"{commit}{branch}{changes}{after}"


def python_words(noted: Noted) -> str | None:
    """Return its Python in words; None where that is not known."""
    python = noted.provenance.python
    if python is None or python.version is None:
        return None
    packages = f", {python.packages.count} packages" if python.packages is not None else ""
    return f"{python.version}{packages}"


def note_json(home: Home, noted: Noted | None) -> dict[str, Any] | None:
    """Return the note as in `show --json`."""
    if noted is None:
        return None
    note = noted.provenance
    return {
        "at": iso(note.at_s),
        "after_segment": noted.after,
        "root": note.root,
        "git": note.git,
        "commit": note.own.commit,
        "branch": note.own.branch,
        "dirty": note.dirty if note.git else None,
        "changed": [
            {
                "repository": each.path,
                "path": file.path,
                "status": file.status,
                "left_out": file.left_out or None,
            }
            for each in note.repositories
            for file in each.changed
        ],
        "repositories": [
            {"path": each.path, "commit": each.commit, "branch": each.branch} for each in note.repositories
        ],
        "untracked": list(note.untracked),
        "more": note.more,
        "patch": str(noted.patch) if noted.patch is not None else None,
        "trouble": note.trouble or None,
        "python": _python_json(home, noted),
    }


def _python_json(home: Home, noted: Noted) -> dict[str, Any] | None:
    python = noted.provenance.python
    if python is None:
        return None
    packages = python.packages
    return {
        "path": python.path,
        "version": python.version,
        "packages": packages.count if packages is not None else None,
        "packages_digest": packages.digest if packages is not None else None,
        "packages_file": str(home.packages / f"{packages.digest}.json") if packages is not None else None,
    }


def _files(count: int) -> str:
    return f"{count} file{'s' if count != 1 else ''}"
