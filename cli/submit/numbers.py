"""Makes the types of options that take a number, bounded so that no command meets one it cannot hold."""

from typing import Any, Final

import click

MOST: Final = 10**9
"""The largest number that an option takes where nothing else bounds it. SQLite holds no number above 2**63."""


MOST_GPUS: Final = 1024
"""More than a machine has."""


class Seconds(click.FloatRange):
    """A number of seconds. Click's own range takes nan, which is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return number


def whole(low: int = 0, high: int = MOST) -> click.IntRange:
    """Return the type of an option that takes a whole number."""
    return click.IntRange(low, high)
