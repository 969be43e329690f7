"""What `backprop doctor` finds: one answer a question, with what to do about it.

The questions are in `checks_home.py` (where things are kept), `checks_queue.py` (what is in them),
`checks_machine.py` (what they stand on) and `checks_login.py` (what they outlive); `checkup.py` asks them all. None
changes anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from backprop.scheduler.errors import BackpropError


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing is broken."""
    BAD = "bad"
    """Runs cannot start, or something may be lost."""


@dataclass(frozen=True)
class Finding:
    """`told`: what was seen. `advice`: what to do, or None where nothing is to be done."""

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


def guarded(name: str, question: Callable[[], Finding]) -> Finding:
    """The answer; what kept it from being had is an answer too, and no other question suffers. A bug is raised."""
    try:
        return question()
    except BackpropError as error:
        return bad(name, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return bad(name, f"cannot be checked: {where}{error.strerror or error}")


def counted(count: int, what: str) -> str:
    """1 run, 2 runs."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def some(names: list[str], most: int = 5) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
