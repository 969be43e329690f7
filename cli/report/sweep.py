"""Finds the parameters in which runs differ, and what each of their values came to."""

import re
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

import msgspec

from backprop.cli.report.night import Standings
from backprop.scheduler.home.credentials import masked_value

MOST_VALUES: Final = 12
MOST_PARAMETERS: Final = 8
_ASSIGNED: Final = re.compile(r"(-{0,2}[A-Za-z_+][\w.\-/+]*)=(.*)", re.DOTALL)
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Marginal(msgspec.Struct, frozen=True):
    """What the runs with one value of a parameter came to."""

    value: str
    runs: int
    best: float
    median: float


class SweepParameter(msgspec.Struct, frozen=True):
    """A parameter, with its values from the best to the worst by their median."""

    name: str
    marginals: tuple[Marginal, ...]


def parameters(argv: Sequence[str]) -> dict[str, str]:
    """Return the options of a command with their values: `--lr 0.1`, `--lr=0.1`, `lr=0.1`."""
    return dict(_pairs(argv))


def marginals(ranking: Standings) -> list[SweepParameter]:
    """Return the parameters in which the ranked runs differ, the one that matters most first."""
    given = [(parameters(run.spec.argv), value) for run, value in ranking.places]
    names = dict.fromkeys(name for one, _ in given for name in one)
    found: list[SweepParameter] = []
    for name in names:
        by_value: dict[str, list[float]] = {}
        for one, value in given:
            if name in one:
                by_value.setdefault(one[name], []).append(value)
        # A value that each run has to itself, such as an output folder, says nothing about the parameter.
        if 2 <= len(by_value) <= MOST_VALUES and any(len(values) > 1 for values in by_value.values()):
            found.append(SweepParameter(name, _sorted(by_value, ranking.highest)))
    found.sort(key=lambda one: -_spread(one))
    return found[:MOST_PARAMETERS]


def _sorted(by_value: dict[str, list[float]], highest: bool) -> tuple[Marginal, ...]:
    best = max if highest else min
    rows = [Marginal(value, len(values), best(values), median(values)) for value, values in by_value.items()]
    return tuple(sorted(rows, key=lambda row: -row.median if highest else row.median))


def _spread(parameter: SweepParameter) -> float:
    return abs(parameter.marginals[-1].median - parameter.marginals[0].median)


def _pairs(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = list(argv[1:])
    for at, word in enumerate(words):
        if assigned := _ASSIGNED.fullmatch(word):
            name = assigned[1].lstrip("-+")
            yield name, masked_value(name, assigned[2])
        elif word.startswith("-") and not _NUMBER.fullmatch(word) and at + 1 < len(words):
            value = words[at + 1]
            if not value.startswith("-") or _NUMBER.fullmatch(value):
                yield word.lstrip("-"), masked_value(word, value)
