"""Says when runs and the whole queue will have ended, by playing the queue through with measured speeds.

Pure: no clock, no file. All times are seconds from now. What cannot be known is None, and never a bad number.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

MOST_SEGMENTS: Final = 50_000
"""Played through one by one; what is left beyond is spread evenly over the slots."""
P90: Final = 1.2816
"""Standard deviations above the mean below which nine of ten fall, of a normal distribution."""
KEPT: Final = 0.6
"""Those errors do not all fall on one night. With this share, benchmarks/eta.py finds nine of ten nights kept."""
STEP_SPREAD: Final = 0.06
"""How far the speed of a segment is from that of others of its run, as a share."""
SIBLING_SPREAD: Final = 0.15
"""As far at least may a run be from others of its script."""
FEW: Final = 4
"""Runs to compare with, below which their own spread says little."""
OPTIONS: Final = {
    "step": ("--steps", "--max_steps", "--max-steps", "--max_iters", "--max-iters", "--num_steps", "--iterations"),
    "epoch": ("--epochs", "--max_epochs", "--max-epochs", "--num_epochs", "--num_train_epochs", "--n-epochs"),
}  # fmt: skip
"""What scripts call their totals, by the unit that they count."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A run that runs or waits, in the order of the queue.

    `work_s`: running time that it still needs, without restarts; None: unknown. `spread`: how far off that may be, as a
    share of it. `restart_s`: what each further segment takes before it goes on. `box_s`: its timebox, inf for none.
    `box_left_s`: of the live segment; None while it waits. `keeps_turn`: it goes on at once after a box.
    `not_before_s`: it is not started earlier.
    """

    id: str
    work_s: float | None
    spread: float = SIBLING_SPREAD
    restart_s: float = 0.0
    box_s: float = math.inf
    box_left_s: float | None = None
    keeps_turn: bool = False
    not_before_s: float = 0.0


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """When runs end. `ends`: id → seconds from now, of those whose work is known. `all_s`: when the last one ends;
    `latest_s`: before which it does in nine of ten nights. Both None where the work of one is unknown."""

    ends: dict[str, float]
    all_s: float | None
    latest_s: float | None

    def ended_by(self, within_s: float) -> int:
        """Return how many will have ended within so many seconds."""
        return sum(1 for end_s in self.ends.values() if end_s <= within_s)


def forecast(jobs: Sequence[Job], slots: int) -> Forecast:
    """Play the queue through. `slots`: how many run at once. A run of unknown work takes its turns to the end, so that
    those behind it are not promised too early."""
    if not jobs or slots < 1:
        return Forecast(ends={}, all_s=0.0 if not jobs else None, latest_s=0.0 if not jobs else None)
    known = [job.work_s for job in jobs if job.work_s is not None]
    guess_s = max(known, default=0.0)
    ends = _play(jobs, slots, guess_s)
    unknown = [job for job in jobs if job.work_s is None]
    if unknown:
        return Forecast(
            ends={job.id: ends[job.id] for job in jobs if job.work_s is not None}, all_s=None, latest_s=None
        )
    all_s = max(ends.values())
    return Forecast(ends=ends, all_s=all_s, latest_s=all_s + _doubt(jobs, slots, all_s))


def total_of(argv: Sequence[str], unit: str | None) -> int | None:
    """Return how many steps a command line asks for; None where it does not say. `unit`: what the run counts."""
    names = OPTIONS.get(unit or "step", ())
    for word, following in zip(argv, (*argv[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        text = value if equals else following
        if name in names and text.isascii() and text.isdecimal() and int(text) > 0:
            return int(text)
    return None


def median(values: Sequence[float]) -> float | None:
    """Return the middle value; None for none."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread_of(values: Sequence[float]) -> float:
    """Return how far values are from each other, as a share of their mean."""
    if len(values) < FEW:
        return 2 * SIBLING_SPREAD
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return max(math.sqrt(variance) / mean if mean else 0.0, SIBLING_SPREAD)


def _play(jobs: Sequence[Job], slots: int, guess_s: float) -> dict[str, float]:
    left = {job.id: guess_s if job.work_s is None else max(job.work_s, 0.0) for job in jobs}
    ends: dict[str, float] = {}
    waiting: deque[Job] = deque(job for job in jobs if job.box_left_s is None)
    # (end of the segment, order, job, whether that is the end of the run)
    running: list[tuple[float, int, Job]] = []
    order = 0
    for job in jobs:
        if job.box_left_s is not None:
            length_s = min(left[job.id], max(job.box_left_s, 1.0))
            left[job.id] -= length_s
            running.append((length_s, order, job))
            order += 1
    heapq.heapify(running)
    now_s = 0.0
    while running or waiting:
        while waiting and len(running) < slots and order < MOST_SEGMENTS:
            job = _next(waiting, now_s, bool(running))
            if job is None:
                break
            length_s = min(left[job.id], max(job.box_s - job.restart_s, 1.0))
            left[job.id] -= length_s
            begin_s = max(now_s, job.not_before_s)
            heapq.heappush(running, (begin_s + job.restart_s + length_s, order, job))
            order += 1
        if not running:
            break
        now_s, _, job = heapq.heappop(running)
        if left[job.id] <= 0:
            ends[job.id] = now_s
        elif job.keeps_turn:
            waiting.appendleft(job)
        else:
            waiting.append(job)
    for job in waiting:
        # Too many to play: all of them share what is left.
        now_s += left[job.id] / slots
        ends[job.id] = now_s
    return ends


def _next(waiting: deque[Job], now_s: float, others_run: bool) -> Job | None:
    """Take the first whose time has come, else, where nothing runs, the one whose time comes first."""
    for job in waiting:
        if job.not_before_s <= now_s:
            waiting.remove(job)
            return job
    if others_run:
        return None
    first = min(waiting, key=lambda job: job.not_before_s)
    waiting.remove(first)
    return first


def _doubt(jobs: Sequence[Job], slots: int, all_s: float) -> float:
    """Return what the last end may come later, so that nine of ten nights keep to it.

    The errors of many runs make up for each other, but not those of a median that all of them share, nor that of the
    run that ends last.
    """
    works = [(job.work_s or 0.0, job.spread) for job in jobs]
    alone = math.sqrt(sum((work_s * spread) ** 2 for work_s, spread in works)) / slots
    last = max((work_s * spread for work_s, spread in works), default=0.0) * (1 - 1 / slots)
    return KEPT * P90 * math.hypot(alone, last, STEP_SPREAD * all_s / 2)
