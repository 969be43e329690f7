"""Reads the wall and the monotonic clock, so that tests can hand in another."""

import time


class Clock:
    """Time from outside, seconds."""

    def wall_s(self) -> float:
        """Return Unix time, for what is stored."""
        return time.time()

    def monotonic_s(self) -> float:
        """Return a clock that nobody sets, for durations."""
        return time.monotonic()
