"""One line of the table of `check`, and the machine it is about."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backprop.scheduler.governor.snapshot import Gpu

AGREE_MIB = 64
"""How far two readings may lie apart: others' small allocations between them."""
DEVICE = "cuda"


class CannotCheck(Exception):
    """A check that could not be carried out, and why. It counts as failed."""


@dataclass(frozen=True)
class Finding:
    """`agrees` None: a number to know, with nothing to compare it to."""

    what: str
    found: str
    agrees: bool | None = None

    def row(self) -> str:
        mark = {True: "ok", False: "**no**", None: ""}[self.agrees]
        return f"| {self.what} | {self.found} | {mark} |"


Check = Callable[[Gpu], Iterator[Finding]]
"""A check of one GPU that nobody else uses. Raises CannotCheck, TimeoutError, OSError."""
