"""Changes the state of a run: a compare-and-set on (state, segment), and the only place where that happens.

A move is legal if the state table has it, and happens only if the run is still in the state (and, for a live
run, the segment) that the caller read: no other process can come between check and write.
"""

from collections.abc import Mapping
from typing import Any

from backprop.scheduler.errors import IllegalMove, LostRace
from backprop.scheduler.home.wake_pipes import note_settled
from backprop.scheduler.lifecycle import FINAL, SETTLED, Event, State, next_state
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.rows import update_rows


def move_now(database: Database, run: RunRecord, event: Event, **values: Any) -> State:
    """Make one move as a transaction of its own; return the new state. Raises IllegalMove, LostRace."""
    return database.write(lambda: move(run.id, run.state, event, run.segment, values))


def move(
    run_id: str,
    state: State,
    event: Event,
    segment: int,
    values: Mapping[str, object],
    unchanged: Mapping[str, object] | None = None,
) -> State:
    """Make one move inside a transaction; return the new state. It has written nothing when it raises.

    `values`: columns to set with it. `unchanged`: columns that must still have these values. Raises IllegalMove,
    LostRace.
    """
    new = next_state(state, event)
    if new is None:
        raise IllegalMove(f"run {run_id} is {state}: it cannot be {event}")
    condition = {"id": run_id, "state": state.value, "segment": segment, **(unchanged or {})}
    over = {"suspension": None, "thaw_at_s": None} if new in FINAL else {}
    if not update_rows("runs", {"unsatisfied_parent": None, **over, **values, "state": new.value}, condition):
        raise lost_race(run_id)
    if new in SETTLED:
        note_settled()
    return new


def lost_race(run_id: str) -> LostRace:
    """Return the error of who wanted to change a run that somebody else changed first."""
    return LostRace(f"run {run_id} changed state just now; try again")
