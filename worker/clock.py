"""Reads the wall and the monotonic clock, so that tests can hand in another."""

import time


class Clock:
    """Time from outside: wall for what is stored, monotonic for durations. Seconds."""

    def wall_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()
