"""Decides how long a segment may run, and when it ends before that: right after a save, where that loses least.

Pure: reads no clock, file or database. Times are seconds of running time since the segment began; pauses do not count.

- A script that saves every so often and not when it is asked to stop loses whatever it does after its last save. If the
  next one would land after the timebox, the segment ends at the last that fits: nothing is done twice, and the GPU
  is free earlier. Price: one more start, and that comes sooner or later anyway.
- A script that saves when asked gets its full time. Its recipe says so, or an earlier segment has shown it; of one
  that announces its checkpoints it is assumed until a segment has shown otherwise.
- Never before half of the timebox: what a script saves as it starts holds no work.
- With `--overrun` the supervisor's box is longer; whoever has a checkpoint by the end of the timebox ends there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.spec import RunSpec

RECENT: Final = 5
"""So many gaps, or ends, are looked at: a run that has become slower is judged by how it is now."""
ONE_SAVE: Final = 0.1
"""Files that land within this share of the longest gap belong to one save: model and optimiser, last and best."""
JITTER: Final = 0.05
"""How much later than expected a save may land, as a share of the gap."""
LEAST_SHARE: Final = 0.5
SETTLE_S: Final = 2.0
"""At most so long a script is left alone after a save: a second file of it may follow."""


@dataclass(frozen=True, kw_only=True)
class SaveHistory:
    """What is known of how a script saves.

    `gaps_s`: between saves, oldest first. `silent_s`: for how long an earlier segment ran on after its last save and
    saved nothing more. `saves_when_asked`: on the stop signal.
    """

    gaps_s: tuple[float, ...] = ()
    silent_s: float | None = None
    saves_when_asked: bool = False


def box_s(run: RunRecord) -> float:
    """Return this segment's timebox: the run's, cut to what `--max-total-minutes` leaves."""
    return min(run.spec.timebox_s, _left_s(run))


def latest_end_s(run: RunRecord, history: SaveHistory) -> float:
    """Return how long the supervisor lets this segment run, with or without a worker: its box and what it may overrun
    it by. `history`: as far as it is known when the segment starts (`announces` False)."""
    if history.saves_when_asked:
        return box_s(run)
    return min(run.spec.timebox_s * (1 + run.spec.overrun_pct / 100), _left_s(run))


def _left_s(run: RunRecord) -> float:
    left_s = float("inf") if run.spec.max_total_s is None else run.spec.max_total_s - run.chain_total_s
    return max(left_s, 1.0)


def why_cut(history: SaveHistory, timebox_s: float, saves_s: Sequence[float], elapsed_s: float) -> str | None:
    """Why the segment should end now, right after a save; None to let it run.

    `saves_s`: of this segment, the good ones that go beyond what it resumed from, oldest first.
    """
    gap_s = expected_gap_s(history, saves_s)
    if history.saves_when_asked or not saves_s or gap_s is None:
        return None
    saved_s = saves_s[-1]
    fits = saved_s <= elapsed_s < timebox_s and saved_s >= _earliest_s(timebox_s, gap_s)
    if not fits or elapsed_s - saved_s < min(SETTLE_S, JITTER * gap_s):
        return None
    return "cut right after a checkpoint: the next would land after the timebox's end"


def is_near(history: SaveHistory, timebox_s: float, saves_s: Sequence[float], elapsed_s: float) -> bool:
    """Whether a save that lands now would be the last that fits, so that recorder of it late would cost work."""
    gap_s = expected_gap_s(history, saves_s)
    return not history.saves_when_asked and gap_s is not None and elapsed_s >= _earliest_s(timebox_s, gap_s)


def why_over(timebox_s: float, saves_s: Sequence[float], elapsed_s: float) -> str | None:
    """Why a segment that may overrun its timebox should end now; None to let it run. `saves_s`: as above."""
    if elapsed_s < timebox_s or not saves_s:
        return None
    late = saves_s[0] > timebox_s
    return (
        "timebox reached; its first checkpoint landed late, as --overrun allows"
        if late
        else "timebox reached"
    )


def expected_gap_s(history: SaveHistory, saves_s: Sequence[float] = ()) -> float | None:
    """How long after a save the next one is expected; None while nothing tells.

    By this segment's own saves if it has two, else by an earlier one's, else from an earlier one's silence.
    """
    gaps_s = gaps_of(saves_s) or history.gaps_s
    return median(gaps_s[-RECENT:]) if gaps_s else history.silent_s


def _earliest_s(timebox_s: float, gap_s: float) -> float:
    """From when on a save is the last that fits. Never before half of the box: what is saved at a start is no work."""
    return max(LEAST_SHARE * timebox_s, timebox_s - gap_s * (1 + JITTER))


def gaps_of(saves_s: Iterable[float]) -> tuple[float, ...]:
    """The times between saves, oldest first. What lands close together is one save."""
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
    """What earlier segments have shown. `earlier`: oldest first; `saved`: those of the run, in any order.

    `announces`: it says itself when it has saved.
    """
    gaps_s: tuple[float, ...] = ()
    for segment in earlier:
        gaps_s = gaps_of(_saves(segment, saved)) or gaps_s
    # What was lost by whoever saved nothing at all shows neither.
    lost_s = [
        one.cut_cost_s
        for one in earlier
        if one.cut_cost_s is not None and (one.cut_cost_s == 0 or one.cut_cost_s < (one.running_s or 0.0))
    ]
    shown = lost_s[-3:]
    assumed = spec.plan.saves_on_signal if spec.plan is not None else False
    return SaveHistory(
        gaps_s=gaps_s,
        silent_s=max(lost_s, default=0.0) or None,
        # One that had saved just before it was asked had nothing new to save: so not by the last segment alone.
        saves_when_asked=2 * shown.count(0.0) >= len(shown) if shown else assumed or announces,
    )


def _saves(segment: SegmentRecord, saved: Sequence[CheckpointRecord]) -> list[float]:
    """When the segment's own saves landed, but for the one made because it was asked to stop."""
    times_s = sorted(
        landed_s(one) - segment.started_at_s
        for one in saved
        if one.segment == segment.number and one.refused is None
    )
    return times_s[:-1] if segment.cut_cost_s == 0 else times_s


def landed_s(saved: CheckpointRecord) -> float:
    """When a checkpoint was written, Unix seconds: the file's own time, unless that is after we heard of it."""
    return min(saved.mtime_ns / 1e9, saved.saved_at_s)
