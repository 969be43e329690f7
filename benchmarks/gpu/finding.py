"""Types that the checks share: one line of their table, how long they take, and why one could not be done."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backprop.scheduler.governor.snapshot import Gpu

AGREE_MIB = 64
"""How far two readings may lie apart: other programs' small allocations between them."""


class CannotCheck(Exception):
    """A check that could not be carried out, and why. It counts as failed."""


@dataclass(frozen=True)
class Finding:
    """One line of the table. `agrees` None: a number to know, with nothing to compare it to."""

    what: str
    found: str
    agrees: bool | None = None

    def row(self) -> str:
        """Return the line in Markdown."""
        mark = {True: "ok", False: "**no**", None: ""}[self.agrees]
        return f"| {self.what} | {self.found} | {mark} |"


@dataclass(frozen=True)
class Effort:
    """How long the checks take.

    `stopped_s`: how long a process stays frozen. `readings`: of the driver, per measurement. `hold_s`: how long each
    packed run keeps its memory. `box_min`: the timebox of a chain, in minutes. `plain_s`: about what the same training
    takes without interruption, several timeboxes. `moved_mib`: how much VRAM is moved out and in, one after the other.
    """

    stopped_s: float
    readings: int
    hold_s: float
    box_min: float
    plain_s: float
    moved_mib: tuple[int, ...]


THOROUGH = Effort(
    stopped_s=10.0,
    readings=50,
    hold_s=20.0,
    box_min=0.25,
    plain_s=60.0,
    moved_mib=(*(2048,) * 5, 16_384, 40_960),
)
QUICK = Effort(stopped_s=1.0, readings=5, hold_s=4.0, box_min=0.05, plain_s=5.0, moved_mib=(64, 64, 128))

Check = Callable[[Gpu, Effort], Iterator[Finding]]
"""A check of one GPU that nobody else uses. Raises CannotCheck, TimeoutError, OSError, CalledProcessError."""
