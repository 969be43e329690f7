"""Decides how long a segment may run, and when it ends before that: right after a save, where that loses least.

Pure: reads no clock, file or database. Times are seconds of running time since the segment began; pauses do not count.

- A script that saves periodically and not when it is asked to stop loses whatever it does after its last save. If the
  next save would land after the timebox, the segment ends at the last one that fits: nothing is done twice, and the
  GPU is free earlier. The price is one more start, which comes sooner or later anyway.
- A script that saves when asked gets its full time. Its recipe says so, or an earlier segment has shown it. A script
  that announces its checkpoints is assumed to, until a segment has shown otherwise.
- Never before half of the timebox: what a script saves as it starts holds no work.
- A box in which nothing new was saved is not repeated but doubled; and one in which the first save came late stays long
  enough for it.
- With `--overrun` the supervisor's box is longer; a segment with a checkpoint by the end of the timebox ends there.
- A segment that was given another box is judged by the one in force.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

import msgspec

from backprop.scheduler.governor.box_end import BoxRule, rule_of
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.spec import RunSpec

RECENT: Final = 5
"""This many of the latest gaps count: a run that has become slower is judged by how it is now."""
ONE_SAVE: Final = 0.1
"""Files that land within this share of the longest gap belong to one save: model and optimiser, last and best."""
JITTER: Final = 0.05
"""How much later than expected a save may land, as a share of the gap."""
LEAST_SHARE: Final = 0.5
MOST_BOXES: Final = 4.0
"""A box is never made longer than this many of the run's own."""
FIRST_SAVE_MARGIN: Final = 1.25
SETTLE_S: Final = 2.0
"""A script is left alone for up to this long after a save: a second file of it may follow."""


class SaveHistory(msgspec.Struct, frozen=True, kw_only=True):
    """How a script is known to save.

    `gaps_s`: between saves, oldest first. `silent_s`: how long an earlier segment ran after its last save without
    another. `saves_when_asked`: on the stop signal. `first_s`: how long the last segment that saved by itself ran
    before its first save.
    """

    gaps_s: tuple[float, ...] = ()
    silent_s: float | None = None
    saves_when_asked: bool = False
    first_s: float | None = None


class Box(msgspec.Struct, frozen=True):
    """The timebox in force of a segment: when it began and ends. `cuts`: it may end before, right after a save.
    `overruns`: what `--overrun` adds applies."""

    begins_s: float
    ends_s: float
    cuts: bool = True
    overruns: bool = False


def box_s(run: RunRecord, history: SaveHistory | None = None) -> float:
    """Return how long a timebox of the segment is: the run's, cut to what `--max-total-minutes` leaves. Where its end
    ends the segment in any case, it is longer where that was too short to save anything. `history`: where known."""
    if rule_of(run.spec) is BoxRule.AUTO:
        return min(run.spec.timebox_s, _left_s(run))
    wanted_s = run.spec.timebox_s * 2**run.stalled
    if history is not None and history.first_s is not None and history.first_s > run.spec.timebox_s:
        wanted_s = max(wanted_s, history.first_s * FIRST_SAVE_MARGIN)
    return min(wanted_s, MOST_BOXES * run.spec.timebox_s, _left_s(run))


def latest_end_s(run: RunRecord, history: SaveHistory) -> float:
    """Return how long the supervisor lets this segment run, with or without a worker: its box and what it may overrun
    it by. Where its ends are decided upon, this is the first one. `history`: as far as it is known when the segment
    starts (`announces` False)."""
    if rule_of(run.spec) is BoxRule.AUTO or history.saves_when_asked:
        return box_s(run, history)
    return min(box_s(run, history) * (1 + run.spec.overrun_pct / 100), _left_s(run))


def _left_s(run: RunRecord) -> float:
    left_s = float("inf") if run.spec.max_total_s is None else run.spec.max_total_s - run.chain_total_s
    return max(left_s, 1.0)


def why_cut(history: SaveHistory, box: Box, saves_s: Sequence[float], elapsed_s: float) -> str | None:
    """Return why the segment should end now, right after a save; None to let it run.

    `saves_s`: when this segment's good saves landed that go beyond what it resumed from, oldest first.
    """
    gap_s = expected_gap_s(history, saves_s)
    if history.saves_when_asked or not saves_s or gap_s is None:
        return None
    saved_s = saves_s[-1]
    fits = saved_s <= elapsed_s < box.ends_s and saved_s >= _earliest_s(box, gap_s)
    if not fits or elapsed_s - saved_s < min(SETTLE_S, JITTER * gap_s):
        return None
    return "stopped early, right after a checkpoint: the next one wouldn't have fit into the timebox"


