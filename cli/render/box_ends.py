"""Reads how long the boxes of live segments still last: what was renewed, paused or suspended ends at another time."""

import contextlib
from collections.abc import Sequence

from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import HAS_PROCESSES
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.spec import NO_TIMEBOX_S

Left = dict[str, float | None]
"""Seconds by run, less than nothing where its box is past; None for one without an end."""


def boxes_left(
    home: Home, runs: Sequence[RunRecord], segments: Sequence[SegmentRecord], now_s: float
) -> Left:
    """Return what is left of the boxes of those of these runs that live. `segments`: the live ones. Where its folder
    does not tell, a segment is taken to have run all the time. Raises nothing."""
    own = {segment.run_id: segment for segment in segments}
    return {
        run.id: _box_left_s(home, run, own[run.id], now_s)
        for run in runs
        if run.state in HAS_PROCESSES and run.id in own
    }


def _box_left_s(home: Home, run: RunRecord, segment: SegmentRecord, now_s: float) -> float | None:
    from backprop.worker.executor import box_files

    if run.spec.timebox_s >= NO_TIMEBOX_S:
        return None
    left_s = None
    with contextlib.suppress(OSError):
        left_s = box_files.left_s(home.segment_folder(run.id, segment.number))
    if left_s is not None:
        return left_s
    return segment.started_at_s + max(segment.boxes, 1) * run.spec.timebox_s - now_s
