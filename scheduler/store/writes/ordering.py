"""Moves waiting runs to other places in the queue.

A higher priority comes first, then the earlier `turn_s`. `turn_s` starts as the time of queueing; moving a run assigns
a value between those of its new neighbours, and their priority.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from backprop.scheduler.errors import IllegalMove
from backprop.scheduler.home.request_log import Verb
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store import requests
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.requests import Note
from backprop.scheduler.store.rows import update_each
from backprop.scheduler.store.schema import Run

WAITING: Final = (State.QUEUED.value, State.HELD.value, State.SUSPENDED.value)
LEAST_GAP_S: Final = 1e-6
"""Four times what a float can tell apart at today's Unix seconds; members of a batch are that close together."""
NEW_GAP_S: Final = 1e-3

Slot = tuple[str, int, float]
"""(id, priority, `turn_s`)."""


class TargetSlot(StrEnum):
    """Where runs are moved to: an end of the queue, or right before or after another run."""

    FIRST = "first"
    LAST = "last"
    BEFORE = "before"
    AFTER = "after"


def move_to(
    database: Database, run_ids: Sequence[str], where: TargetSlot, other: str | None, now_s: float
) -> list[str]:
    """Move waiting runs, in this order, to the front or back of the queue, or right before or after the run `other`.

    They take the priority of that place. Returns the ids that were moved; the others are not waiting any more. Raises
    IllegalMove when `other` is not waiting.
    """

    def verb(note: Note) -> list[str]:
        query = Run.select(Run.id, Run.priority, Run.turn_s).where(Run.state.in_(list(WAITING)))
        rows: Any = query.order_by(Run.priority.desc(), Run.turn_s, Run.id).tuples()
        queue: list[Slot] = list(rows)
        moving = set(run_ids)
        waiting = {slot[0] for slot in queue}
        todo = [run_id for run_id in run_ids if run_id in waiting]
        others = [slot for slot in queue if slot[0] not in moving]
        slots = _slots(todo, others, _index(others, where, other, moving), where, now_s)
        place_now({run_id: (priority, turn_s) for run_id, priority, turn_s in slots})
        places = {run_id: (priority, turn_s) for run_id, priority, turn_s in slots if run_id in moving}
        note(Verb.MOVE, todo, at_s=now_s, places=places)
        return todo

    return requests.write(database, verb)


def place_now(places: Mapping[str, tuple[int, float]]) -> None:
    """Inside a transaction: write (priority, `turn_s`) of each run."""
    rows = [(priority, turn_s, run_id) for run_id, (priority, turn_s) in places.items()]
    update_each("runs", ("priority", "turn_s"), rows, "id = ?")


def _index(others: Sequence[Slot], where: TargetSlot, other: str | None, moving: set[str]) -> int:
    """Return the index in `others` that the runs are moved before."""
    if where is TargetSlot.FIRST:
        return 0
    if where is TargetSlot.LAST:
        return len(others)
    if other in moving:
        raise IllegalMove(f"run {other} cannot be moved {where} itself")
    at = next((number for number, slot in enumerate(others) if slot[0] == other), None)
    if at is None:
        raise IllegalMove(f"run {other} is not waiting in the queue")
    return at if where is TargetSlot.BEFORE else at + 1


def _slots(
    todo: Sequence[str], others: Sequence[Slot], at: int, where: TargetSlot, now_s: float
) -> list[Slot]:
    """Return what to write: the new places, and those of all runs of their priority where there is no room between."""
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
    front = [slot for slot in others[:at] if slot[1] == priority]
    back = [slot for slot in others[at:] if slot[1] == priority]
    ids = [slot[0] for slot in front] + list(todo) + [slot[0] for slot in back]
    last_s = back[-1][2]
    return [
        (run_id, priority, last_s - (len(ids) - number) * NEW_GAP_S) for number, run_id in enumerate(ids, 1)
    ]
