"""`--begin`: from the words a person uses for a time to Unix seconds."""

import re
from datetime import date, datetime, timedelta
from typing import Final

from backprop.scheduler.errors import BadCommand

_CLOCK: Final = re.compile(r"(?:(today|tomorrow)[ T]+)?(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_AHEAD: Final = re.compile(r"\+(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m(?:in)?)?(?:(\d{1,7})s)?", re.ASCII)


def read_begin(text: str, now_s: float) -> float:
    """When a run may start at the earliest. `text`: a time of the local day (the next one to come), `today` or
    `tomorrow` with a time, `+2h30m` (d, h, m, s), or a date and time in ISO 8601, of this zone unless it names another.

    Raises BadCommand for anything else, and for the past.
    """
    if (ahead := _AHEAD.fullmatch(text.strip())) and any(ahead.groups()):
        days, hours, minutes, seconds = (int(one or 0) for one in ahead.groups())
        return now_s + ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    found = _moment(text.strip(), datetime.fromtimestamp(now_s))
    if found is None:
        raise BadCommand(
            f"--begin {text} is no time: 22:00, tomorrow 6:00, +2h30m, or a date like 2030-01-31T22:00"
        )
    try:
        begin_s = found.timestamp()
    except (OverflowError, ValueError, OSError) as error:
        raise BadCommand(f"--begin {text} is further away than the calendar goes") from error
    if begin_s < now_s:
        raise BadCommand(
            f"--begin {text} has passed; it is {datetime.fromtimestamp(now_s):%Y-%m-%d %H:%M:%S}"
        )
    return begin_s


def _moment(text: str, now: datetime) -> datetime | None:
    try:
        if clock := _CLOCK.fullmatch(text.lower()):
            return _at(clock, now)
        return datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None


def _at(clock: re.Match[str], now: datetime) -> datetime:
    """Raises ValueError for 25:00."""
    day, hour, minute, second = clock.groups()

    def on(when: date) -> datetime:
        return datetime(when.year, when.month, when.day, int(hour), int(minute), int(second or 0))

    today = on(now.date())
    if day == "tomorrow" or (day is None and today < now):
        return on(now.date() + timedelta(days=1))
    return today
