"""Follows the plain output of one segment: its place in the training, its loss and its metrics.

Bounds: of `MAX_BYTES` of output at once the last `MAX_LINES` lines count, `MAX_TEXT` of them in all, each cut to
`lines.MAX_LINE`: a flood costs no more. What is no number is never guessed, and neither is the direction of a metric.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.worker.progress import lines
from backprop.worker.progress.metric_rules import MetricRule
from backprop.worker.progress.shapes import LineReader
from backprop.worker.progress.steps import StepChoice, StepTrace
from backprop.worker.progress.tokens import MAX_COUNT, Counter, LineReading

MAX_BYTES: Final = 64 * 1024
MAX_LINES: Final = 64
MAX_TEXT: Final = 16 * 1024
MAX_VALUES: Final = 64
MAX_TRIES: Final = 50_000
"""Instructions of the user's patterns at once, well below 0.1 s; lines beyond that are read without them."""

_LOSSES: Final = (
    {"loss"},
    {"train_loss", "training_loss", "total_loss", "train/loss", "loss/train"},
    {"lm_loss", "step_loss", "train_loss_step", "train_loss_epoch", "nll_loss"},
)
"""The names of the loss of the training, the best first. One of held-out data is a metric like any other."""
_SAYS: Final = re.compile(rb"\d|(?i:epoch|step|iter|class)\b.*\w")
"""A line without a number may be the header of a table."""
_FRAME: Final = re.compile(rb'File "[^"]{1,512}", line \d')
"""Of a traceback: the line behind it is the user's source, such as `return 1 / n`, and nothing that was printed."""


class PlainNumbers(msgspec.Struct):
    """What was read since the last time. `values`: the last of each name, with the step it stood beside."""

    loss: float | None = None
    values: dict[str, tuple[int | None, float]] = {}
    stepped: bool = False

    def add(self, later: "PlainNumbers") -> None:
        """Add what was read after this."""
        self.loss = later.loss if later.loss is not None else self.loss
        self.values |= later.values
        self.stepped = self.stepped or later.stepped


class PlainReader:
    """Reads one segment's output in order. `rules`: the user's own patterns, which beat what is found without them."""

    def __init__(self, rules: Sequence[MetricRule] = ()) -> None:
        self._rules, self._tries = rules, MAX_TRIES
        self._line_reader = LineReader()
        self._choice = StepChoice()
        self._loss_rank = len(_LOSSES)
        self._source_follows = False

    @property
    def trace(self) -> StepTrace | None:
        """The steps of the counter that is the place in the training; None while there is none."""
        return self._choice.trace

    def take(self, data: bytes, whole: bool = False) -> tuple[PlainNumbers, int]:
        """Read output; return what it says and how many bytes are done with. `whole`: nothing will be added to its last
        line. Raises nothing."""
        pieces, done = lines.split(data[:MAX_BYTES], whole)
        found = PlainNumbers()
        self._tries = MAX_TRIES
        for piece in _newest(pieces):
            is_source, self._source_follows = (
                self._source_follows,
                _FRAME.search(piece, 0, lines.MAX_LINE) is not None,
            )
            if is_source or self._source_follows:
                continue
            text = lines.clean(piece) if _SAYS.search(piece, 0, lines.MAX_LINE) else None
            if text:
                self._line(text, found)
        return found, done

    def _line(self, text: str, found: PlainNumbers) -> None:
        reading = self._line_reader.read(text)
        self._own(text, reading)
        self._choice.take(reading.counters, reading.held_out)
        found.stepped = found.stepped or bool(reading.counters)
        trace = self._choice.trace
        step = trace.last if trace is not None else None
        for name, value in reading.values.items():
            if name in found.values or len(found.values) < MAX_VALUES:
                found.values[name] = (step, value)
        rank, loss = self._loss(reading.values)
        if loss is not None:
            self._loss_rank = rank
            found.loss = loss
            found.values["loss"] = (step, loss)

    def _loss(self, values: dict[str, float]) -> tuple[int, float | None]:
        for rank, names in enumerate(_LOSSES[: self._loss_rank + 1]):
            for name in names & values.keys():
                return rank, values[name]
        return self._loss_rank, None

    def _own(self, text: str, reading: LineReading) -> None:
        """Add what the user's patterns find."""
        for rule in self._rules:
            number, tries = rule.find(text, self._tries)
            self._tries -= tries
            if number is None:
                continue
            if rule.name in ("step", "epoch"):
                if number.is_integer() and 0 <= number <= MAX_COUNT:
                    unit = "global" if rule.name == "step" else "epoch"
                    reading.counters = [each for each in reading.counters if each.key != rule.name]
                    reading.counters.append(Counter(unit, f"own {rule.name}", int(number)))
                    reading.held_out = False
            else:
                reading.values[rule.name] = number


def _newest(pieces: list[bytes]) -> list[bytes]:
    """Return the last lines that are together no longer than `MAX_TEXT`."""
    kept: list[bytes] = []
    left = MAX_TEXT
    for piece in reversed(pieces[-MAX_LINES:]):
        left -= min(len(piece), lines.MAX_LINE)
        if left < 0:
            break
        kept.append(piece)
    return kept[::-1]
