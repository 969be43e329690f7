"""Holds the result of a check of `backprop doctor`: what was seen, and what to do about it.

The checks are in `home` (where things are kept), `database` (what is queued and running), `machine` (what Backprop
relies on) and `login` (what survives a logout). `checkup` runs them all. None changes anything.
"""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from backprop.scheduler.errors import BackpropError


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing is broken."""
    BAD = "bad"
    """Runs cannot start, or something may be lost."""


class Finding(msgspec.Struct, frozen=True):
    """`told`: what was seen. `advice`: what to do, a command where there is one; None where nothing has to be done."""

    name: str
    level: Level
    told: str
    advice: str | None = None


def ok(name: str, told: str) -> Finding:
    return Finding(name, Level.OK, told)


def note(name: str, told: str, advice: str | None = None) -> Finding:
    return Finding(name, Level.NOTE, told, advice)


def bad(name: str, told: str, advice: str | None = None) -> Finding:
    return Finding(name, Level.BAD, told, advice)


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """Return what the check finds. An expected error becomes a finding, so that the other checks still run. A bug is
    raised."""
    try:
        return check()
    except BackpropError as error:
        return bad(name, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return bad(name, f"cannot be checked: {where}{error.strerror or error}")


def counted(count: int, what: str) -> str:
    """Return "1 run" or "2 runs"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def some(names: list[str], most: int = 5) -> str:
    """Return the first `most` names and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
