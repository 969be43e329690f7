"""How do runs that ended elsewhere come into this queue?"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Any

from backprop.scheduler.database import Database
from backprop.scheduler.lifecycle import State
from backprop.scheduler.models import Run
from backprop.scheduler.newruns import new_run
from backprop.scheduler.records import CheckpointRecord
from backprop.scheduler.reported import insert_checkpoint
from backprop.scheduler.spec import RunSpec


def adopt_foreign(
    database: Database, rows: Sequence[tuple[dict[str, Any], Sequence[CheckpointRecord]]]
) -> list[str]:
    """Insert finished runs from elsewhere, with their checkpoints, in one transaction; ids already here are left
    alone. `rows`: values over `finished_run`'s. Returns the ids inserted."""

    def verb() -> list[str]:
        added: list[str] = []
        for values, saved in rows:
            if Run.select().where(Run.id == values["id"]).exists():
                continue
            Run.insert(values).execute()
            for checkpoint in saved:
                insert_checkpoint(checkpoint)
            added.append(values["id"])
        return added

    return database.write(verb)


def finished_run(
    run_id: str, name: str, spec: RunSpec, state: State, created_at_s: float, ended_at_s: float
) -> dict[str, Any]:
    """Column values of a run that ended before it came here."""
    base = new_run(run_id, name, spec, created_at_s)
    return base | {"state": state.value, "started_at_s": created_at_s, "ended_at_s": ended_at_s}
