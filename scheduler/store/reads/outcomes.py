"""Reads how far chosen runs are together: how many are in which state, and which of them decides the outcome.

By plain SQL, of which each look is one statement per 500 runs.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.connection import Database

IDS_PER_STATEMENT: Final = 500


class Ended(msgspec.Struct, frozen=True):
    """One run, and what became of it."""

    id: str
    name: str
    state: State
    reason: str


def counts(database: Database, run_ids: Sequence[str]) -> dict[State, int]:
    """Return how many of these runs are in each state; states without any are missing, and so are removed runs."""
    found: dict[State, int] = {}
    for ids in _in_parts(run_ids):
        query = f"SELECT state, COUNT(*) FROM runs WHERE id IN ({_marks(ids)}) GROUP BY state"
        for state, count in database.rows(query, *ids):
            found[State(state)] = found.get(State(state), 0) + count
    return found


def states(database: Database, run_ids: Sequence[str]) -> dict[str, State]:
    """Return the state of each of these runs that exists."""
    found: dict[str, State] = {}
    for ids in _in_parts(run_ids):
        rows = database.rows(f"SELECT id, state FROM runs WHERE id IN ({_marks(ids)})", *ids)
        found |= {run_id: State(state) for run_id, state in rows}
    return found


def first_of(database: Database, run_ids: Sequence[str], states: Sequence[State]) -> Ended | None:
    """Return which of these runs was the first to end in one of `states`; a held one if none has ended. None for
    none."""
    found: list[tuple[float, str, str, str, str]] = []
    for ids in _in_parts(run_ids):
        query = (
            "SELECT COALESCE(ended_at_s, 9e99) AS at_s, id, name, state, reason FROM runs"
            f" WHERE id IN ({_marks(ids)}) AND state IN ({_marks(states)}) ORDER BY at_s, id LIMIT 1"
        )
        found += database.rows(query, *ids, *(state.value for state in states))
    if not found:
        return None
    _, run_id, name, state, reason = min(found)
    return Ended(run_id, name, State(state), reason)


def _in_parts(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(run_ids), IDS_PER_STATEMENT):
        yield run_ids[at : at + IDS_PER_STATEMENT]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
