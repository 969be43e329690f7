"""When may runs be started? Windows of the week, such as "22:00-08:00" or "Mon-Fri 19:00-08:00".

A window is a stretch of what the clock on the wall shows. One whose end is not after its start runs over midnight and
belongs to the day it begins on. Where daylight saving skips an hour, the part of a window in it does not happen; where
it repeats one, that part happens twice. Pure: the time comes in, and so may the zone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import localtime, struct_time
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN: Final = 24 * 60
LOOK_AHEAD_DAYS: Final = 8
"""A window of a single day of the week comes round within seven."""
LIMIT: Final = 100

_WINDOW: Final = re.compile(
    r"(?:([a-z ,-]+?)\s+)?(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)", re.IGNORECASE | re.ASCII
)

Local = Callable[[float], struct_time]
LOCAL_TIME: Local = localtime


@dataclass(frozen=True, slots=True)
class Window:
    """`days`: of the week, Monday 0, on which it begins. Minutes since midnight; `end_min` <= `start_min`: of the next
    day."""

    days: frozenset[int]
    start_min: int
    end_min: int

    def holds(self, day: int, minute: int) -> bool:
        if self.start_min < self.end_min:
            return day in self.days and self.start_min <= minute < self.end_min
        yesterday = (day - 1) % len(DAYS)
        return (day in self.days and minute >= self.start_min) or (
            yesterday in self.days and minute < self.end_min
        )


def parse(text: str) -> Window:
    """Read one window. Raises ValueError for anything else, and for one that begins where it ends."""
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"no window: {text!r}")
    start_min, end_min = _minutes(found[2], found[3]), _minutes(found[4], found[5])
    if start_min in (end_min, DAY_MIN):
        raise ValueError(f"no window: {text!r}")
    return Window(_days(found[1]) if found[1] else frozenset(range(len(DAYS))), start_min, end_min)


def parse_all(texts: Sequence[str]) -> tuple[Window, ...]:
    """Read several. Raises ValueError."""
    if len(texts) > LIMIT:
        raise ValueError(f"more than {LIMIT} windows")
    return tuple(parse(text) for text in texts)


def is_open(windows: Sequence[Window], at_s: float, local: Local = localtime) -> bool:
    """Whether runs may be started at `at_s` (Unix seconds). No windows: always."""
    now = local(at_s)
    return not windows or any(one.holds(now.tm_wday, now.tm_hour * 60 + now.tm_min) for one in windows)


def changes_at_s(windows: Sequence[Window], at_s: float, local: Local = localtime) -> float | None:
    """When what `is_open` says at `at_s` changes next, to the minute (Unix seconds); None if it never does.

    Minute by minute, some milliseconds for a week: the clock on the wall jumps where it likes, and an instant worked
    out from the calendar may not exist, or exist twice.
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
        raise ValueError(f"no time: {hour}:{minute}")
    return total


def _days(text: str) -> frozenset[int]:
    """Read "Mon-Fri", "Sat,Sun", "Fri-Mon, Wed"."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        start = _day(first)
        end = _day(last) if dash else start
        found |= {(start + step) % len(DAYS) for step in range((end - start) % len(DAYS) + 1)}
    return frozenset(found)


def _day(text: str) -> int:
    name = text.lower()[:3]
    if len(text) < 3 or name not in DAYS:
        raise ValueError(f"no day: {text!r}")
    return DAYS.index(name)
