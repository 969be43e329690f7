"""Which half of a group goes on? Successive halving over chained segments, as a pure rule.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (AISTATS 2016): give
every candidate the same small budget, keep the best share, repeat. Here the budget is a number of segments.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A member that has not ended. `segments`: how many it has had; lost ones are none. `value`: its latest metric,
    None for none. `rounds`: of which it was ranked before."""

    run_id: str
    segments: int
    value: float | None
    rounds: int = 0


@dataclass(frozen=True)
class Rank:
    """`place`: 1 for the best. `kept`: it goes on."""

    run_id: str
    place: int
    value: float | None
    kept: bool


def is_due(candidates: Sequence[Candidate], every: int) -> bool:
    """Whether every candidate has had the segments that its next round asks for. A group may be used again, by members
    that were in none of its rounds yet."""
    return len(candidates) > 1 and all(one.segments // every > one.rounds for one in candidates)


def rank(candidates: Sequence[Candidate], share: float, highest: bool) -> list[Rank]:
    """All candidates, best first; the best `share` of them (rounded up, at least one) are kept.

    Without a value a candidate comes last: nobody can say that it is good. Where none has one, all are kept: the name
    of the metric is wrong, or it has not been reported yet. Equals are kept in the order given.
    """
    sign = -1.0 if highest else 1.0
    known = [one for one in candidates if one.value is not None and math.isfinite(one.value)]
    unknown = [one for one in candidates if one.value is None or not math.isfinite(one.value)]
    order = [*sorted(known, key=lambda one: sign * (one.value or 0.0)), *unknown]
    kept = max(math.ceil(round(len(order) * share, 9)), 1)
    if all(one.value is None for one in candidates):
        kept = len(order)
    return [Rank(one.run_id, number, one.value, number <= kept) for number, one in enumerate(order, 1)]
