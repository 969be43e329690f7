"""Tells whether the code of a run is still what it was queued with, and notes what it goes on with."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from backprop.scheduler.home import batch_file
from backprop.scheduler.home.layout import Home
from backprop.worker.environment.provenance import code_state, notes
from backprop.worker.environment.provenance.differences import Trees, compare
from backprop.worker.environment.provenance.notes import Noted
from backprop.worker.environment.provenance.records import Provenance
from backprop.worker.user_files import within

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord

PATIENCE_S: Final = 1.0
"""For all runs of a command together; what is not known by then is not said."""
NAMED: Final = 3


class CodeChange(msgspec.Struct, frozen=True):
    """What has become of a run's code since its note. `files`: those that differ. `commits`: before and now. `now`: the
    note of today, with its patch."""

    files: tuple[str, ...]
    commits: tuple[str | None, str | None]
    now: tuple[Provenance, bytes]


def changes_since(home: Home, runs: "Sequence[RunRecord]") -> dict[str, CodeChange]:
    """Return how the code of these runs has changed since they were queued, or last resumed, by id.

    Left out: a run without a note, and what is not found out in time. Raises nothing.
    """
    found: dict[str, CodeChange] = {}
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        within(PATIENCE_S, lambda: _Looks(home).at(runs, found))
    return dict(found)


def in_words(changes: Mapping[str, CodeChange]) -> str | None:
    """Return in one line that the code of some of these runs has changed; None where it has not."""
    changed = {run_id: change for run_id, change in changes.items() if change.files}
    if not changed:
        return None
    files = list(dict.fromkeys(name for each in changed.values() for name in each.files))
    named = ", ".join(files[:NAMED]) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")
    if len(changes) > 1:
        return (
            f"the code of {len(changed)} of {len(changes)} runs has changed since they were queued: {named}"
        )
    ((run_id, change),) = changed.items()
    before, now = (commit[:7] if commit is not None else "none" for commit in change.commits)
    commits = f" (commit {before}, now {now})" if before != now else ""
    return f"the code has changed since {run_id} was queued{commits}: {named}"


def note_again(home: Home, run: "RunRecord", change: CodeChange) -> None:
    """Note what a run goes on with, beside what it was queued with. Raises nothing."""
    note, patch = change.now
    with contextlib.suppress(OSError):
        notes.write(home.run_folder(run.id), notes.name_of(run.chain_start), note, patch)


class _Looks:
    """Looks at each folder of code once, however many runs have it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._notes: dict[notes.Kind, tuple[Provenance, bytes]] = {}
        self._trees: dict[tuple[str, str], Trees] = {}

    def at(self, runs: "Sequence[RunRecord]", found: dict[str, CodeChange]) -> None:
        """Put what is found out into `found`, run by run. Raises OSError."""
        for run in runs:
            noted = notes.read(self._home, run.id, run.batch, run.spec)
            if noted is not None:
                found[run.id] = self._change(run, noted)

    def _change(self, run: "RunRecord", noted: Noted) -> CodeChange:
        kind, before = notes.kind_of(run.spec), noted.provenance
        if kind not in self._notes:
            script = Path(kind.script) if kind.script is not None else None
            state = code_state.look(kind.base, script, self._home.root)
            environment = batch_file.environment_of(self._home, run)
            self._notes[kind] = notes.make(kind, state, environment, self._home)
        now, _ = self._notes[kind]
        trees = self._trees.setdefault((before.root, now.root), Trees(before.root, now.root))
        difference = compare(before, now, trees)
        files = tuple(file.name for file in difference.files if file.code)
        commits = before.own.commit, now.own.commit
        if not files and commits[0] != commits[1] and difference.unknown:
            files = ("what cannot be compared",)
        return CodeChange(files, commits, self._notes[kind])
