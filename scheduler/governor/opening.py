"""Decides whether anything may start at all: by the user's `drain`, and by the hours in which runs may start.

Neither touches running segments: they go on to their end, and a requeued run waits. Pure.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from backprop.scheduler.config.active_hours import (
    LOCAL_TIME,
    Local,
    Window,
    changes_at_s,
    is_open,
    parse_all,
)
from backprop.scheduler.governor.model import Denial, Rule
from backprop.scheduler.governor.playing import Opens, always

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DRAINED: Final = "the queue is drained"
FAR_S: Final = 60 * 86_400.0
"""Nobody looks at the hours of a day that is further ahead."""

Drained = tuple[str, float]
"""(why, since when in Unix seconds), as `drain.drained` returns it."""


def closed(
    drained: Drained | None, active_hours: Sequence[str], now_s: float, local: Local = LOCAL_TIME
) -> Denial | None:
    """Return why nothing may start at `now_s` (Unix seconds), or None. `active_hours`: as in the settings."""
    if drained is not None:
        return Denial(Rule.DRAINED, None, None, drained_words(drained[0]))
    windows = parse_all(active_hours)
    if is_open(windows, now_s, local):
        return None
    text = f"outside activeHours ({'; '.join(active_hours)}), {opens_words(windows, now_s, local)}"
    return Denial(Rule.HOURS, None, None, text)


def drained_words(why: str) -> str:
    """Say that the queue is drained, and how to open it."""
    return f"{DRAINED} ({why}); backprop undrain opens it"


def opens_words(windows: Sequence[Window], now_s: float, local: Local = LOCAL_TIME) -> str:
    """Say when the current state changes: "opens at 22:00", "closes at Mon 08:00"."""
    verb = "closes" if is_open(windows, now_s, local) else "opens"
    at_s = changes_at_s(windows, now_s, local)
    if at_s is None:
        return f"never {verb}"
    then, now = local(at_s), local(now_s)
    day = "" if then[:3] == now[:3] else f"{DAYS[then.tm_wday]} "
    return f"{verb} at {day}{then.tm_hour:02}:{then.tm_min:02}"


def opens_from(windows: Sequence[Window], now_s: float, local: Local = LOCAL_TIME) -> Opens:
    """Return the hours as a forecast asks for them, in seconds from `now_s`.

    Each change is looked for once, and when it is needed: to find it takes a millisecond.
    """
    if not windows:
        return always
    first, changes = is_open(windows, now_s, local), list[float]()

    def opens(at_s: float) -> float:
        while not changes or changes[-1] <= at_s < FAR_S:
            change_s = changes_at_s(windows, now_s + (changes[-1] if changes else 0.0), local)
            changes.append(math.inf if change_s is None else change_s - now_s)
        passed = bisect_right(changes, at_s)
        return at_s if at_s >= FAR_S or first == (passed % 2 == 0) else changes[passed]

    return opens
