"""Lays the wall clock of a span of time out as time that really passed, however the clock was set meanwhile.

A clock set forward leaves times out, a clock set back has some twice. Here each second is there once. A sleep of the
machine is time that passed.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.scheduler.records import ClockChange

LEAST_S: Final = 1.0
"""A clock that was set by less was corrected, as NTP does."""


class Piece(msgspec.Struct, frozen=True):
    """A stretch in which the clock ran on. Unix seconds, and seconds since the span began."""

    from_wall_s: float
    to_wall_s: float
    from_s: float


class Axis:
    """`length_s`: how long the span lasted. `earliest_s`: the lowest time that the clock showed in it. `asleep`: when
    the machine slept, in seconds since the span began."""

    def __init__(self, since_s: float, until_s: float, changes: Sequence[ClockChange] = ()) -> None:
        """`changes`: in the order in which they came; those of other times are passed over."""
        self._pieces: list[Piece] = []
        self.asleep: list[tuple[float, float]] = []
        wall_s, passed_s = since_s, 0.0
        for change in changes:
            set_s = change.by_s - change.slept_s
            before_s = change.at_s - set_s
            if before_s < wall_s or change.at_s > until_s:
                continue
            at_s = passed_s + before_s - wall_s
            if change.slept_s > 0:
                self.asleep.append((max(at_s - change.slept_s, 0.0), at_s))
            if abs(set_s) >= LEAST_S:
                self._pieces.append(Piece(wall_s, before_s, passed_s))
                wall_s, passed_s = change.at_s, at_s
        self._pieces.append(Piece(wall_s, max(until_s, wall_s), passed_s))
        last = self._pieces[-1]
        self.length_s = last.from_s + last.to_wall_s - last.from_wall_s
        self.earliest_s = min(piece.from_wall_s for piece in self._pieces)
        self.was_set = len(self._pieces) > 1

    def at(self, wall_s: float, not_before_s: float = 0.0) -> float:
        """Return when the clock showed `wall_s`: negative before the span, more than its length after it. Of several
        times the first that is not before `not_before_s`, else the last."""
        times = [
            piece.from_s + wall_s - piece.from_wall_s
            for piece in self._pieces
            if piece.from_wall_s <= wall_s <= piece.to_wall_s
        ]
        if times:
            return next((at_s for at_s in times if at_s >= not_before_s), times[-1])
        first, last = self._pieces[0], self._pieces[-1]
        if wall_s < first.from_wall_s:
            return wall_s - first.from_wall_s
        if wall_s > last.to_wall_s:
            return self.length_s + wall_s - last.to_wall_s
        # The clock jumped over it: the moment of the jump.
        return next(piece.from_s for piece in self._pieces if piece.from_wall_s >= wall_s)

    def wall_s(self, at_s: float) -> float:
        """Return what the clock showed `at_s` seconds after the span began."""
        piece = next((one for one in reversed(self._pieces) if one.from_s <= at_s), self._pieces[0])
        return piece.from_wall_s + at_s - piece.from_s
