"""Waits for a file that cannot be read to be readable again, but not for ever.

An error of reading may pass: a descriptor is free again, a share is back. A disk that is dying does not pass, and a run
that waits for it would keep its slot and its VRAM for the rest of the night.
"""

from typing import Final

from backprop.worker.clock import Clock

PATIENCE_S: Final = 600.0
"""How long the same error may stand in the way of a segment's end."""


class Patience:
    """Remembers since when one error has been coming back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._error: tuple[int | None, str] | None = None
        self._since_s = 0.0

    def is_over(self, error: OSError) -> bool:
        """Note an error of reading; return whether the same one has been coming back for too long."""
        now_s, same = self._clock.monotonic_s(), (error.errno, str(error.filename))
        if same != self._error:
            self._error, self._since_s = same, now_s
        return now_s - self._since_s >= PATIENCE_S

    def forget(self) -> None:
        """Note that the look has succeeded."""
        self._error = None
