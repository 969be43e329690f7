"""Makes the types of options that take a number, bounded so that no command meets one it cannot hold."""

import contextlib
import re
from typing import Any, Final

import click

MOST: Final = 10**9
"""The largest number that an option takes where nothing else bounds it. SQLite holds no number above 2**63."""


MOST_GPUS: Final = 1024
"""More than a machine has."""
MOST_PRIORITY: Final = 1_000_000
_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(s|min|m|h|d)(?![a-z])", re.ASCII)
_UNIT_MIN: Final = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}


class Seconds(click.FloatRange):
    """A number of seconds. Click's own range takes nan, which is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return number


class Minutes(click.ParamType[float]):
    """A number of minutes, or a span such as 90s, 10m, 1h30m or 2d."""

    name = "minutes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return minutes. Whether so many are allowed is for the setting's own check."""
        with contextlib.suppress(ValueError):
            return float(value)
        parts = re.findall(_PART, str(value).lower())
        if not parts or re.sub(_PART, "", str(value).lower()).strip():
            self.fail(f"{value} is no time; use minutes, such as 10, or 90s, 10m, 1h30m, 2d", param, ctx)
        return sum(float(amount) * _UNIT_MIN[unit[0]] for amount, unit in parts)


def whole(low: int = 0, high: int = MOST) -> click.IntRange:
    """Return the type of an option that takes a whole number."""
    return click.IntRange(low, high)
