"""Which checkpoints has a live segment saved, without a word about them? Told from the files that its patterns name.

One is complete when it looks the same in two looks a second apart, no process of the run holds it open for writing,
and it is whole (`judge`). Once nothing of the segment lives, one look decides; then what a killed writer may have left
half-written is not taken where its format could not tell.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.spec import Plan
from backprop.worker.checkpoints.candidate import CandidateCheck, WriterExit, may_be_half, record_of, step_in
from backprop.worker.checkpoints.directory_scan import DirectoryScan, newest_first
from backprop.worker.checkpoints.fingerprint import Contents, holds_the_same
from backprop.worker.checkpoints.open_files import open_for_writing
from backprop.worker.checkpoints.validation import CheckpointFile, Rejected

LOOK_EVERY_S: Final = 2.0
HURRY_S: Final = 0.5
COST_SHARE: Final = 0.02
"""Of a worker's time, at most this for looking at one segment's files: a slow disk is looked at more seldom."""
PAUSE_CAP_S: Final = 60.0
SETTLED_S: Final = 1.0
NEWEST: Final = 8
"""Of what is found at once, these are told; a resume needs no more."""


@dataclass(frozen=True)
class ScannedCheckpoint:
    """`record`: for the database. `in_place`: it is overwritten where it is, and a copy has to be kept."""

    record: CheckpointRecord
    in_place: bool


class CheckpointScanner:
    """Looks at one segment's files, cheaply, as often as it is asked to."""

    def __init__(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        *,
        avoid: Path,
        known: Iterable[CheckpointRecord],
        pids: Callable[[], frozenset[int]],
        resumed: Contents | None = None,
    ) -> None:
        """`avoid`: never looked into. `known`: the run's checkpoints on record; those of this segment say how far a
        worker before us got. `pids`: the segment's processes now."""
        self._run, self._segment, self._pids = run, segment, pids
        self._plan = run.spec.plan or Plan()
        self._avoid = avoid
        self._judge = CandidateCheck(run.spec)
        own = [one.mtime_ns for one in known if one.segment == segment.number and one.refused is None]
        self._told_before_ns = max(own, default=None)
        self._at_first: dict[str, CheckpointFile] | None = None
        self._taken: dict[str, tuple[CheckpointFile, int]] = {}
        self._faulty: dict[str, CheckpointFile] = {}
        self._before: dict[str, tuple[CheckpointFile, float]] = {}
        self._resumed = resumed
        self._sweep = self._begin()
        self._next_s = 0.0
        self.cut_short = False

    def look(self, *, hurry: bool = False) -> list[ScannedCheckpoint]:
        """What has become complete since the last look, oldest first; nothing while it is not time to look again."""
        began_s = time.monotonic()
        if not self._plan.globs or began_s < self._next_s:
            return []
        new: list[ScannedCheckpoint] = []
        if self._sweep.step():
            self._remember_first()
            new = self._reactions(self._settled())
            self._before = {
                path: (known, self._first_s(path, known, at_s))
                for path, (known, at_s) in self._sweep.found.items()
            }
            self._sweep = self._begin()
        cost_s = time.monotonic() - began_s
        self._next_s = time.monotonic() + max(
            HURRY_S if hurry else LOOK_EVERY_S, min(cost_s / COST_SHARE, PAUSE_CAP_S)
        )
        return new

    def last_look(self, end: WriterExit) -> list[ScannedCheckpoint]:
        """The same once nothing of the segment lives."""
        if not self._plan.globs:
            return []
        self._sweep.close()
        self._sweep = self._begin()
        self.cut_short = not self._sweep.whole()
        self._remember_first()
        self._faulty.clear()
        found = list(newest_first(self._sweep.found))
        return self._reactions(
            [(path, known) for path, known in found if self._sure(path, known, found, end)]
        )

    def close(self) -> None:
        self._sweep.close()

    def _begin(self) -> DirectoryScan:
        # Where the clock was set back, nothing saved now can be newer than now.
        since_s = min(self._segment.started_at_s, time.time())
        return DirectoryScan(self._plan.globs, since_s, self._avoid)

    def _remember_first(self) -> None:
        if self._at_first is None:
            self._at_first = {path: known for path, (known, _) in self._sweep.found.items()}

    def _first_s(self, path: str, known: CheckpointFile, at_s: float) -> float:
        """Since when it has looked like this."""
        before = self._before.get(path)
        return before[1] if before is not None and before[0] == known else at_s

    def _settled(self) -> list[tuple[str, CheckpointFile]]:
        """Those that look as they did, that nobody writes, and that are not dealt with."""
        ripe = [
            (path, known)
            for path, known in newest_first(self._sweep.found)
            if self._sweep.found[path][1] - self._first_s(path, *self._sweep.found[path]) >= SETTLED_S
            and self._faulty.get(path) != known
            and not self._is_taken(path, known)
        ]
        written = open_for_writing([str(known.path) for _, known in ripe], self._pids()) if ripe else ()
        return [(path, known) for path, known in ripe if str(known.path) not in written]

    def _is_taken(self, path: str, known: CheckpointFile) -> bool:
        return path in self._taken and self._taken[path][0] == known

    def _sure(
        self, path: str, known: CheckpointFile, found: Sequence[tuple[str, CheckpointFile]], end: WriterExit
    ) -> bool:
        settled = path in self._before and self._before[path][0] == known
        newest_s = max(one.mtime_ns for _, one in found) / 1e9
        return settled or not may_be_half(known, self._plan, end, newest_s)

    def _reactions(self, complete: Sequence[tuple[str, CheckpointFile]]) -> list[ScannedCheckpoint]:
        """`complete`: newest first."""
        new: list[ScannedCheckpoint] = []
        for path, known in complete:
            if self._is_taken(path, known) or self._told_before(path, known):
                continue
            judged = self._judge.of(path, known, self._segment.started_at_s)
            if judged is None:
                # An empty marker may go from a folder, and nothing of it looks different.
                if not known.is_dir:
                    self._faulty[path] = known
                continue
            if holds_the_same(known.path, self._resumed):
                judged = Rejected(f"{known.path}: holds what this segment resumed from, so no new work")
            if len(new) < NEWEST:
                told = ScannedCheckpoint(self._record(path, known, judged), self._in_place(path))
                new.append(told)
            self._taken[path] = (known, _inode(path))
        return new[::-1]

    def _told_before(self, path: str, known: CheckpointFile) -> bool:
        """By a worker before us. The oldest of these may be forgotten by now: put in again, it would be taken for the
        newest. Told by what was there first, not by time alone: the clock may be set back later."""
        if self._told_before_ns is None or self._at_first is None or self._plan.in_place:
            return False
        return known.mtime_ns < self._told_before_ns and self._at_first.get(path) == known

    def _in_place(self, path: str) -> bool:
        """Said by the plan, or seen: another content in the same inode."""
        seen = path in self._taken and self._taken[path][1] == _inode(path) != 0
        return self._plan.in_place or seen

    def _record(
        self, path: str, known: CheckpointFile, judged: CheckpointFile | Rejected
    ) -> CheckpointRecord:
        record = record_of(self._run.id, self._segment, known, step_in(path, self._plan.step_pattern))
        if isinstance(judged, Rejected):
            return msgspec.structs.replace(record, path=path, size_bytes=0, mtime_ns=0, refused=judged.why)
        return record


def _inode(path: str) -> int:
    """0 for a folder, and for what is gone."""
    try:
        return os.stat(path).st_ino if os.path.isfile(path) else 0  # noqa: PTH113, PTH116
    except OSError:
        return 0
