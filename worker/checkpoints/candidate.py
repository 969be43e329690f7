"""Is this file or folder, that nobody writes any more, a whole checkpoint of a run? And what goes on record of it?"""

import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backprop.scheduler.outcome import EX_TEMPFAIL
from backprop.scheduler.records import CheckpointRecord, SegmentRecord
from backprop.scheduler.spec import Plan, RunSpec
from backprop.worker.checkpoints import validation
from backprop.worker.checkpoints.formats import files_in, looks_whole, shows_its_end
from backprop.worker.checkpoints.glob_walk import fixed_folder
from backprop.worker.checkpoints.validation import CheckpointFile, Rejected, lacks, measure
from backprop.worker.executor.segment_files import ExitRecord

LAST_WORDS_S: Final = 5.0
"""What a killed process wrote in its last seconds may be half of a file."""


@dataclass(frozen=True)
class WriterExit:
    """A segment's end: when (Unix seconds, None when nobody saw), and whether its leader had no chance to finish."""

    at_s: float | None
    killed: bool


def writer_exit(exit: ExitRecord | None) -> WriterExit:  # noqa: A002
    """`exit` None: lost."""
    if exit is None or not exit.seen_to_end:
        return WriterExit(None, killed=True)
    # A launcher (a shell script, torchrun) outlives the process that was killed, and exits as it likes.
    by_itself = exit.asked is None and exit.exit_code not in (None, 0, EX_TEMPFAIL)
    return WriterExit(
        exit.ended_at_s, killed=by_itself or exit.escalated != "none" or exit.signal == signal.SIGKILL
    )


class CandidateCheck:
    """Whether a candidate that nobody writes any more is a checkpoint of a run."""

    def __init__(self, spec: RunSpec) -> None:
        self._plan = spec.plan or Plan()
        self._spec = spec
        self._cwd = Path(spec.cwd)
        self._folders = [fixed_folder(pattern) for pattern in self._plan.globs]

    def of(self, path: str, known: CheckpointFile, since_s: float) -> CheckpointFile | Rejected | None:
        """The claim's answer for what is whole; None for what is not, or has changed meanwhile. Raises OSError when it
        cannot look just now."""
        if fault_of(known, self._plan.needs) is not None:
            return None
        claimed = validation.validate_announced(
            path, self._cwd, self._roots(path, known), since_s, time.time()
        )
        return claimed if isinstance(claimed, Rejected) or claimed == known else None

    def _roots(self, path: str, known: CheckpointFile) -> tuple[Path, ...]:
        """The run's own, and the folder that a pattern names: the user, or the recipe, said so. Where that is too broad
        for a root (/tmp, the home folder), the path itself, if no link leads away from it."""
        named = [known.path] if path == str(known.path) else []
        given = [Path(self._spec.resume_from)] if self._spec.resume_from else []
        extra = [*map(Path, self._spec.checkpoint_roots), *self._folders, *named]
        return validation.roots_for(self._cwd, self._spec.argv, given[0] if given else None, extra)


def fault_of(known: CheckpointFile, needs: Sequence[str]) -> str | None:
    """Why it is no whole checkpoint as it stands now; None for one that is. Raises OSError when it cannot look just
    now."""
    try:
        # Measured again last: whatever was written meanwhile shows.
        why = lacks(known, needs) or looks_whole(known.path)
        return why or (None if measure(known.path) == known else "it is being written")
    except OSError as error:
        if error.errno in validation.CANNOT_LOOK:
            raise
        return error.strerror or str(error)
    except ValueError:
        return "a name in its path is not UTF-8"


def may_be_half(known: CheckpointFile, plan: Plan, end: WriterExit, newest_s: float) -> bool:
    """Whether a killed writer may have left this unfinished in a way that its format does not show. `newest_s`: the
    newest time among its kind, for an end that nobody saw."""
    if not end.killed or (known.is_dir and plan.needs):
        return False
    late_ns = ((end.at_s or newest_s) - LAST_WORDS_S) * 1e9
    try:
        if not known.is_dir:
            return known.mtime_ns >= late_ns and not shows_its_end(known.path)
        return any(
            entry.stat().st_mtime_ns >= late_ns and not shows_its_end(Path(entry.path))
            for entry in files_in(str(known.path))
        )
    except OSError:
        return True


def record_of(
    run_id: str, segment: SegmentRecord, known: CheckpointFile, step: int | None
) -> CheckpointRecord:
    """A good one. `saved_at_s` is the file's own time: when it was seen says little of how often a script saves."""
    saved_s = min(max(known.mtime_ns / 1e9, segment.started_at_s), max(time.time(), segment.started_at_s))
    return CheckpointRecord(
        run_id=run_id,
        segment=segment.number,
        path=str(known.path),
        step=step,
        size_bytes=known.size_bytes,
        mtime_ns=known.mtime_ns,
        is_dir=known.is_dir,
        saved_at_s=saved_s,
        refused=None,
    )


def step_in(path: str, pattern: str | None) -> int | None:
    """The step that a path tells: in its last part, else anywhere."""
    if pattern is None:
        return None
    try:
        found = re.search(pattern, Path(path).name) or re.search(pattern, path)
        return int(found.group(1)) if found is not None else None
    except (re.error, IndexError, ValueError, TypeError):
        return None
