"""Numbers of one kind, and how they are told: always the median with its range and its count."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Measurements in one unit, at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def less(self, amount: float) -> "Sample":
        """The same with `amount` taken off each."""
        return Sample(tuple(value - amount for value in self.values))

    def told(self, digits: int = 1) -> tuple[str, str, str]:
        """Median, range and count as text."""
        low, high = min(self.values), max(self.values)
        spread = f"{low:.{digits}f}-{high:.{digits}f}" if len(self.values) > 1 else ""
        return f"{self.median:.{digits}f}", spread, str(len(self.values))


@dataclass(frozen=True)
class Row:
    """One line of the table. `times_python`: as a multiple of `python -c pass`; None where that says nothing."""

    what: str
    unit: str
    sample: Sample
    digits: int = 1
    times_python: float | None = None


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| what | median | range | unit | times `python -c pass` | n |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in rows:
        median, spread, count = row.sample.told(row.digits)
        times = "" if row.times_python is None else f"{row.times_python:.1f}"
        lines.append(f"| {row.what} | {median} | {spread} | {row.unit} | {times} | {count} |")
    return "\n".join(lines)
