"""Expands one command into many runs: which values there are, and where they go into the command."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Final

import msgspec

from backprop.scheduler.errors import BadCommand

MOST: Final = 100_000
"""Runs that one command may queue: beyond it, a typing error is likelier than a night that long."""
INDEX: Final = "index"


class Variant(msgspec.Struct, frozen=True):
    """One of the runs: its values by key. `index`: in an array, else None. `label`: what sets it apart in a name."""

    values: Mapping[str, str]
    index: int | None = None
    label: str = ""


class SweepSpec(msgspec.Struct, frozen=True):
    """What is varied: rows of a file, for each row the grid's product, for each of those the array's indices.

    The last one varies fastest. `at_once`: how many may run at the same time, None for no such limit.
    Raises BadCommand when there are too many runs, or a key has two sources.
    """

    rows: Sequence[Mapping[str, str]] = ()
    grid: Mapping[str, Sequence[str]] | None = None
    indices: Sequence[int] = ()
    at_once: int | None = None

    def __post_init__(self) -> None:
        if len(self) > MOST:
            raise BadCommand(f"that is {len(self):,} runs; one command queues at most {MOST:,}")
        keys = [*(self.grid or ()), *((INDEX,) if self.indices else ()), *(self.rows[0] if self.rows else ())]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise BadCommand(f"{{{twice}}} has two sources; rename one of them")

    def __len__(self) -> int:
        count = max(len(self.rows), 1) * max(len(self.indices), 1)
        for values in (self.grid or {}).values():
            count *= len(values)
        return count

    @property
    def keys(self) -> frozenset[str]:
        """Every key that is replaced."""
        keys = {*(self.grid or ()), *(self.rows[0] if self.rows else ())}
        return frozenset(keys | {INDEX}) if self.indices else frozenset(keys)

    def variants(self) -> Iterator[Variant]:
        """Yield every combination."""
        names = list(self.grid or ())
        for number, row in enumerate(self.rows or ({},), 1):
            for chosen in product(*(self.grid or {}).values()):
                values = {**row, **dict(zip(names, chosen, strict=True))}
                label = "-".join((*([str(number)] if self.rows else ()), *chosen))
                if not self.indices:
                    yield Variant(values, label=label)
                for index in self.indices:
                    with_index = f"{label}-{index}" if label else str(index)
                    yield Variant({**values, INDEX: str(index)}, index, with_index)

    def unused(self, used: frozenset[str]) -> str | None:
        """Return why these runs would be identical, or None. `used`: the keys that are replaced somewhere.

        The runs of an array differ in BACKPROP_ARRAY_INDEX. A file may have columns beside those needed.
        """
        for key in self.grid or ():
            if key not in used:
                return f"--grid {key} has no effect: put {{{key}}} in the arguments, --name or --env"
        if self.rows and not used & frozenset(self.rows[0]):
            names = ", ".join(f"{{{key}}}" for key in self.rows[0])
            return f"--params has no effect: put at least one of {names} in the arguments, --name or --env"
        return None


class Template:
    """Puts values into texts, in one pass: braces inside a value are not replaced again. Braces around anything but a
    known key stay."""

    def __init__(self, keys: frozenset[str]) -> None:
        names = "|".join(re.escape(key) for key in sorted(keys, key=len, reverse=True))
        self._pattern = re.compile(r"\{(" + names + r")\}") if keys else None
        self.used: set[str] = set()
        """The keys that the texts hold."""

    def of(self, text: str, convert: Callable[[str], str] = str) -> Callable[[Mapping[str, str]], str]:
        """Return a function from a variant's values to the filled `text`. `convert`: applied to each value first."""
        pieces = self._pattern.split(text) if self._pattern is not None else [text]
        self.used.update(pieces[1::2])
        if len(pieces) == 1:
            return lambda _: text
        fixed, keys = pieces[0::2], pieces[1::2]

        def filled(values: Mapping[str, str]) -> str:
            parts = [fixed[0]]
            for key, after in zip(keys, fixed[1:], strict=True):
                parts += (convert(values[key]), after)
            return "".join(parts)

        return filled
