"""Puts some variants of a test behind the marker `long`."""

from collections.abc import Iterable
from typing import Any

import pytest


def some(values: Iterable[Any], every: int) -> list[Any]:
    """Return the values as parameters: each `every`-th, from the first on, is for the ordinary suite; the others are
    marked long."""
    return [
        value if number % every == 0 else pytest.param(value, marks=pytest.mark.long)
        for number, value in enumerate(values)
    ]
