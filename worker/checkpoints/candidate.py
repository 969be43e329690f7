"""Checks whether a file or folder that nobody writes any more is a whole checkpoint of a run, and makes its record."""

import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.outcome.next_move import EX_TEMPFAIL
from backprop.scheduler.records import CheckpointRecord, SegmentRecord
from backprop.scheduler.spec import Plan, RunSpec
from backprop.worker.checkpoints.formats import files_in, looks_whole, shows_its_end
from backprop.worker.checkpoints.glob_walk import fixed_folder
from backprop.worker.checkpoints.roots import roots_for
from backprop.worker.checkpoints.seen.baseline import Beginning
from backprop.worker.checkpoints.validation import (
    OUT_OF_RESOURCES,
    CheckpointFile,
    Rejected,
    lacks,
    measure,
    validate_announced,
)
from backprop.worker.executor.segment_files import ExitRecord

LAST_WORDS_S: Final = 5.0
"""What a killed process wrote in its last seconds may be half of a file."""


class WriterExit(msgspec.Struct, frozen=True):
    """When a segment ended (Unix seconds, None when nobody saw), and whether its leader had no chance to finish."""

    at_s: float | None
    killed: bool


def writer_exit(exit: ExitRecord | None) -> WriterExit:  # noqa: A002
    """Return how the writer ended. `exit` None: lost."""
    if exit is None or not exit.seen_to_end:
        return WriterExit(None, killed=True)
    # A launcher (a shell script, torchrun) outlives the process that was killed, and exits as it likes.
    by_itself = exit.asked is None and exit.exit_code not in (None, 0, EX_TEMPFAIL)
    return WriterExit(
        exit.ended_at_s, killed=by_itself or exit.escalated != "none" or exit.signal == signal.SIGKILL
    )


class CandidateCheck:
    """Checks candidates of one run."""

    def __init__(self, spec: RunSpec) -> None:
        self._plan = spec.plan or Plan()
        self._spec = spec
        self._cwd = Path(spec.cwd)
        self._folders = [fixed_folder(pattern) for pattern in self._plan.globs]

    def check(
        self, path: str, file: CheckpointFile, began: Beginning, observed: bool = False
    ) -> CheckpointFile | Rejected | None:
        """Validate what is whole as if it had been announced; None for what is not, or has changed meanwhile.

        `path`: as it was found. `began`: the segment's beginning. `observed`: no pattern names it, and it was found
        where the run may save. Raises OSError when out of resources.
        """
        if fault_of(file, self._plan.needs) is not None:
            return None
        roots = (file.path,) if observed else self._roots(path, file)
        valid = validate_announced(path, self._cwd, roots, began, said=False)
        return valid if isinstance(valid, Rejected) or valid == file else None

    def _roots(self, path: str, file: CheckpointFile) -> tuple[Path, ...]:
        """Return the run's own, and the folder that a pattern names: the user, or the recipe, asked for it.

        Where that is too broad for a root (/tmp, the home folder), the path itself, if no link leads away from it.
        """
        named = [file.path] if path == str(file.path) else []
        resume_from = Path(self._spec.resume_from) if self._spec.resume_from else None
        extra = [*map(Path, self._spec.checkpoint_roots), *self._folders, *named]
        return roots_for(self._cwd, self._spec.argv, resume_from, extra)


def fault_of(file: CheckpointFile, needs: Sequence[str]) -> str | None:
    """Return why it is not a whole checkpoint now; None for one that is. Raises OSError when out of resources."""
    try:
        # Measured again last: whatever was written meanwhile shows.
        why = lacks(file, needs) or looks_whole(file.path)
        return why or (None if measure(file.path) == file else "it is being written")
    except OSError as error:
        if error.errno in OUT_OF_RESOURCES:
            raise
        return error.strerror or str(error)
    except ValueError:
        return "a name in its path is not UTF-8"


def may_be_unfinished(file: CheckpointFile, plan: Plan, end: WriterExit, newest_s: float) -> bool:
    """Return whether a killed writer may have left it unfinished in a way that its format does not show.

    `newest_s`: the newest time among the candidates, for an end that nobody saw.
    """
    if not end.killed or (file.is_dir and plan.needs):
        return False
    late_ns = ((end.at_s or newest_s) - LAST_WORDS_S) * 1e9
    try:
        if not file.is_dir:
            return file.mtime_ns >= late_ns and not shows_its_end(file.path)
        return any(
            entry.stat().st_mtime_ns >= late_ns and not shows_its_end(Path(entry.path))
            for entry in files_in(str(file.path))
        )
    except OSError:
        return True


def record_of(
    run_id: str, segment: SegmentRecord, file: CheckpointFile, step: int | None
) -> CheckpointRecord:
    """Return the record of a good one. `saved_at_s` is the file's own time: the time of the scan says little about how
    often a script saves."""
    saved_s = min(max(file.mtime_ns / 1e9, segment.started_at_s), max(time.time(), segment.started_at_s))
    return CheckpointRecord(
        run_id=run_id,
        segment=segment.number,
        path=str(file.path),
        step=step,
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
        is_dir=file.is_dir,
        saved_at_s=saved_s,
        refused=None,
    )


def step_in(path: str, pattern: str | None) -> int | None:
    """Return the step in a path: in its last part, else anywhere; None without one."""
    if pattern is None:
        return None
    try:
        match = re.search(pattern, Path(path).name) or re.search(pattern, path)
        return int(match.group(1)) if match is not None else None
    except (re.error, IndexError, ValueError, TypeError):
        return None
