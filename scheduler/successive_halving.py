"""Decides which members of a group go on: successive halving over chained segments, as a pure rule.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (AISTATS 2016): give
every candidate the same small budget, keep the best share, repeat. Here the budget is a number of segments.
"""

import math
from collections.abc import Sequence

import msgspec


class Candidate(msgspec.Struct, frozen=True):
    """A member that has not ended.

    `segments`: how many it has had; lost ones do not count. `value`: its latest metric, None if it reported none.
    `rounds`: in how many it was ranked before.
    """

    run_id: str
    segments: int
    value: float | None
    rounds: int = 0


class Rank(msgspec.Struct, frozen=True):
    """The rank of a member in one round. `place`: 1 for the best. `kept`: it goes on."""

    run_id: str
    place: int
    value: float | None
    kept: bool


def is_due(candidates: Sequence[Candidate], every: int) -> bool:
    """Return whether every candidate has had the segments that its next round asks for.

    A group may be used again, by members that were in none of its rounds yet.
    """
    return len(candidates) > 1 and all(member.segments // every > member.rounds for member in candidates)


def rank(candidates: Sequence[Candidate], share: float, highest: bool) -> list[Rank]:
    """Rank all candidates, best first; the best `share` of them (0 to 1, rounded up, at least one) are kept.

    Candidates without a value come last: nothing shows that they are good. Where none has a value, all are kept: the
    name of the metric is wrong, or it has not been reported yet. Equals keep the order given.
    """
    sign = -1.0 if highest else 1.0
    known = [member for member in candidates if member.value is not None and math.isfinite(member.value)]
    unknown = [member for member in candidates if member.value is None or not math.isfinite(member.value)]
    order = [*sorted(known, key=lambda member: sign * (member.value or 0.0)), *unknown]
    kept = max(math.ceil(round(len(order) * share, 9)), 1)
    if all(member.value is None for member in candidates):
        kept = len(order)
    return [
        Rank(member.run_id, number, member.value, number <= kept) for number, member in enumerate(order, 1)
    ]
