"""Finds the checkpoints that a live segment saves without announcing them.

It looks at the files that its patterns name, and at whatever else the segment's `Finder` has found. One is complete
when it looks the same in two scans a second apart, no process of the run holds it open for writing, and it is whole
(`candidate`). One that is overwritten too often for that is taken at one look, where its format shows its end. Once
nothing of the segment lives, one scan decides; then what a killed writer may have left unfinished is not taken where
its format could not show it. Which run wrote it is decided elsewhere.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.spec import Plan
from backprop.worker.checkpoints.candidate import (
    CandidateCheck,
    WriterExit,
    may_be_unfinished,
    record_of,
    step_in,
)
from backprop.worker.checkpoints.content.results import EarlierSaves, SavedContent, saved_content
from backprop.worker.checkpoints.directory_scan import DirectoryScan, newest_first
from backprop.worker.checkpoints.fingerprint import Contents, holds_the_same
from backprop.worker.checkpoints.formats import shows_its_end
from backprop.worker.checkpoints.open_files import open_for_writing
from backprop.worker.checkpoints.seen.attribution import RunIds
from backprop.worker.checkpoints.seen.baseline import Beginning
from backprop.worker.checkpoints.seen.evidence import Seen, seen_of
from backprop.worker.checkpoints.seen.finder import Finder
from backprop.worker.checkpoints.seen.witness import Witness
from backprop.worker.checkpoints.validation import CheckpointFile, Rejected
from backprop.worker.clock import steady_s

SCAN_EVERY_S: Final = 2.0
HURRY_S: Final = 0.5
COST_SHARE: Final = 0.02
"""Of a worker's time, at most this for scanning one segment's files: a slow disk is scanned less often."""
PAUSE_CAP_S: Final = 60.0
LONGEST_SAVE_S: Final = 900.0
"""What changes for longer is written to all the while, and nothing stands still for it."""
SETTLED_S: Final = 1.0
RESTLESS_S: Final = 5.0
"""What has looked different for so long is overwritten faster than it could be seen to stand still."""
MAX_REPORTED: Final = 8
"""The newest of those found at once; a resume needs no more."""
MAX_FOUND: Final = 32
"""The same, while other runs' files may be among them."""


class ScannedCheckpoint(msgspec.Struct, frozen=True):
    """`record`: for the database. `in_place`: it is overwritten where it is, so a backup is needed. `path`: as it was
    found. `seen`: what was seen of its writing. `content`: of one that may count. `shared_with`: runs that are not
    final, and wrote it too. `took_s`: for how long it was seen to change; 0 where it was whole at the first look."""

    record: CheckpointRecord
    in_place: bool
    path: str
    seen: Seen
    content: SavedContent | None = None
    shared_with: RunIds = frozenset()
    took_s: float = 0.0


