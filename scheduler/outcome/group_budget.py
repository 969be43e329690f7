"""Tells when a group has had enough: a metric of a member meets its goal, or its running time is used up. Pure."""

import math
import operator
import re
from collections.abc import Callable
from typing import Final

import msgspec

GOAL_MET: Final = "goal met"
USED_UP: Final = "budget used up"
METRIC_LIMIT: Final = 128
_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_GOAL: Final = re.compile(r"\s*([^<>=\s](?:[^<>=]*[^<>=\s])?)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*")


class Goal(msgspec.Struct, frozen=True):
    """A condition on the values of a metric. `relation`: one of <, <=, >, >=, as SQL has them too."""

    metric: str
    relation: str
    bound: float

    def is_met_by(self, value: float) -> bool:
        """Return whether a value meets it. NaN meets none."""
        return _COMPARISONS[self.relation](value, self.bound)

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.bound:.12g}"


def parse_goal(text: str) -> Goal:
    """Return the goal that `text` names, such as `val_bpb<0.98`. Raises ValueError."""
    match = _GOAL.fullmatch(text)
    if match is None or len(match[1]) > METRIC_LIMIT or not match[1].isprintable():
        raise ValueError("it is not NAME<NUMBER, with <, <=, > or >=")
    try:
        bound = float(match[3])
    except ValueError:
        raise ValueError(f"{match[3]} is not a number") from None
    if not math.isfinite(bound):
        raise ValueError("its number is not finite")
    return Goal(match[1], match[2], bound)


def rule_words(until: str | None, max_total_s: float | None) -> str | None:
    """Word when a group ends; None for a group that has no such rule."""
    rules = [until] if until is not None else []
    rules += [f"{max_total_s / 60:g} min of running time"] if max_total_s is not None else []
    return " or ".join(rules) or None


def why_met(goal: Goal, run_id: str, value: float) -> str:
    """Word that a member has met the goal."""
    return f"{GOAL_MET}: {goal.metric} {value:g} of {run_id} is {goal.relation} {goal.bound:g}"


def why_used_up(used_s: float, limit_s: float) -> str | None:
    """Return why a group's time is over; None while it is not. `used_s`: of all its members together."""
    if used_s < limit_s:
        return None
    return f"{USED_UP}: its group has run for {used_s / 60:.4g} of {limit_s / 60:.4g} minutes"


def why_out(why: str | None) -> str:
    """Word why a group stops a member: its end, which says so itself, or its rank."""
    ended = why is not None and why.startswith((GOAL_MET, USED_UP))
    return f"{why}" if ended else f"outranked: {why}"
