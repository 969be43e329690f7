"""Selects the runs that a person means, by ids, names, prefixes of ids, groups and filters, and lists them.

The SQL stays quick with a million finished runs: the newest are read along an index, and nothing is counted beyond the
number asked for.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from backprop.scheduler.errors import AmbiguousRun
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.rows import run_of
from backprop.scheduler.store.schema import Run

IDS_PER_QUERY: Final = 500
MERGED_AT_MOST: Final = 1000
AFTER_ALL_TEXT: Final = "\U0010ffff"
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


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Conditions on runs; all that are given have to hold.

    `states`: any of them; empty for all. `name`: a pattern as in a shell (*, ?, [abc], [!abc]), case-sensitive.
    `since_s`: queued for the first time then or later, Unix seconds.
    """

    states: tuple[State, ...] = ()
    name: str | None = None
    group: str | None = None
    since_s: float | None = None

    @property
    def given(self) -> bool:
        """Whether there is any condition."""
        return bool(self.states) or (self.name, self.group, self.since_s) != (None, None, None)


NO_FILTERS: Final = Filters()


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a verb over thousands needs of a run. `named`: by itself, not only by its group or a filter."""

    id: str
    name: str
    state: State
    segment: int
    batch: str | None
    named: bool


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
            if filters.states and State.QUEUED not in filters.states:
                return []
            queued = Run.select().where(*_conditions(filters, State.QUEUED)).order_by(*_turns(reverse))
            return [run_of(row) for row in queued.limit(limit)]
        order = _order(sort, reverse)
        wanted = Run.select().where(*_conditions(filters))
        if limit is not None and len(filters.states) > 1 and limit * len(filters.states) <= MERGED_AT_MOST:
            # SQLite walks an index in order for one state; for several it would read all of each and sort.
            ids: list[str] = []
            for state in filters.states:
                one = Run.select(Run.id).where(*_conditions(filters, state)).order_by(*order).limit(limit)
                rows: Any = one.tuples()
                ids += [run_id for (run_id,) in rows]
            wanted = Run.select().where(Run.id.in_(ids))
        return [run_of(row) for row in wanted.order_by(*order).limit(limit)]

    return database.read(query)


def _by_state(filters: Filters, reverse: bool, limit: int | None) -> list[RunRecord]:
    """State by state, in the order of the state table."""
    states = [state for state in State if not filters.states or state in filters.states]
    found: list[RunRecord] = []
    for state in reversed(states) if reverse else states:
        room = None if limit is None else limit - len(found)
        wanted = Run.select().where(*_conditions(filters, state)).order_by(*_order(Sort.AGE, False))
        found += [run_of(row) for row in wanted.limit(room)]
    return found


def count(database: Database, filters: Filters, at_most: int) -> int:
    """Return how many runs pass, at most `at_most`, so that nobody waits for a million to be counted."""

    def query() -> int:
        some = Run.select(Run.id).where(*_conditions(filters)).limit(at_most)
        return some.count()

    return database.read(query)


def choose(database: Database, words: Sequence[str], filters: Filters) -> list[Chosen]:
    """Return the runs that `words` name and `filters` let pass, first queued first. Without words: all that pass.

    A word is an id, a group, a name, or a prefix of an id. Raises UnknownRun; AmbiguousRun for a name that several runs
    share, or that a group has too.
    """
    named: list[str] = []
    grouped: list[str] = []
    for word in words:
        run = queries.run_by_id(database, word)
        if run is None and _is_group(database, word):
            grouped.append(word)
        else:
            named.append((run or queries.find_run(database, word)).id)
    parts: list[Any] = [
        Run.id.in_(named[at : at + IDS_PER_QUERY]) for at in range(0, len(named), IDS_PER_QUERY)
    ]
    if grouped:
        parts.append(Run.group_name.in_(grouped))
    conditions = _conditions(filters)
    found: dict[str, tuple[float, int, Chosen]] = {}
    for part in parts if words else [None]:
        for row in _rows(database, [*conditions, part] if part is not None else conditions):
            found[row[2].id] = row
    mine = set(named)
    return [
        one if one.id not in mine else Chosen(one.id, one.name, one.state, one.segment, one.batch, True)
        for _, _, one in sorted(found.values(), key=lambda row: row[:2])
    ]


def in_queue_order(database: Database, run_ids: Sequence[str]) -> list[str]:
    """Return the same ids in the order of the queue."""

    def query() -> list[str]:
        places: list[tuple[int, float, str]] = []
        for at in range(0, len(run_ids), IDS_PER_QUERY):
            here = Run.id.in_(list(run_ids[at : at + IDS_PER_QUERY]))
            some: Any = Run.select(Run.priority, Run.turn_s, Run.id).where(here).tuples()
            places += [(-priority, turn_s, run_id) for priority, turn_s, run_id in some]
        return [run_id for _, _, run_id in sorted(places)]

    return database.read(query)


def newest(database: Database, limit: int) -> list[tuple[str, str, State, str | None]]:
    """Return (id, name, state, group) of the newest runs, for a shell to complete."""

    def query() -> list[tuple[str, str, State, str | None]]:
        rows = Run.select(Run.id, Run.name, Run.state, Run.group_name)
        some: Any = rows.order_by(*_order(Sort.AGE, False)).limit(limit).tuples()
        return [(run_id, name, State(state), group) for run_id, name, state, group in some]

    return database.read(query)


def _is_group(database: Database, word: str) -> bool:
    """Return whether a group has that name. Raises AmbiguousRun when a run outside it has the same name."""

    def query() -> tuple[bool, str | None]:
        if not Run.select(Run.id).where(Run.group_name == word).limit(1).exists():
            return False, None
        outside = Run.group_name.is_null() | (Run.group_name != word)
        other: Any = list(Run.select(Run.id).where((Run.name == word) & outside).limit(1).tuples())
        return True, other[0][0] if other else None

    is_group, other = database.read(query)
    if other is not None:
        raise AmbiguousRun(
            f"{word} is a group, and the name of run {other} too; say --group {word}, or the run by its id"
        )
    return is_group


def _rows(database: Database, conditions: Sequence[Any]) -> list[tuple[float, int, Chosen]]:
    """Return (time of queueing, row number, run): all members of a batch were queued at one instant."""

    def query() -> list[tuple[float, int, Chosen]]:
        from peewee import SQL

        columns = (Run.created_at_s, SQL("rowid"), Run.id, Run.name, Run.state, Run.segment, Run.batch)
        some: Any = Run.select(*columns).where(*conditions).tuples()
        return [
            (at_s, row, Chosen(run_id, name, State(state), segment, batch, False))
            for at_s, row, run_id, name, state, segment, batch in some
        ]

    return database.read(query)


def _conditions(filters: Filters, state: State | None = None) -> list[Any]:
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
        found += _named(filters.name)
    return found or [True]


def _named(pattern: str) -> list[Any]:
    """Return the conditions for a name pattern. SQLite's GLOB is the shell's, but for the sign that negates a set.

    The index on names is used only where few can match: it costs a read of each row, which is more than going through
    the newest until enough are found.
    """
    from peewee import SQL, NodeList

    if not any(sign in pattern for sign in "*?["):
        return [Run.name == pattern]
    glob = pattern.replace("[!", "[^")
    prefix = pattern[: min(pattern.find(sign) for sign in "*?[" if sign in pattern)]
    within = (Run.name >= prefix) & (Run.name < prefix + AFTER_ALL_TEXT)
    if prefix and Run.select(Run.name).where(within).limit(FEW).count() < FEW:
        return [Run.name % glob, within]
    without_index: Any = NodeList((SQL("+"), Run.name), glue="")
    return [without_index % glob]


def _turns(reverse: bool) -> list[Any]:
    if reverse:
        return [Run.priority.asc(), Run.turn_s.desc(), Run.id.desc()]
    return [Run.priority.desc(), Run.turn_s.asc(), Run.id.asc()]


def _order(sort: Sort, reverse: bool) -> list[Any]:
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
