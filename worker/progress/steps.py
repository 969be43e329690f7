"""Decides which of a segment's counters is the place in its training. One reader for nights, drills and reports.

In this order, and never a counter of held-out data:

1. a step of the whole training by its name: `global_step`, `num_updates`, `total_timesteps`;
2. a step, iteration or update without a total, until it begins again as the epoch rises: then it counts batches;
3. an epoch with its total, `Epoch 3/10`: a bar or a `Step [100/600]` beside it counts the batches of one epoch;
4. a step with a total; a bar of tqdm, unless its label names an epoch. Of several the first, until it is full;
5. an epoch without its total.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.worker.progress.tokens import Counter

MAX_COUNTERS: Final = 32
UNITS: Final = {"global": "step", "bar": "step"}


class StepTrace(msgspec.Struct):
    """The steps a segment has reported. `fell`: one was lower than the one before it. Of plain output: `unit` ("step",
    "epoch"; None where they were announced) and `total`, how many there will be."""

    first: int | None = None
    last: int | None = None
    highest: int | None = None
    fell: bool = False
    unit: str | None = None
    total: int | None = None

    @property
    def is_at_end(self) -> bool:
        """Return whether plain output shows the last step of all: what is left is the script's final part."""
        return (
            self.unit == "step"
            and self.total is not None
            and self.last is not None
            and self.last >= self.total
        )

    def take(self, step: int) -> None:
        self.first = step if self.first is None else self.first
        self.fell = self.fell or (self.last is not None and step < self.last)
        self.highest = step if self.highest is None else max(step, self.highest)
        self.last = step


class _Known(msgspec.Struct):
    """`epoch`: the last one seen when the counter spoke last. `within`: it begins again with each epoch."""

    kind: str
    trace: StepTrace
    epoch: int | None = None
    within: bool = False


class StepChoice:
    """Takes the counters of each line in turn. `trace`: of the chosen one; None before any."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._chosen: str | None = None

    @property
    def trace(self) -> StepTrace | None:
        return self._known[self._chosen].trace if self._chosen is not None else None

    def take(self, counters: Sequence[Counter], held_out: bool) -> None:
        """Follow the counters of one line."""
        totals = any(counter.unit == "epoch" and counter.total for counter in counters)
        for counter in sorted(counters, key=lambda counter: counter.unit != "epoch"):
            if counter.unit == "epoch" or not held_out:
                self._follow(counter, totals)
        self._choose()

    def _follow(self, counter: Counter, beside_total: bool) -> None:
        known = self._known.get(counter.key)
        if known is None:
            if len(self._known) >= MAX_COUNTERS:
                return
            unit = UNITS.get(counter.unit, counter.unit)
            known = self._known[counter.key] = _Known(counter.unit, StepTrace(unit=unit))
        if known.within:
            return
        epoch = self._known.get("epoch")
        now = epoch.trace.last if epoch is not None else None
        falls = known.trace.last is not None and counter.value < known.trace.last
        rose = now is not None and (known.epoch is None or now > known.epoch)
        counts_batches = beside_total and counter.total is not None and counter.unit in ("step", "bar")
        if counts_batches or (falls and (counter.unit == "bar" or (counter.unit == "step" and rose))):
            known.within = True
            return
        known.epoch = now
        known.trace.total = counter.total if counter.total else known.trace.total
        known.trace.take(counter.value)

    def _choose(self) -> None:
        """Stay with the present one among equals, unless it is a full bar: that was another job, such as tokenizing."""
        candidates = [
            key for key, known in self._known.items() if not known.within and known.trace.last is not None
        ]
        present = self._chosen

        def order(key: str) -> tuple[int, bool, bool]:
            return self._rank(self._known[key]), self._is_full(key), key != present

        self._chosen = min(candidates, key=order, default=None)

    def _is_full(self, key: str) -> bool:
        known = self._known[key]
        return known.kind == "bar" and known.trace.last == known.trace.total

    def _rank(self, known: _Known) -> int:
        counted = known.trace.total is not None
        return {"global": 1, "step": 4 if counted else 2, "bar": 4, "epoch": 3 if counted else 5}[known.kind]
