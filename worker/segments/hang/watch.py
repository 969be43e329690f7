"""Decides whether a segment hangs: silent for far longer than is usual for it, and meanwhile without any work.

Pure: the moments, and a look at its processes, are handed in. Only time that was watched counts. So a worker that was
frozen, a machine that slept and a clock that was set make nobody look silent. Whatever is not known counts as life.
"""

import statistics
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

FLOOR_S: Final = 600.0
"""No silence shorter than this is a hang, however quick the rhythm was."""
USUAL_TIMES: Final = 10.0
LONGEST_TIMES: Final = 2.0
"""Of the longest silence that it has come back from: a validation, a compilation or a copy that is known."""
LEAST_INTERVALS: Final = 5
"""Before so many nothing is usual."""
KEPT_INTERVALS: Final = 512
LOOK_EVERY_S: Final = 10.0
FIRST_LOOK_S: Final = 60.0
"""Of a silent segment's processes. One that prints costs no look at all."""
MOST_BETWEEN_S: Final = 5.0
"""More than this between two moments was not watched."""
BUSY_SHARE: Final = 0.005
"""Less processor time than this share of one core is what threads take that only wait."""
TRIFLE_BYTES: Final = 4096
"""Fewer between two looks are what threads pass to each other to say that they wait."""


class Rhythm:
    """The intervals between signs of life of one run, in seconds."""

    def __init__(self, known: Iterable[float] = ()) -> None:
        self._intervals: deque[float] = deque(maxlen=KEPT_INTERVALS)
        self._longest_s = 0.0
        for interval_s in known:
            self.note(interval_s)

    def note(self, interval_s: float) -> None:
        self._intervals.append(interval_s)
        self._longest_s = max(self._longest_s, interval_s)

    @property
    def usual_s(self) -> float | None:
        """The usual interval; None while too few are known."""
        return statistics.median(self._intervals) if len(self._intervals) >= LEAST_INTERVALS else None

    @property
    def limit_s(self) -> float | None:
        """After how long a silence is a hang; None where that is not known."""
        usual_s = self.usual_s
        if usual_s is None:
            return None
        return max(FLOOR_S, USUAL_TIMES * usual_s, LONGEST_TIMES * self._longest_s)


class Moment(msgspec.Struct, frozen=True):
    """`at_s`: on the monotonic clock. `sign`: what grows or changes with each step and output. `runs`: it is neither
    paused nor suspended, and nothing moves its memory. `has_stepped`: a step of its run was seen at some time."""

    at_s: float
    sign: object
    runs: bool
    has_stepped: bool


class Work(msgspec.Struct, frozen=True):
    """What the processes of a segment have done so far. `moved`: bytes read and written. `faults`: pages that had to be
    read from a disk. `is_at_work`: a thread runs, waits for a disk, or is held by somebody. `gpu_idle`: its GPUs did
    nothing since the look before; None where no reading tells."""

    pids: frozenset[int]
    cpu_s: float
    moved: int
    faults: int
    is_at_work: bool
    gpu_idle: bool | None


class Hang(msgspec.Struct, frozen=True):
    """A hang: how long it was silent, and the interval that was usual, in seconds."""

    lasted_s: float
    usual_s: float


class HangWatch:
    """Watches one segment."""

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._seen_s: float | None = None
        self._sign: object = None
        self._silent_s = 0.0
        self._idle_s = 0.0
        self._work: Work | None = None
        self._looked_s = 0.0

    def look(self, now: Moment, look_at_work: Callable[[float], Work | None]) -> Hang | None:
        """Return the silence that is a hang by now. Call once per tick. `look_at_work`: looks at its processes, and at
        its GPUs since a moment on the monotonic clock; returns None where nothing can be seen. It is called only now
        and then."""
        passed_s = now.at_s - self._seen_s if self._seen_s is not None else 0.0
        self._seen_s = now.at_s
        if not now.runs:
            self._begin_anew(None)
            return None
        if self._sign is None or now.sign != self._sign:
            if self._sign is not None:
                # What was not watched was silent all the same.
                self._rhythm.note(self._silent_s + passed_s)
            self._begin_anew(now.sign)
            return None
        self._silent_s += min(passed_s, MOST_BETWEEN_S)
        if self._silent_s < FIRST_LOOK_S or now.at_s - self._looked_s < LOOK_EVERY_S:
            return None
        if self._is_idle(look_at_work(self._looked_s), now.at_s) and now.has_stepped:
            return self._judge()
        return None

    def _judge(self) -> Hang | None:
        limit_s, usual_s = self._rhythm.limit_s, self._rhythm.usual_s
        if limit_s is None or usual_s is None or self._idle_s < limit_s:
            return None
        return Hang(self._silent_s, usual_s)

    def _is_idle(self, work: Work | None, now_s: float) -> bool:
        """Count the time since the look before, where nothing was done in it."""
        before, self._work = self._work, work
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        if work is None or before is None or _has_worked(before, work, passed_s):
            self._idle_s = 0.0
            return False
        if work.gpu_idle is None:
            return False
        self._idle_s += min(passed_s, LOOK_EVERY_S + MOST_BETWEEN_S)
        return True

    def _begin_anew(self, sign: object) -> None:
        self._sign, self._silent_s, self._idle_s, self._work = sign, 0.0, 0.0, None


def _has_worked(before: Work, now: Work, passed_s: float) -> bool:
    if now.is_at_work or not now.pids or now.pids != before.pids or now.gpu_idle is False:
        return True
    if now.faults != before.faults or abs(now.moved - before.moved) > TRIFLE_BYTES:
        return True
    return now.cpu_s - before.cpu_s > BUSY_SHARE * passed_s
