"""Lists the counters in an output by what they count: `Epoch 3/10`, `step=40/100`, a bar, JSON with a step and a total.

Plain output is read as everywhere (`progress`). Beside the place in the training this lists what else is counted: the
batches of an epoch, a validation, a download, and numbers of which nobody knows what they count.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, cast

import msgspec

from backprop.worker.progress import lines as output_lines
from backprop.worker.progress.shapes import LineReader
from backprop.worker.progress.tokens import Counter, LineReading
from backprop.worker.progress.vocabulary import BESIDE, STEPS, is_measure

_ASIDE: Final = re.compile(
    r"val|eval|test|dev\b|infer|predict|sampl|generat|warm|burn|sanity|calib|profil|load|data|token|map\b|fold",
    re.IGNORECASE,
)
"""What a line begins with that counts something beside the training."""
_SUMS_UP: Final = re.compile(r"\b(?:done|finished|completed)\b", re.IGNORECASE)
_TOTALS: Final = {"step": ("total_steps", "total", "max_steps"), "epoch": ("epochs", "total_epochs")}
"""The names of the totals in JSON: `backprop.log(step=3, total=9)`."""


class SeenCounter(msgspec.Struct, frozen=True):
    """A counter in the line `line`. `label`: "step" and "epoch" of the training; "batch" of an epoch, "other" of nobody
    knows what, "aside" of no training. `measured`: its line tells what came of it."""

    line: int
    label: str
    key: str
    number: int
    total: int | None
    measured: bool

    @property
    def is_full(self) -> bool:
        return self.number == self.total


def lines_of(text: bytes) -> list[str]:
    """Return the lines as they could be read at some time, those of all ranks. A carriage return begins one."""
    pieces, _ = output_lines.split(text, whole=True)
    cut = (piece[: output_lines.MAX_LINE] for piece in pieces)
    return [line for piece in cut if (line := output_lines.clean(piece) or piece.decode(errors="replace"))]


def counters_in(lines: Sequence[str]) -> Iterator[SeenCounter]:
    """Yield all counters, in their order, those without a total too."""
    reader = LineReader()
    for at, line in enumerate(lines):
        if line.startswith("{") and (values := _json(line)) is not None:
            yield from _announced(at, values)
            continue
        reading = reader.read(line)
        aside = reading.held_out or _ASIDE.search(re.split(r"\d", line, maxsplit=1)[0]) is not None
        measured = _is_measured(reading, line)
        for counter in (*reading.counters, *reading.beside):
            label = "aside" if aside else _label(counter)
            yield SeenCounter(at, label, counter.key, counter.value, counter.total, measured)


def _label(counter: Counter) -> str:
    """Return what is counted. A bar counts what is done: one that names steps or epochs counts that, and is a step."""
    if counter.unit == "bar":
        words = [word.lower().removesuffix("s") for word in counter.key.split()[1:-1]]
        named = words and words[-1] in STEPS | {"epoch"} and set(words[:-1]) <= BESIDE
        return "step" if named else "batch"
    if counter.key == "[]":
        return "batch"
    return "step" if counter.unit == "global" else counter.unit


def _is_measured(reading: LineReading, line: str) -> bool:
    """Return whether a result stands in a line about a whole epoch, as it does once the epoch is over."""
    within = any(counter.unit != "epoch" for counter in reading.counters)
    return not within and (any(map(is_measure, reading.values)) or _SUMS_UP.search(line) is not None)


def _json(line: str) -> dict[str, object] | None:
    try:
        decoded: object = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", decoded) if isinstance(decoded, dict) else None


def _announced(at: int, values: dict[str, object]) -> Iterator[SeenCounter]:
    """Yield the counters of a line of JSON, whose metrics may hold the totals."""
    metrics = values.get("metrics")
    known = values | (cast("dict[str, object]", metrics) if isinstance(metrics, dict) else {})
    measured = "step" not in known and any(map(is_measure, known))
    for label, totals in _TOTALS.items():
        number = _whole(known.get(label))
        total = next((found for name in totals if (found := _whole(known.get(name)))), None)
        if number is not None:
            yield SeenCounter(at, label, label, number, total, measured)


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
        return None
    return int(value)
