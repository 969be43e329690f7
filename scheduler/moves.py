"""How does a run change its state? The one place where that happens: a compare-and-set on (state, segment).

A move is legal if the state table has it, and happens only if the run is still in the state (and, for a live
run, the segment) that the caller saw: check and write cannot be pulled apart by another process.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from typing import Any

from backprop.scheduler.database import Database
from backprop.scheduler.errors import IllegalMove, LostRace
from backprop.scheduler.lifecycle import Event, State, next_state
from backprop.scheduler.models import Run
from backprop.scheduler.records import RunRecord


def move_now(database: Database, run: RunRecord, event: Event, **values: Any) -> State:
    """One move as a transaction of its own. Raises IllegalMove, LostRace."""
    return database.write(lambda: move(run.id, run.state, event, (Run.segment == run.segment), **values))


def move(run_id: str, state: State, event: Event, condition: Any, **values: Any) -> State:
    """Inside a transaction. Raises IllegalMove, LostRace."""
    new = next_state(state, event)
    if new is None:
        raise IllegalMove(f"run {run_id} is {state}: it cannot be {event}")
    values["state"] = new.value
    if not Run.update(values).where((Run.id == run_id) & (Run.state == state) & condition).execute():
        raise LostRace(f"run {run_id} has just moved on; look again: backprop show {run_id}")
    return new