class CheckpointScanner:
    """Scans one segment's files, cheaply, as often as it is asked to."""

    def __init__(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        *,
        avoid: Path,
        recorded: Iterable[CheckpointRecord],
        pids: Callable[[], frozenset[int]],
        began: Callable[[], Beginning],
        resumed: Callable[[], Contents | None] = lambda: None,
        finder: Finder | None = None,
        witness: Witness | None = None,
    ) -> None:
        """`avoid`: a folder never opened. `recorded`: the run's checkpoints on record; those of this segment say how
        far an earlier worker got. `pids`: the segment's processes now. `began`: returns its beginning. `resumed`:
        returns what it began with; it is called once, by the first scan. `finder`: searches beyond the plan's patterns.
        `witness`: knows what all runs write."""
        self._finder, self._witness = finder, witness
        self._run, self._segment, self._pids = run, segment, pids
        self._plan = run.spec.plan or Plan()
        self._avoid = avoid
        self._candidates = CandidateCheck(run.spec)
        recorded = list(recorded)
        self._earlier = EarlierSaves(recorded)
        own = [each.mtime_ns for each in recorded if each.segment == segment.number and each.refused is None]
        self._recorded_until_ns = max(own, default=None)
        self._at_first: dict[str, CheckpointFile] | None = None
        self._observed: set[str] = set()
        self._reported: dict[str, tuple[CheckpointFile, int]] = {}
        self._broken: dict[str, CheckpointFile] = {}
        self._before: dict[str, tuple[CheckpointFile, float]] = {}
        self._changing: dict[str, float] = {}
        self._find_resumed = resumed
        self._find_began = began
        self._resumed: Contents | None = None
        self._scan = self._begin()
        self._next_s = 0.0
        self.cut_short = False
        self.is_writing = False
        """Whether the last look found one that is still being written, or may be."""

    def scan(self, *, hurry: bool = False) -> list[ScannedCheckpoint]:
        """Return what has become complete since the last scan, oldest first; nothing before the next scan is due."""
        if self._witness is not None:
            self._witness.look()
        began_s = time.monotonic()
        if began_s < self._next_s:
            return []
        if self._finder is not None:
            self._finder.step()
            began_s = time.monotonic()
        new: list[ScannedCheckpoint] = []
        if self._scan.step():
            self._add_found()
            self._remember_first()
            self._note_changing()
            new = self._report(self._settled())
            self._before = {
                path: (file, self._unchanged_since_s(path, file, at_s))
                for path, (file, at_s) in self._scan.files.items()
            }
            self._scan = self._begin()
        cost_s = time.monotonic() - began_s
        self._next_s = time.monotonic() + max(
            HURRY_S if hurry else SCAN_EVERY_S, min(cost_s / COST_SHARE, PAUSE_CAP_S)
        )
        return new

    def final_scan(self, end: WriterExit) -> list[ScannedCheckpoint]:
        """Return the same once nothing of the segment lives. `cut_short` then tells whether files were left out."""
        if self._witness is not None:
            self._witness.look(at_once=True)
        self._scan.close()
        self._scan = self._begin()
        self.cut_short = not self._scan.finish()
        if self._finder is not None:
            self._finder.finish()
        self._add_found()
        self._remember_first()
        self._broken.clear()
        files = list(newest_first(self._scan.files))
        return self._report([(path, file) for path, file in files if self._is_sure(path, file, files, end)])

    def close(self) -> None:
        self._scan.close()

    def _begin(self) -> DirectoryScan:
        self._began = self._find_began()
        return DirectoryScan(self._plan.globs, self._began, self._avoid)

    def _add_found(self) -> None:
        """Add what was found beyond the patterns, and neither is a part of what they name nor holds it."""
        named = {file.path for file, _ in self._scan.files.values()}
        around = {parent for file in named for parent in file.parents}
        for path in list(self._finder.found) if self._finder is not None else ():
            real = Path(os.path.realpath(path))
            if real not in named | around and named.isdisjoint(real.parents):
                self._scan.measure(path)
                self._observed.add(path)

    def search_no_further(self) -> None:
        """Look at what the patterns name alone from now on."""
        self._finder = None

    def _remember_first(self) -> None:
        if self._at_first is None:
            self._resumed = self._find_resumed()
            self._at_first = {path: file for path, (file, _) in self._scan.files.items()}

    def _unchanged_since_s(self, path: str, file: CheckpointFile, at_s: float) -> float:
        before = self._before.get(path)
        return before[1] if before is not None and before[0] == file else at_s

    def _note_changing(self) -> None:
        """Note since when each file has been other than it was when it was dealt with."""
        self._changing = {
            path: self._changing.get(path, at_s)
            for path, (file, at_s) in self._scan.files.items()
            if not self._is_reported(path, file)
        }

    def _took_s(self, path: str, file: CheckpointFile) -> float:
        since_s = self._changing.pop(path, None)
        if since_s is None or path in self._broken or not self._stands_still(path, file):
            return 0.0
        took_s = self._unchanged_since_s(path, file, self._scan.files[path][1]) - since_s
        return took_s if took_s <= LONGEST_SAVE_S else 0.0

    def _settled(self) -> list[tuple[str, CheckpointFile]]:
        """Return those that look as they did, that no process writes, and that were not dealt with."""
        open_ones = [
            (path, file)
            for path, file in newest_first(self._scan.files)
            if self._broken.get(path) != file and not self._is_reported(path, file)
        ]
        unchanged = [
            (path, file)
            for path, file in open_ones
            if self._stands_still(path, file) or self._is_restless(path, file)
        ]
        written = (
            open_for_writing([str(file.path) for _, file in unchanged], self._pids()) if unchanged else ()
        )
        self.is_writing = len(unchanged) < len(open_ones) or bool(written)
        return [(path, file) for path, file in unchanged if str(file.path) not in written]

    def _stands_still(self, path: str, file: CheckpointFile) -> bool:
        at_s = self._scan.files[path][1]
        return at_s - self._unchanged_since_s(path, file, at_s) >= SETTLED_S

    def _is_restless(self, path: str, file: CheckpointFile) -> bool:
        """Return whether it is a file that never stands still, and that would show a save cut off."""
        at_s = self._scan.files[path][1]
        if file.is_dir or at_s - self._changing.get(path, at_s) < RESTLESS_S:
            return False
        try:
            return shows_its_end(file.path)
        except OSError:
            return False

    def _is_reported(self, path: str, file: CheckpointFile) -> bool:
        return path in self._reported and self._reported[path][0] == file

    def _is_sure(
        self, path: str, file: CheckpointFile, files: Sequence[tuple[str, CheckpointFile]], end: WriterExit
    ) -> bool:
        settled = path in self._before and self._before[path][0] == file
        newest_s = max(each.mtime_ns for _, each in files) / 1e9
        return settled or not may_be_unfinished(file, self._plan, end, newest_s)

    def _report(self, complete: Sequence[tuple[str, CheckpointFile]]) -> list[ScannedCheckpoint]:
        """Return the new ones of `complete` (newest first), oldest first."""
        new: list[tuple[str, CheckpointFile, CheckpointFile | Rejected, bool]] = []
        for path, file in complete:
            if self._is_reported(path, file) or self._was_recorded(path, file):
                continue
            observed = path in self._observed
            checked = self._candidates.check(path, file, self._began, observed)
            if checked is None:
                # An empty marker may go from a folder, and nothing of it looks different.
                if not file.is_dir:
                    self._broken[path] = file
                continue
            if holds_the_same(file.path, self._resumed):
                checked = Rejected(f"{file.path}: holds what this segment resumed from, so no new work")
            if len(new) < (MAX_FOUND if self._finder is not None else MAX_REPORTED):
                new.append((path, file, checked, self._in_place(path)))
            self._reported[path] = (file, _inode(path))
        return [self._scanned(*each) for each in reversed(new)]

    def _scanned(
        self, path: str, file: CheckpointFile, checked: CheckpointFile | Rejected, in_place: bool
    ) -> ScannedCheckpoint:
        self._earlier.look_back()
        content = saved_content(file) if isinstance(checked, CheckpointFile) else None
        seen = seen_of(self._witness, file, self._appeared_s(path, file), in_place)
        took_s = self._took_s(path, file)
        return ScannedCheckpoint(
            self._record(path, file, checked), in_place, path, seen, content, took_s=took_s
        )

    def without_result(self, own: ScannedCheckpoint) -> ScannedCheckpoint:
        """Return what this run saved, refused where it has lost what the run's earlier saves had. Reads nothing."""
        why = self._earlier.why_result(own.content) if own.content is not None else None
        if why is None:
            return own
        refused = msgspec.structs.replace(
            own.record, size_bytes=0, mtime_ns=0, refused=f"{own.record.path}: {why}", observed=False
        )
        return msgspec.structs.replace(own, record=refused)

    def _appeared_s(self, path: str, file: CheckpointFile) -> float:
        """Return when it was first found as it is now, as of `steady_s`."""
        return steady_s(self._unchanged_since_s(path, file, self._scan.files[path][1]))

    def _was_recorded(self, path: str, file: CheckpointFile) -> bool:
        """Return whether an earlier worker recorded it. The oldest such records may be gone by now: recorded again, it
        would be taken for the newest. Not by time alone but by what was there first: the clock may be set back."""
        if self._recorded_until_ns is None or self._at_first is None or self._plan.in_place:
            return False
        return file.mtime_ns < self._recorded_until_ns and self._at_first.get(path) == file

    def _in_place(self, path: str) -> bool:
        """Return whether the plan says so, or another content was seen in the same inode."""
        changed = path in self._reported and self._reported[path][1] == _inode(path) != 0
        return (self._plan.in_place and path not in self._observed) or changed

    def _record(
        self, path: str, file: CheckpointFile, checked: CheckpointFile | Rejected
    ) -> CheckpointRecord:
        record = record_of(self._run.id, self._segment, file, step_in(path, self._plan.step_pattern))
        if isinstance(checked, Rejected):
            return msgspec.structs.replace(record, path=path, size_bytes=0, mtime_ns=0, refused=checked.why)
        return msgspec.structs.replace(record, observed=path in self._observed)


def _inode(path: str) -> int:
    """Return 0 for a folder, and for what is gone."""
    try:
        return os.stat(path).st_ino if os.path.isfile(path) else 0  # noqa: PTH113, PTH116
    except OSError:
        return 0
