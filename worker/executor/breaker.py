"""Stops a worker's starts while this machine cannot start segments, and says when one may be tried again.

Closed: runs start. A start that fails for a reason of the machine opens it: nothing starts for a second, then for twice
as long, up to a minute. Then one run is tried. The first instruction of its command closes the breaker again; another
failure opens it for longer. Each try takes the next run of the queue, so that trouble of one run alone, which looks the
same, stops the others for a second only. Pure, but for the clock that it is handed.
"""

from typing import Final

from backprop.worker.clock import Clock

PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
TRIAL_S: Final = 90.0
"""A try that has shown nothing for so long is given up: its run may have been stopped, or another worker ended it."""

TriedSegment = tuple[str, int]
"""Run id and number of the segment."""


class Breaker:
    """One per worker. `why`: what failed last, in words; None while it is closed. `tried`: what runs start again with,
    as long as it is not known how that went."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pause_s = 0.0
        self._due_s = 0.0
        self._of_supervisor = False
        self.why: str | None = None
        self.tried: TriedSegment | None = None

    @property
    def of_command(self) -> bool:
        """Whether it is open because a run's command could not be started, though a supervisor was there."""
        return self.why is not None and not self._of_supervisor

    def failed(self, why: str, of_supervisor: bool = False) -> None:
        """Note a start that failed for a reason of the machine. `of_supervisor`: no supervisor could be started at all,
        which is seen without a run."""
        now_s = self._clock.monotonic_s()
        # Of several that were started together each fails: that is one failure.
        if self.why is None or self.tried is not None or now_s >= self._due_s:
            self._pause_s = min(max(self._pause_s * 2, PAUSE_S), LONGEST_PAUSE_S)
            self._due_s = now_s + self._pause_s
        self.why, self.tried, self._of_supervisor = why, None, of_supervisor

    def may_try(self, is_ready: bool) -> bool:
        """Return whether a start may be tried while it is open. `is_ready`: a supervisor is there, which may have been
        what was missing."""
        if self._of_supervisor and is_ready:
            return True
        return self._clock.monotonic_s() >= self._due_s

    def has_supervisor(self) -> None:
        """Note that a supervisor is ready; that closes it if nothing else was missing."""
        if self._of_supervisor:
            self.succeeded()

    def try_with(self, segment: TriedSegment) -> None:
        """Note the one segment that is started while it is open."""
        self.tried, self._due_s = segment, self._clock.monotonic_s() + TRIAL_S

    def began(self, segment: TriedSegment) -> None:
        """Note that a segment's command has begun."""
        if segment == self.tried:
            self.succeeded()

    def succeeded(self) -> None:
        """Close it."""
        self.why = self.tried = None
        self._pause_s, self._of_supervisor = 0.0, False
