"""Lists and counts the runs that pass a person's filters. Nothing is counted beyond the number asked for."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Any, Final

from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.reads.filters import (
    NO_FILTERS,
    Filters,
    Sort,
    by_parameter,
    conditions,
    narrowed,
    order,
    turns,
    with_states,
)
from backprop.scheduler.store.rows import run_of
from backprop.scheduler.store.schema import Run

MERGED_AT_MOST: Final = 1000
COUNTED: Final = 10_000
"""Runs counted at most where no index counts them: a million would take longer than all the rest."""


def looked_up(database: Database, filters: Filters) -> Filters:
    """Return the filters with what their name means now, for all queries of one look."""
    return database.read(lambda: narrowed(filters))


def list_runs(
    database: Database,
    filters: Filters = NO_FILTERS,
    sort: Sort = Sort.AGE,
    reverse: bool = False,
    limit: int | None = None,
    parameter: str | None = None,
) -> list[RunRecord]:
    """Return the first `limit` of the runs that pass `filters`, all of them when None. `parameter`: of a sweep, to sort
    by instead."""

    def query() -> list[RunRecord]:
        if parameter is not None:
            found = Run.select().where(*conditions(filters))
            return [run_of(row) for row in found.order_by(*by_parameter(parameter, reverse)).limit(limit)]
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


def recently_ended(
    database: Database, filters: Filters, states: Sequence[State], since_s: float, limit: int | None
) -> list[RunRecord]:
    """Return the first `limit` runs in one of `states` that pass and ended, or were queued if held, since then."""

    def query() -> list[RunRecord]:
        from peewee import SQL, NodeList

        # The sign + keeps SQLite on the index of ends: it would read and sort all that ever ended in these states.
        state: Any = NodeList((SQL("+"), Run.state), glue="")
        final = state.in_([one.value for one in states if one in FINAL])
        ended = Run.select().where(*conditions(with_states(filters, ())), final, Run.ended_at_s >= since_s)
        found = [run_of(row) for row in ended.order_by(Run.ended_at_s.desc()).limit(limit)]
        for one in states:
            if one not in FINAL:
                waits = Run.select().where(*conditions(filters, one), Run.queued_at_s >= since_s)
                found += [run_of(row) for row in waits.order_by(Run.queued_at_s.desc()).limit(limit)]
        return sorted(found, key=lambda run: run.ended_at_s or run.queued_at_s, reverse=True)[:limit]

    return database.read(query)


def counts_by_state(database: Database, filters: Filters) -> dict[State, int]:
    """Return how many runs that pass are in each state; states without one are missing. Of those with a common name
    no more than `COUNTED` + 1 of a state are counted."""
    if not filters.given:
        return queries.state_counts(database)
    if is_common(filters):
        states = filters.states or tuple(State)
        some = {one: count(database, with_states(filters, (one,)), COUNTED + 1) for one in states}
        return {state: found for state, found in some.items() if found}

    def query() -> dict[State, int]:
        from peewee import SQL, fn

        rows: Any = (
            Run.select(Run.state, fn.COUNT(SQL("*"))).where(*conditions(filters)).group_by(Run.state).tuples()
        )
        return {State(state): count for state, count in rows}

    return database.read(query)


def is_common(filters: Filters) -> bool:
    """Return whether many have the name that was looked up."""
    return filters.named is not None and filters.named.rows is None


def count(database: Database, filters: Filters, at_most: int) -> int:
    """Return how many runs pass, at most `at_most`, so that nobody waits for a million to be counted."""

    def query() -> int:
        some = Run.select(Run.id).where(*conditions(filters)).limit(at_most)
        return some.count()

    return database.read(query)


def ahead_of(database: Database, run: RunRecord) -> int:
    """Return how many queued runs of the same place come before this one."""

    def query() -> int:
        same = Run.priority == run.priority
        earlier = (Run.turn_s < run.turn_s) | ((Run.turn_s == run.turn_s) & (Run.id < run.id))
        before = (Run.priority > run.priority) | (same & earlier)
        here = Run.cluster.is_null() if run.cluster is None else Run.cluster == run.cluster
        return Run.select(Run.id).where(Run.state == State.QUEUED.value, here, before).count()

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
