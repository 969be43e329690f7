"""Reads the times that a person types: of the future for --begin, of the past for --since and --older-than."""

import re
from datetime import date, datetime, timedelta
from typing import Final

import click

from backprop.scheduler.errors import BadCommand

_UNIT_S: Final = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DAY_AND_CLOCK: Final = re.compile(r"(?:(today|tomorrow)[ T]+)?(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_AHEAD: Final = re.compile(r"\+(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m(?:in)?)?(?:(\d{1,7})s)?", re.ASCII)
_AGO: Final = re.compile(r"(?:\d{1,6}(?:\.\d{1,3})?[wdhms])+", re.ASCII)
_CLOCK: Final = re.compile(r"(\d\d?):(\d\d)", re.ASCII)


def read_begin(text: str, now_s: float) -> float:
    """Return the earliest start that --begin names, in Unix seconds.

    `text`: a time of day (the next one to come), `today` or `tomorrow` with a time, `+2h30m` (d, h, m, s), or a date
    and time in ISO 8601, in this time zone unless it names another.
    Raises BadCommand for anything else, and for the past.
    """
    if (ahead := _AHEAD.fullmatch(text.strip())) and any(ahead.groups()):
        # Kept as a moment of the wall clock, like the others: it is shown as one, and has to outlive a reboot. Where
        # the clock is corrected meanwhile, it keeps to the moment shown; the span is as wrong as the clock was.
        days, hours, minutes, seconds = (int(amount or 0) for amount in ahead.groups())
        return now_s + ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    moment = _moment(text.strip(), datetime.fromtimestamp(now_s))
    if moment is None:
        raise BadCommand(
            f"--begin {text} is not a valid time; use 22:00, tomorrow 6:00, +2h30m, or a date like 2030-01-31T22:00"
        )
    try:
        at_s = moment.timestamp()
    except (OverflowError, ValueError, OSError) as error:
        raise BadCommand(f"--begin {text} is further away than the calendar goes") from error
    if at_s < now_s:
        raise BadCommand(
            f"--begin {text} has passed; it is {datetime.fromtimestamp(now_s):%Y-%m-%d %H:%M:%S}"
        )
    return at_s


def read_span(text: str, option: str) -> float:
    """Return the seconds of `30m` or `1h30m`. `option`: for the message. Raises BadCommand."""
    if (ahead := _AHEAD.fullmatch(f"+{text.strip()}")) and any(ahead.groups()):
        days, hours, minutes, seconds = (int(amount or 0) for amount in ahead.groups())
        return ((days * 24 + hours) * 60.0 + minutes) * 60.0 + seconds
    raise BadCommand(f"{option} {text} is not a span of time; use 30m, 2h or 1h30m")


def read_since(text: str, now_s: float, option: str = "--since") -> float:
    """Return a time in the past, in Unix seconds.

    `text`: `2h` or `1d12h` ago, the last `22:00`, a date, or a date and time in this time zone. `option`: for the
    message. Raises click.BadParameter.
    """
    text = text.strip()
    if _AGO.fullmatch(text):
        parts = re.findall(r"([\d.]+)([wdhms])", text)
        return now_s - sum(float(amount) * _UNIT_S[unit] for amount, unit in parts)
    try:
        if clock := _CLOCK.fullmatch(text):
            now = datetime.fromtimestamp(now_s)
            then = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
            return (then if then <= now else then - timedelta(days=1)).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text} is not a valid time; use 2h, 1d12h, 22:00, 2026-11-20 or 2026-11-20T22:00",
            param_hint=option,
        ) from None


def _moment(text: str, now: datetime) -> datetime | None:
    try:
        if clock := _DAY_AND_CLOCK.fullmatch(text.lower()):
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
