"""Decides whether anything may start at all: by the user's `drain`, and by the hours in which runs may start.

Neither touches running segments: they go on to their end, and a requeued run waits. Pure.
"""

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

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DRAINED: Final = "the queue is drained"

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
