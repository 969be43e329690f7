"""Lists and counts the runs that pass a person's filters. Nothing is counted beyond the number asked for."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any, Final

from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads.filters import NO_FILTERS, Filters, Sort, conditions, order, turns
from backprop.scheduler.store.rows import run_of
from backprop.scheduler.store.schema import Run

MERGED_AT_MOST: Final = 1000


def list_runs(
    database: Database,
    filters: Filters = NO_FILTERS,
    sort: Sort = Sort.AGE,
    reverse: bool = False,
    limit: int | None = None,
) -> list[RunRecord]:
    """Return the first `limit` of the runs that pass `filters`, all of them when None."""

    def query() -> list[RunRecord]:
        if sort is Sort.STATE:
            return _by_state(filters, reverse, limit)
        if sort is Sort.TURN:
            return _by_turn(filters, reverse, limit)
        by = order(sort, reverse)
        wanted = Run.select().where(*conditions(filters))
        if limit is not None and len(filters.states) > 1 and limit * len(filters.states) <= MERGED_AT_MOST:
            # SQLite walks an index in order for one state; for several it would read all of each and sort.
            ids: list[str] = []
            for state in filters.states:
                one = Run.select(Run.id).where(*conditions(filters, state)).order_by(*by).limit(limit)
                rows: Any = one.tuples()
                ids += [run_id for (run_id,) in rows]
            wanted = Run.select().where(Run.id.in_(ids))
        return [run_of(row) for row in wanted.order_by(*by).limit(limit)]

    return database.read(query)


def count(database: Database, filters: Filters, at_most: int) -> int:
    """Return how many runs pass, at most `at_most`, so that nobody waits for a million to be counted."""

    def query() -> int:
        some = Run.select(Run.id).where(*conditions(filters)).limit(at_most)
        return some.count()

    return database.read(query)


def newest(database: Database, limit: int) -> list[tuple[str, str, State, str | None]]:
    """Return (id, name, state, group) of the newest runs, for a shell to complete."""

    def query() -> list[tuple[str, str, State, str | None]]:
        rows = Run.select(Run.id, Run.name, Run.state, Run.group_name)
        some: Any = rows.order_by(*order(Sort.AGE, False)).limit(limit).tuples()
        return [(run_id, name, State(state), group) for run_id, name, state, group in some]

    return database.read(query)


def _by_turn(filters: Filters, reverse: bool, limit: int | None) -> list[RunRecord]:
    """Of those that wait for their turn. State by state: SQLite walks an index in order for one."""
    found: list[RunRecord] = []
    for state in (State.QUEUED, State.SUSPENDED):
        if not filters.states or state in filters.states:
            waiting = Run.select().where(*conditions(filters, state)).order_by(*turns(reverse))
            found += [run_of(row) for row in waiting.limit(limit)]
    found.sort(key=lambda run: (-run.priority, run.turn_s, run.id), reverse=reverse)
    return found[:limit]


def _by_state(filters: Filters, reverse: bool, limit: int | None) -> list[RunRecord]:
    """State by state, in the order of the state table."""
    states = [state for state in State if not filters.states or state in filters.states]
    found: list[RunRecord] = []
    for state in reversed(states) if reverse else states:
        room = None if limit is None else limit - len(found)
        wanted = Run.select().where(*conditions(filters, state)).order_by(*order(Sort.AGE, False))
        found += [run_of(row) for row in wanted.limit(room)]
    return found