def is_near(history: SaveHistory, box: Box, saves_s: Sequence[float], elapsed_s: float) -> bool:
    """Return whether a save that lands now would be the last that fits, so that noticing it late would cost work."""
    gap_s = expected_gap_s(history, saves_s)
    return not history.saves_when_asked and gap_s is not None and elapsed_s >= _earliest_s(box, gap_s)


def why_over(timebox_s: float, saves_s: Sequence[float], elapsed_s: float) -> str | None:
    """Return why a segment that may overrun its timebox should end now; None to let it run. `saves_s`: as in
    `why_cut`."""
    if elapsed_s < timebox_s or not saves_s:
        return None
    late = saves_s[0] > timebox_s
    return (
        "timebox reached; its first checkpoint landed late, as --overrun allows"
        if late
        else "timebox reached"
    )


def expected_gap_s(history: SaveHistory, saves_s: Sequence[float] = ()) -> float | None:
    """Return how long after a save the next one is expected; None while it is not known.

    From this segment's own saves if it has two, else from an earlier segment's, else from an earlier one's silence.
    """
    gaps_s = gaps_of(saves_s) or history.gaps_s
    return median(gaps_s[-RECENT:]) if gaps_s else history.silent_s


def _earliest_s(box: Box, gap_s: float) -> float:
    """From when on a save is the last that fits. Never before half of the box: a save at the start holds no work."""
    half_s = box.begins_s + LEAST_SHARE * (box.ends_s - box.begins_s)
    return max(half_s, box.ends_s - gap_s * (1 + JITTER))


def gaps_of(saves_s: Iterable[float]) -> tuple[float, ...]:
    """Return the times between saves, oldest first. Files that land close together are one save."""
    times_s = sorted(saves_s)
    longest_s = max((after - before for before, after in pairwise(times_s)), default=0.0)
    ends_s = [
        time_s
        for time_s, following_s in pairwise([*times_s, float("inf")])
        if following_s - time_s > ONE_SAVE * longest_s
    ]
    return tuple(after - before for before, after in pairwise(ends_s))


def save_history(
    spec: RunSpec, earlier: Sequence[SegmentRecord], saved: Sequence[CheckpointRecord], announces: bool
) -> SaveHistory:
    """Return what earlier segments have shown.

    `earlier`: oldest first. `saved`: the run's checkpoints, in any order. `announces`: the script announces its saves.
    """
    gaps_s: tuple[float, ...] = ()
    for segment in earlier:
        gaps_s = gaps_of(_saves(segment, saved)) or gaps_s
    # A segment that saved nothing at all shows neither.
    lost_s = [
        segment.cut_cost_s
        for segment in earlier
        if segment.cut_cost_s is not None
        and (segment.cut_cost_s == 0 or segment.cut_cost_s < (segment.running_s or 0.0))
    ]
    shown = lost_s[-3:]
    assumed = spec.plan.saves_on_signal if spec.plan is not None else False
    return SaveHistory(
        gaps_s=gaps_s,
        silent_s=max(lost_s, default=0.0) or None,
        # Not by the last segment alone: it may have saved just before it was asked, and had nothing new to save.
        saves_when_asked=2 * shown.count(0.0) >= len(shown) if shown else assumed or announces,
        first_s=next((saves[0] for segment in reversed(earlier) if (saves := _saves(segment, saved))), None),
    )


def _saves(segment: SegmentRecord, saved: Sequence[CheckpointRecord]) -> list[float]:
    """When the segment's own saves landed, but for the one made because it was asked to stop."""
    times_s = sorted(
        landed_s(record) - segment.started_at_s
        for record in saved
        if record.segment == segment.number and record.refused is None
    )
    return times_s[:-1] if segment.cut_cost_s == 0 else times_s


def landed_s(saved: CheckpointRecord) -> float:
    """Return when a checkpoint was written, Unix seconds: the file's own time, unless it was on record before that."""
    return min(saved.mtime_ns / 1e9, saved.saved_at_s)
