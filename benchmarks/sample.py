"""Holds measurements and prints them: the median, and the range where there are several."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

OURS = "backprop"


@dataclass(frozen=True)
class Sample:
    """Measurements in one unit, at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def less(self, amount: float) -> "Sample":
        """Return the same with `amount` subtracted from each."""
        return Sample(tuple(value - amount for value in self.values))

    def text(self, digits: int = 1) -> str:
        low, high = min(self.values), max(self.values)
        spread = f" ({low:.{digits}f}-{high:.{digits}f})" if len(self.values) > 1 else ""
        return f"{self.median:.{digits}f}{spread}"


@dataclass(frozen=True)
class Row:
    """One line of the table. `cells`: by tool; a text says why there is no number. `target`: what was aimed at."""

    what: str
    unit: str
    cells: dict[str, Sample | str] = field(default_factory=dict[str, "Sample | str"])
    target: str = ""
    digits: int = 1

    @property
    def count(self) -> int:
        return max(
            (len(sample.values) for sample in self.cells.values() if isinstance(sample, Sample)), default=0
        )

    def cell(self, tool: str) -> str:
        value = self.cells.get(tool, "")
        return value if isinstance(value, str) else value.text(self.digits)


def ours(what: str, unit: str, sample: Sample, target: str = "", digits: int = 1) -> Row:
    """Return a line without other tools."""
    return Row(what, unit, {OURS: sample}, target, digits)


def table(rows: Sequence[Row], tools: Sequence[str]) -> str:
    """Return the rows as a Markdown table with a column per tool. `n`: the most measurements of a line's cells."""
    lines = [
        f"| what | unit | n | target | {' | '.join(tools)} |",
        f"| --- | --- | ---: | ---: |{' ---: |' * len(tools)}",
    ]
    for row in rows:
        cells = " | ".join(row.cell(tool) for tool in tools)
        lines.append(f"| {row.what} | {row.unit} | {row.count} | {row.target} | {cells} |")
    return "\n".join(lines)
