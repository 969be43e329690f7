"""Reads the hours in which runs may start: windows of the week such as "22:00-08:00" or "Mon-Fri 19:00-08:00".

A window is a stretch of wall-clock time. A window whose end is not after its start runs over midnight and belongs to
the day it begins on. If daylight saving skips an hour, the part of a window in it does not happen; if it repeats an
hour, that part happens twice. Pure: the time comes in, and so may the zone.
"""

import re
from collections.abc import Callable, Sequence
from time import localtime, struct_time
from typing import Final

import msgspec

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN: Final = 24 * 60
LOOK_AHEAD_DAYS: Final = 8
"""A window of a single day of the week comes again within seven."""
LIMIT: Final = 100

_WINDOW: Final = re.compile(
    r"(?:([a-z ,-]+?)\s+)?(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)", re.IGNORECASE | re.ASCII
)

Local = Callable[[float], struct_time]
LOCAL_TIME: Local = localtime


class Window(msgspec.Struct, frozen=True):
    """One window. `days`: the days of the week on which it begins, Monday is 0. `start_min`, `end_min`: minutes since
    midnight; an `end_min` that is not above `start_min` is of the next day."""

    days: frozenset[int]
    start_min: int
    end_min: int

    def holds(self, day: int, minute: int) -> bool:
        """Return whether the window is open on that day of the week at that minute of the day."""
        if self.start_min < self.end_min:
            return day in self.days and self.start_min <= minute < self.end_min
        yesterday = (day - 1) % len(DAYS)
        return (day in self.days and minute >= self.start_min) or (
            yesterday in self.days and minute < self.end_min
        )


def parse(text: str) -> Window:
    """Read one window. Raises ValueError for anything else, and for a window that begins where it ends."""
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a valid window: {text!r}")
    start_min, end_min = _minutes(match[2], match[3]), _minutes(match[4], match[5])
    if start_min in (end_min, DAY_MIN):
        raise ValueError(f"not a valid window: {text!r}")
    return Window(_days(match[1]) if match[1] else frozenset(range(len(DAYS))), start_min, end_min)


def parse_all(texts: Sequence[str]) -> tuple[Window, ...]:
    """Read several windows. Raises ValueError."""
    if len(texts) > LIMIT:
        raise ValueError(f"more than {LIMIT} windows")
    return tuple(parse(text) for text in texts)


def is_open(windows: Sequence[Window], at_s: float, local: Local = localtime) -> bool:
    """Return whether runs may start at `at_s` (Unix seconds). Without windows, they always may."""
    now = local(at_s)
    return not windows or any(window.holds(now.tm_wday, now.tm_hour * 60 + now.tm_min) for window in windows)


def changes_at_s(windows: Sequence[Window], at_s: float, local: Local = localtime) -> float | None:
    """Return when the answer of `is_open` at `at_s` changes next, to the minute (Unix seconds); None if it never does.

    It tries minute by minute, which takes some milliseconds for a week: wall-clock time jumps, and an instant computed
    from the calendar may not exist, or exist twice.
    """
    now = is_open(windows, at_s, local)
    minute = at_s // 60
    for ahead in range(1, LOOK_AHEAD_DAYS * DAY_MIN + 1):
        if is_open(windows, (minute + ahead) * 60, local) != now:
            return (minute + ahead) * 60
    return None


def _minutes(hour: str, minute: str) -> int:
    total = int(hour) * 60 + int(minute)
    if int(minute) > 59 or total > DAY_MIN:
        raise ValueError(f"not a valid time: {hour}:{minute}")
    return total


def _days(text: str) -> frozenset[int]:
    """Read "Mon-Fri", "Sat,Sun", "Fri-Mon, Wed"."""
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        start = _day(first)
        end = _day(last) if dash else start
        days |= {(start + step) % len(DAYS) for step in range((end - start) % len(DAYS) + 1)}
    return frozenset(days)


def _day(text: str) -> int:
    name = text.lower()[:3]
    if len(text) < 3 or name not in DAYS:
        raise ValueError(f"not a valid day: {text!r}")
    return DAYS.index(name)
