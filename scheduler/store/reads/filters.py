"""Says in SQL which runs pass a person's filters, and in which order they are listed.

The SQL stays quick with a million finished runs: the newest are read along an index, and what a name means is looked up
once, see `narrowed`.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from enum import StrEnum
from typing import Any, Final

import msgspec

from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.schema import Run

FEW: Final = 5000


class Sort(StrEnum):
    """What `list` sorts by. Each order begins with what one looks for: the newest, the lowest loss, the last to end.

    TURN: queue order, of queued runs alone.
    """

    AGE = "age"
    NAME = "name"
    STATE = "state"
    STEP = "step"
    LOSS = "loss"
    SEGMENTS = "segments"
    ENDED = "ended"
    TURN = "turn"


class NamedRows(msgspec.Struct, frozen=True):
    """What a name means. `rows`: the row numbers of those that have it; None where they are many."""

    rows: tuple[int, ...] | None


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions on runs; all that are given have to hold.

    `states`: any of them; empty for all. `name`: a pattern as in a shell (*, ?, [abc], [!abc]), case-sensitive.
    `since_s`: queued for the first time then or later, Unix seconds. `named`: what the name means, once looked up.
    """

    states: tuple[State, ...] = ()
    name: str | None = None
    group: str | None = None
    since_s: float | None = None
    named: NamedRows | None = None

    @property
    def given(self) -> bool:
        """Whether there is any condition."""
        return bool(self.states) or (self.name, self.group, self.since_s) != (None, None, None)


NO_FILTERS: Final = Filters()


def with_states(filters: Filters, states: tuple[State, ...]) -> Filters:
    """Return the same filters for these states."""
    return msgspec.structs.replace(filters, states=states)


def narrowed(filters: Filters) -> Filters:
    """Look up, inside a read, what the name means; return the filters with that.

    This goes through the index on names alone, which holds a million in some 30 MB, and only until many are found.
    """
    from peewee import SQL

    if filters.name is None or filters.named is not None:
        return filters
    some: Any = Run.select(SQL("rowid")).where(_pattern(filters.name, Run.name)).limit(FEW + 1).tuples()
    rows = tuple(row for (row,) in some)
    return msgspec.structs.replace(filters, named=NamedRows(rows if len(rows) <= FEW else None))


def conditions(filters: Filters, state: State | None = None) -> list[Any]:
    """Return the filters as SQL conditions. `state`: that one instead of those of the filters."""
    states = (state,) if state is not None else filters.states
    found: list[Any] = []
    if len(states) == 1:
        found.append(Run.state == states[0].value)
    elif states:
        found.append(Run.state.in_([one.value for one in states]))
    if filters.group is not None:
        found.append(Run.group_name == filters.group)
    if filters.since_s is not None:
        found.append(Run.created_at_s >= filters.since_s)
    if filters.name is not None:
        found.append(_named(narrowed(filters)))
    return found or [True]


def turns(reverse: bool) -> list[Any]:
    """Return the order of the queue as SQL."""
    if reverse:
        return [Run.priority.asc(), Run.turn_s.desc(), Run.id.desc()]
    return [Run.priority.desc(), Run.turn_s.asc(), Run.id.asc()]


def by_parameter(key: str, reverse: bool) -> list[Any]:
    """Return the order by a parameter of a sweep as SQL: by number where it is one. Runs without it come last."""
    from peewee import SQL

    value = "json_extract(spec, ?)"
    path = f'$.params."{key}"'
    way = "DESC" if reverse else "ASC"
    return [
        SQL(f"{value} IS NULL", (path,)),
        SQL(f"CAST({value} AS REAL) {way}", (path,)),
        SQL(f"{value} {way}", (path,)),
        SQL("rowid"),
    ]


def order(sort: Sort, reverse: bool) -> list[Any]:
    """Return the order as SQL. Runs without a value come last, either way. Among equals the newest comes first."""
    from peewee import SQL

    newest_first: list[Any] = [Run.created_at_s.desc(), SQL("rowid DESC")]
    if sort is Sort.AGE:
        return [Run.created_at_s, SQL("rowid")] if reverse else newest_first
    keys: dict[Sort, tuple[Any, bool]] = {
        Sort.NAME: (Run.name, False),
        Sort.STEP: (Run.last_step, True),
        Sort.LOSS: (Run.last_loss, False),
        Sort.SEGMENTS: (Run.segment, True),
        Sort.ENDED: (Run.ended_at_s, True),
    }
    key, downwards = keys[sort]
    downwards = downwards != reverse
    ordered: list[Any] = [key.desc() if downwards else key.asc(), *newest_first]
    if not downwards and sort in (Sort.STEP, Sort.LOSS, Sort.ENDED):
        # NULL is the least of all to SQLite.
        ordered.insert(0, key.is_null())
    return ordered


def _named(filters: Filters) -> Any:
    """Return the condition for a name. The index on names is used only where few match: it costs a read of each row,
    which is more than going through the newest until enough are found."""
    from peewee import SQL, NodeList

    if filters.named is not None and filters.named.rows is not None:
        return SQL("rowid IN (SELECT value FROM json_each(?))", (str(list(filters.named.rows)),))
    without_index: Any = NodeList((SQL("+"), Run.name), glue="")
    return _pattern(filters.name or "", without_index)


def _pattern(name: str, column: Any) -> Any:
    """Return the condition that `column` matches. SQLite's GLOB is the shell's, but for the sign that negates a set."""
    if not any(sign in name for sign in "*?["):
        return column == name
    return column % name.replace("[!", "[^")
