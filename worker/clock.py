"""Reads the clocks, so that tests can hand in others, and tells how much time really ran since a stored moment.

The wall clock may be set, and the machine may sleep. Both show as a change of the distance between the wall clock and
the monotonic one, which nobody sets and which stands still during a sleep.
"""

import time
from typing import Final

JUMP_S: Final = 1.0
"""A smaller change per look is the drift that NTP corrects."""
REMEMBERED: Final = 32
_DISTANCE_S: Final = time.time() - time.monotonic()


def steady_s(monotonic_s: float | None = None) -> float:
    """Return the Unix time of a moment of the monotonic clock, now by default, as if nobody had set the clock since
    this process began."""
    return (time.monotonic() if monotonic_s is None else monotonic_s) + _DISTANCE_S


def set_since_s() -> float:
    """Return by how much the wall clock is behind that: to be added to what it says now."""
    return steady_s() - time.time()


class Clock:
    """Time from outside, seconds."""

    _distance_s: float | None = None
    _jumps: tuple[tuple[float, float], ...] = ()
    _slept_s: float | None = None

    def wall_s(self) -> float:
        """Return Unix time, for what is stored."""
        return time.time()

    def monotonic_s(self) -> float:
        """Return a clock that nobody sets, for durations."""
        return time.monotonic()

    def boot_s(self) -> float:
        """Return the monotonic clock plus what the machine slept since its boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def slept_s(self) -> float:
        """Return for how long the machine slept since the last call; 0 on the first. Call once per tick."""
        self._note_jump()
        before_s, self._slept_s = self._slept_s, self.boot_s() - self.monotonic_s()
        slept_s = 0.0 if before_s is None else self._slept_s - before_s
        return slept_s if slept_s > JUMP_S else 0.0

    def since_s(self, stored_s: float) -> float:
        """Return how long it ran since a stored Unix time, at least 0: without sleeps, however the clock was set.

        Counts out what this process has seen; a jump before its start can't be told from time that passed.
        """
        self._note_jump()
        now_s = self.monotonic_s()
        passed_s = self.wall_s() - stored_s
        for at_s, by_s in reversed(self._jumps):
            if 0 <= passed_s <= now_s - at_s:
                break  # stored after the jump
            passed_s -= by_s
        return max(passed_s, 0.0)

    def _note_jump(self) -> None:
        now_s = self.monotonic_s()
        before_s, self._distance_s = self._distance_s, self.wall_s() - now_s
        if before_s is not None and abs(self._distance_s - before_s) > JUMP_S:
            self._jumps = (*self._jumps[1 - REMEMBERED :], (now_s, self._distance_s - before_s))
