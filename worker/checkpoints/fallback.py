"""Decides whether a segment failed at once because of its checkpoint, and which one to try instead.

Such a checkpoint is a suspect (`suspects`). What a script picks by itself can only be changed by putting a kept copy in
its place.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from backprop.scheduler.home.layout import Home
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import SUSPECT, CheckpointRecord, RunRecord, SegmentRecord
from backprop.worker.checkpoints.resume import picks_itself
from backprop.worker.checkpoints.start_point import RunRows, choose_start

AT_ONCE_S: Final = 60.0


def failed_at_once(
    segment: SegmentRecord,
    running_s: float | None,
    saved: Iterable[CheckpointRecord],
    earlier: Iterable[SegmentRecord],
) -> bool:
    """Return whether a segment that failed did nothing with the checkpoint that it was given.

    Without any step where earlier ones reported some; else within a minute. `saved`: the run's checkpoints.
    """
    if segment.checkpoint_used is None or segment.first_step is not None:
        return False
    if any(record.segment == segment.number for record in saved):
        return False
    reports = any(other.first_step is not None for other in earlier)
    return reports or (running_s is not None and running_s <= AT_ONCE_S)


def fallback(home: Home, run: RunRecord, rows: RunRows, suspect: str | None) -> str | None:
    """Return what the next segment would begin from without this checkpoint; None where nothing good is left.

    Reads the files. Raises OSError.
    """
    marked, found = list[CheckpointRecord](), False
    for record in rows.saved:
        is_it = not found and record.path == suspect and record.refused is None
        found = found or is_it
        marked.append(msgspec.structs.replace(record, refused=SUSPECT) if is_it else record)
    start = choose_start(home, run, msgspec.structs.replace(rows, saved=marked)) if found else None
    if start is None or start.checkpoint is None or start.problem is not None or start.waits_for is not None:
        return None
    if start.restore is not None:
        return f"the kept copy of segment {start.restore.source.segment}"
    plan = run.spec.plan
    picks = plan is not None and plan.resumes != "unknown" and picks_itself(run.spec)
    return None if start.checkpoint == suspect or picks else start.checkpoint


def fallen_back(run: RunRecord, saved: Sequence[CheckpointRecord], earlier: Sequence[SegmentRecord]) -> int:
    """Return how many segments in a row, up to the last of `earlier`, failed at once with a checkpoint."""
    count = 0
    while count < len(earlier):
        at = len(earlier) - 1 - count
        segment = earlier[at]
        in_chain = segment.number > run.chain_start and segment.outcome is SegmentOutcome.FAILED
        if not in_chain or not failed_at_once(segment, segment.running_s, saved, earlier[:at]):
            break
        count += 1
    return count
