"""Selects the runs that the words of a command mean: ids, prefixes of ids, names and groups, within filters."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from backprop.scheduler.errors import AmbiguousRun
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.reads.filters import Filters, conditions
from backprop.scheduler.store.schema import Run

IDS_PER_QUERY: Final = 500


class Chosen(msgspec.Struct, frozen=True):
    """What a verb over thousands needs of a run. `named`: by itself, not only by its group or a filter."""

    id: str
    name: str
    state: State
    segment: int
    batch: str | None
    named: bool


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
    passing = conditions(filters)
    found: dict[str, tuple[float, int, Chosen]] = {}
    for part in parts if words else [None]:
        for row in _rows(database, [*passing, part] if part is not None else passing):
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
