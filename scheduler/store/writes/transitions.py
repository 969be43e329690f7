"""How does a run change its state? The one place where that happens: a compare-and-set on (state, segment).

A move is legal if the state table has it, and happens only if the run is still in the state (and, for a live
run, the segment) that the caller saw: check and write cannot be pulled apart by another process.
"""

from collections.abc import Mapping
from typing import Any

from backprop.scheduler.errors import IllegalMove, LostRace
from backprop.scheduler.lifecycle import Event, State, next_state
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store import rows
from backprop.scheduler.store.connection import Database


def move_now(database: Database, run: RunRecord, event: Event, **values: Any) -> State:
    """One move as a transaction of its own. Raises IllegalMove, LostRace."""
    return database.write(lambda: move(run.id, run.state, event, run.segment, values))


def move(
    run_id: str,
    state: State,
    event: Event,
    segment: int,
    values: Mapping[str, object],
    unchanged: Mapping[str, object] | None = None,
) -> State:
    """Inside a transaction; it has written nothing when it raises.

    `values`: of columns to set with it. `unchanged`: columns that must still have these values. Raises IllegalMove,
    LostRace.
    """
    new = next_state(state, event)
    if new is None:
        raise IllegalMove(f"run {run_id} is {state}: it cannot be {event}")
    here = {"id": run_id, "state": state.value, "segment": segment, **(unchanged or {})}
    if not rows.update("runs", {**values, "state": new.value}, here):
        raise LostRace(f"run {run_id} has just moved on; look again: backprop show {run_id}")
    return new
