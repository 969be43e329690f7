"""Plays a queue through: who starts when, box after box, with the hours in which runs start and what each waits for.

Pure: no clock, no file. All times are seconds from now.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

MOST_SEGMENTS: Final = 50_000
"""Played through one by one; what is left beyond is spread evenly over the slots."""
SIBLING_SPREAD: Final = 0.15
"""As far at least may a run be from others of its script."""

Opens = Callable[[float], float]
"""A moment → from when on runs may start, not before it; inf for never."""


def always(at_s: float) -> float:
    """Return the moment itself: runs may start at any time."""
    return at_s


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A run that runs or waits, in the order of the queue.

    `work_s`: running time that it still needs, without restarts; None: unknown. `spread`: how far off that may be, as a
    share of it. `restart_s`: what each further segment takes before it goes on. `box_s`: its timebox, inf for none.
    `box_left_s`: of the live segment; None while it waits. `keeps_turn`: it goes on at once after a box.
    `not_before_s`: it is not started earlier. `after`: ids of the jobs that have to end first.
    """

    id: str
    work_s: float | None
    spread: float = SIBLING_SPREAD
    restart_s: float = 0.0
    box_s: float = math.inf
    box_left_s: float | None = None
    keeps_turn: bool = False
    not_before_s: float = 0.0
    after: tuple[str, ...] = ()


class _Line:
    """What waits, in the order of turns. `ready`: those whose time has come and whose parents have ended."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.ready: list[tuple[int, Job]] = []
        self.later: list[tuple[float, int, Job]] = []
        self._turn = len(jobs)
        self._children: dict[str, list[tuple[int, Job]]] = {}
        self._missing: dict[str, int] = {}
        known = {job.id for job in jobs}
        for turn, job in enumerate(jobs):
            parents = {parent for parent in job.after if parent in known}
            if job.box_left_s is not None:
                continue
            if not parents:
                self._line_up(turn, job)
            self._missing[job.id] = len(parents)
            for parent in parents:
                self._children.setdefault(parent, []).append((turn, job))

    def again(self, turn: int, job: Job) -> None:
        """Line up a job whose box is over."""
        if not job.keeps_turn:
            turn, self._turn = self._turn, self._turn + 1
        heapq.heappush(self.ready, (turn, job))

    def ended(self, job_id: str) -> None:
        """Line up those that waited for this one alone."""
        for turn, job in self._children.pop(job_id, ()):
            self._missing[job.id] -= 1
            if not self._missing[job.id]:
                self._line_up(turn, job)

    def come(self, now_s: float) -> None:
        """Line up those whose time has come."""
        while self.later and self.later[0][0] <= now_s:
            _, turn, job = heapq.heappop(self.later)
            heapq.heappush(self.ready, (turn, job))

    def _line_up(self, turn: int, job: Job) -> None:
        heapq.heappush(self.later, (job.not_before_s, turn, job))


def play(
    jobs: Sequence[Job], slots: int, works_s: Sequence[float], opens: Opens = always
) -> dict[str, float]:
    """Return when each job ends; one that never starts is missing. `works_s`: the running time of each."""
    left = {job.id: work_s for job, work_s in zip(jobs, works_s, strict=True)}
    line, ends = _Line(jobs), dict[str, float]()
    # (end of the segment, order, turn, job)
    running: list[tuple[float, int, int, Job]] = []
    for turn, job in enumerate(jobs):
        if job.box_left_s is not None:
            length_s = min(left[job.id], max(job.box_left_s, 1.0))
            left[job.id] -= length_s
            running.append((length_s, len(running), turn, job))
    heapq.heapify(running)
    now_s, started = 0.0, len(running)
    while True:
        line.come(now_s)
        open_s = opens(now_s)
        while open_s <= now_s and line.ready and len(running) < slots and started < MOST_SEGMENTS:
            turn, job = heapq.heappop(line.ready)
            length_s = min(left[job.id], max(job.box_s - job.restart_s, 1.0))
            left[job.id] -= length_s
            heapq.heappush(running, (now_s + job.restart_s + length_s, started, turn, job))
            started += 1
        may_start = len(running) < slots and started < MOST_SEGMENTS
        moments = [
            running[0][0] if running else math.inf,
            line.later[0][0] if line.later and may_start else math.inf,
            open_s if line.ready and may_start else math.inf,
        ]
        if math.isinf(now_s := max(min(moments), now_s)):
            break
        while running and running[0][0] <= now_s:
            _, _, turn, job = heapq.heappop(running)
            if left[job.id] > 0:
                line.again(turn, job)
            else:
                ends[job.id] = now_s
                line.ended(job.id)
    if started >= MOST_SEGMENTS:
        _share_out(jobs, left, slots, ends)
    return ends


def _share_out(jobs: Sequence[Job], left: dict[str, float], slots: int, ends: dict[str, float]) -> None:
    """End those that are too many to be played: all of them share what is left."""
    now_s = max(ends.values(), default=0.0)
    for job in jobs:
        if job.id not in ends:
            now_s += left[job.id] / slots
            ends[job.id] = now_s
