"""Says when runs and the whole queue will have ended, by playing the queue through with measured speeds.

Pure: no clock, no file. All times are seconds from now. What cannot be known is None, and never a bad number.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.governor.playing import SIBLING_SPREAD, Job, Opens, always, play

P90: Final = 1.2816
"""Standard deviations above the mean below which nine of ten fall, of a normal distribution."""
KEPT: Final = 0.6
"""Those errors do not all fall on one night. With this share, benchmarks/eta.py finds nine of ten nights kept."""
STEP_SPREAD: Final = 0.06
"""How far the speed of a segment is from that of others of its run, as a share."""
FEW: Final = 4
"""Runs to compare with, below which their own spread says little."""
OPTIONS: Final = {
    "step": ("--steps", "--max_steps", "--max-steps", "--max_iters", "--max-iters", "--num_steps", "--iterations"),
    "epoch": ("--epochs", "--max_epochs", "--max-epochs", "--num_epochs", "--num_train_epochs", "--n-epochs"),
}  # fmt: skip
"""What scripts call their totals, by the unit that they count."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """When runs end. `ends`: id → seconds from now, of those whose work is known. `all_s`: when the last one ends;
    `latest_s`: before which it does in nine of ten nights. Both None where the work of one is unknown."""

    ends: dict[str, float]
    all_s: float | None
    latest_s: float | None

    def ended_by(self, within_s: float) -> int:
        """Return how many will have ended within so many seconds."""
        return sum(1 for end_s in self.ends.values() if end_s <= within_s)


def forecast(jobs: Sequence[Job], slots: int, opens: Opens = always) -> Forecast:
    """Play the queue through. `slots`: how many run at once. `opens`: the hours in which runs start.

    A run of unknown work takes its turns to the end, so that those behind it are not promised too early.
    """
    if not jobs or slots < 1:
        return Forecast(ends={}, all_s=0.0 if not jobs else None, latest_s=0.0 if not jobs else None)
    guess_s = max((job.work_s for job in jobs if job.work_s is not None), default=0.0)
    works_s = [guess_s if job.work_s is None else max(job.work_s, 0.0) for job in jobs]
    ends, untold = play(jobs, slots, works_s, opens), _untold(jobs)
    told = {job_id: end_s for job_id, end_s in ends.items() if job_id not in untold}
    if len(told) < len(jobs):
        return Forecast(ends=told, all_s=None, latest_s=None)
    return Forecast(
        ends=told, all_s=max(told.values()), latest_s=_latest_s(jobs, slots, works_s, told, opens)
    )


def _untold(jobs: Sequence[Job]) -> set[str]:
    """Return the jobs of which nobody can tell the end: what they need is unknown, or what one before them needs."""
    children: dict[str, list[str]] = {}
    for job in jobs:
        for parent in job.after:
            children.setdefault(parent, []).append(job.id)
    found = [job.id for job in jobs if job.work_s is None]
    untold = set(found)
    for job_id in found:
        more = [child for child in children.get(job_id, ()) if child not in untold]
        untold.update(more)
        found += more
    return untold


def _latest_s(
    jobs: Sequence[Job], slots: int, works_s: Sequence[float], ends: Mapping[str, float], opens: Opens
) -> float:
    """Return before when the last job has ended in nine of ten nights.

    Where runs start in some hours only, what comes late may have to wait for the next ones. So the queue is played
    again, with more work.
    """
    all_s = max(ends.values())
    if opens is always:
        return all_s + _doubt(jobs, slots, ends)
    at_any_time = play(jobs, slots, works_s)
    more = 1 + _doubt(jobs, slots, at_any_time) / max(*at_any_time.values(), 1.0)
    late = play(jobs, slots, [work_s * more for work_s in works_s], opens)
    return max(all_s, *late.values())


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


def _doubt(jobs: Sequence[Job], slots: int, ends: Mapping[str, float]) -> float:
    """Return what the last end may come later, so that nine of ten nights keep to it.

    The errors of many runs make up for each other, but not those of a median that all of them share, nor that of the
    run that ends last. Least of all those of runs that wait for each other: nothing else fills the time between them.
    """
    alone = math.sqrt(sum(_error(job) ** 2 for job in jobs)) / slots
    last = max(map(_error, jobs), default=0.0) * (1 - 1 / slots)
    if slots > 1:
        last = max(last, _error_of_chains(jobs, ends) / KEPT)
    return KEPT * P90 * math.hypot(alone, last, STEP_SPREAD * max(ends.values()) / 2)


def _error_of_chains(jobs: Sequence[Job], ends: Mapping[str, float]) -> float:
    """Return how far off the worst row of jobs is of which each waits for the one before; 0 where none waits."""
    errors: dict[str, float] = {}
    for job in sorted(jobs, key=lambda one: ends[one.id]):
        before = max((errors.get(parent, 0.0) for parent in job.after), default=0.0)
        errors[job.id] = math.hypot(before, _error(job))
    return max((errors[job.id] for job in jobs if job.after), default=0.0)


def _error(job: Job) -> float:
    return (job.work_s or 0.0) * job.spread
