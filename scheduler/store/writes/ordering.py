"""Whose turn is it? Higher priority first, then the earlier `turn_s`; moving a run changes both.

A turn is a time of day only by birth: moved runs get one between those of their new neighbours.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

from backprop.scheduler.errors import IllegalMove
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store import rows as statements
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import Run

WAITING: Final = (State.QUEUED.value, State.HELD.value)
LEAST_GAP_S: Final = 1e-6
"""Four times what a float can tell apart at today's Unix seconds; members of a batch are that close together."""
NEW_GAP_S: Final = 1e-3

Slot = tuple[str, int, float]
"""(id, priority, turn)."""


class TargetSlot(StrEnum):
    FIRST = "first"
    LAST = "last"
    BEFORE = "before"
    AFTER = "after"


def move_to(
    database: Database, run_ids: Sequence[str], where: TargetSlot, other: str | None, now_s: float
) -> list[str]:
    """Put waiting runs, in this order, where they are wanted: at the very front or back, whatever the priorities there,
    or right before or after the run `other`. They take the priority of that place.

    Returns the ids that were moved; the others do not wait any more. Raises IllegalMove when `other` does not.
    """

    def verb() -> list[str]:
        query = Run.select(Run.id, Run.priority, Run.turn_s).where(Run.state.in_(list(WAITING)))
        rows: Any = query.order_by(Run.priority.desc(), Run.turn_s, Run.id).tuples()
        queue: list[Slot] = list(rows)
        mine = set(run_ids)
        waiting = {one[0] for one in queue}
        todo = [run_id for run_id in run_ids if run_id in waiting]
        others = [one for one in queue if one[0] not in mine]
        slots = _slots(todo, others, _at(others, where, other, mine), where, now_s)
        places = [(priority, turn_s, run_id) for run_id, priority, turn_s in slots]
        statements.update_each("runs", ("priority", "turn_s"), places, "id = ?")
        return todo

    return database.write(verb)


def _at(others: Sequence[Slot], where: TargetSlot, other: str | None, mine: set[str]) -> int:
    """Before which of the others."""
    if where is TargetSlot.FIRST:
        return 0
    if where is TargetSlot.LAST:
        return len(others)
    if other in mine:
        raise IllegalMove(f"run {other} cannot be moved {where} itself")
    at = next((number for number, one in enumerate(others) if one[0] == other), None)
    if at is None:
        raise IllegalMove(f"run {other} is not waiting in the queue")
    return at if where is TargetSlot.BEFORE else at + 1


def _slots(
    todo: Sequence[str], others: Sequence[Slot], at: int, where: TargetSlot, now_s: float
) -> list[Slot]:
    """What to write: the new places, and those of their whole class of priority where there is no room between."""
    if not others:
        return [(run_id, 0, now_s + number * LEAST_GAP_S) for number, run_id in enumerate(todo)]
    neighbour = others[at] if where in (TargetSlot.FIRST, TargetSlot.BEFORE) else others[at - 1]
    priority = neighbour[1]
    low_s = others[at - 1][2] if at > 0 and others[at - 1][1] == priority else None
    high_s = others[at][2] if at < len(others) and others[at][1] == priority else None
    if low_s is None and high_s is not None:
        low_s = high_s - len(todo) - 1.0
    if high_s is None:
        # Nothing of this priority is behind it; what is queued later has a later turn.
        begin_s = max(low_s or now_s, now_s)
        return [(run_id, priority, begin_s + number * LEAST_GAP_S) for number, run_id in enumerate(todo, 1)]
    gap_s = (high_s - (low_s or 0.0)) / (len(todo) + 1)
    if gap_s >= LEAST_GAP_S:
        return [(run_id, priority, (low_s or 0.0) + gap_s * number) for number, run_id in enumerate(todo, 1)]
    front = [one for one in others[:at] if one[1] == priority]
    back = [one for one in others[at:] if one[1] == priority]
    ids = [one[0] for one in front] + list(todo) + [one[0] for one in back]
    last_s = back[-1][2]
    return [
        (run_id, priority, last_s - (len(ids) - number) * NEW_GAP_S) for number, run_id in enumerate(ids, 1)
    ]
