"""Numbers of one kind, and how they are told: the median, and the range where there are several."""

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
        """The same with `amount` taken off each."""
        return Sample(tuple(value - amount for value in self.values))

    def told(self, digits: int = 1) -> str:
        low, high = min(self.values), max(self.values)
        spread = f" ({low:.{digits}f}-{high:.{digits}f})" if len(self.values) > 1 else ""
        return f"{self.median:.{digits}f}{spread}"


@dataclass(frozen=True)
class Row:
    """One line of the table. `seen`: by tool; a text says why there is no number. `target`: what was aimed at."""

    what: str
    unit: str
    seen: dict[str, Sample | str] = field(default_factory=dict[str, "Sample | str"])
    target: str = ""
    digits: int = 1

    @property
    def count(self) -> int:
        return max((len(one.values) for one in self.seen.values() if isinstance(one, Sample)), default=0)

    def cell(self, tool: str) -> str:
        found = self.seen.get(tool, "")
        return found if isinstance(found, str) else found.told(self.digits)


def ours(what: str, unit: str, sample: Sample, target: str = "", digits: int = 1) -> Row:
    """A line that says nothing of other tools."""
    return Row(what, unit, {OURS: sample}, target, digits)


def table(rows: Sequence[Row], tools: Sequence[str]) -> str:
    """The rows as a Markdown table, a column a tool. `n`: the most measurements of a line's cells."""
    lines = [
        f"| what | unit | n | target | {' | '.join(tools)} |",
        f"| --- | --- | ---: | ---: |{' ---: |' * len(tools)}",
    ]
    for row in rows:
        cells = " | ".join(row.cell(tool) for tool in tools)
        lines.append(f"| {row.what} | {row.unit} | {row.count} | {row.target} | {cells} |")
    return "\n".join(lines)
