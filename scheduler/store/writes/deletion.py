"""Picks ended runs that are old enough to go, and removes runs from the database."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from backprop.scheduler.home.request_log import Verb
from backprop.scheduler.home.wake_pipes import note_settled
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import RunRef
from backprop.scheduler.store import requests
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.requests import Note
from backprop.scheduler.store.schema import Dependency, Group, Run

WAITING: Final = (State.QUEUED, State.HELD)
REMOVABLE: Final = FINAL | frozenset(WAITING)
IDS_PER_QUERY: Final = 500


class Removed(msgspec.Struct):
    """What became of runs that were to be removed, by id.

    `ids`: gone. `needed`: each that stays because a waiting run depends on it, and that run. `moved`: stays because it
    is live, or was gone already.
    """

    ids: list[str] = []
    needed: dict[str, str] = {}
    moved: list[str] = []

    def add(self, other: "Removed") -> None:
        self.ids += other.ids
        self.needed |= other.needed
        self.moved += other.moved


def outlived(
    database: Database, among: Collection[str], ended_before_s: float | None, keep_last: int
) -> list[str]:
    """Return the ended runs `among` these that may go, newest end first.

    The `keep_last` that ended last stay. `ended_before_s` (Unix seconds): only those that ended before it.
    """

    def query() -> list[tuple[str, float]]:
        ended = Run.select(Run.id, Run.ended_at_s).where(Run.state.in_([state.value for state in FINAL]))
        rows: Any = ended.order_by(Run.ended_at_s.desc(), Run.id).tuples()
        return [(run_id, at_s or 0.0) for run_id, at_s in rows if run_id in among]

    rows = database.read(query)[keep_last:]
    return [run_id for run_id, at_s in rows if ended_before_s is None or at_s < ended_before_s]


def remove(
    database: Database,
    run_ids: Sequence[str],
    take: Callable[[Sequence[RunRef]], None] = lambda _: None,
    among: Collection[State] = REMOVABLE,
) -> Removed:
    """Forget these runs, at most `IDS_PER_QUERY`, unless they are live or a waiting run outside depends on them.

    `among`: the states that are meant; a run that was resumed since it was chosen does not go with the ended ones.
    `take`: called with those that go, before their rows do and in the same transaction, so that nothing can move them
    meanwhile. It may be called twice, if the transaction has to be made again. What it raises is raised, and nothing
    is forgotten.
    """

    def verb(note: Note) -> Removed:
        states = [state.value for state in among]
        columns = (Run.id, Run.batch, Run.segment, Run.group_name)
        query: Any = Run.select(*columns).where(Run.id.in_(list(run_ids)), Run.state.in_(states))
        runs: list[Any] = list(query.namedtuples())
        needed = _needed([run.id for run in runs])
        leaving = [run for run in runs if run.id not in needed]
        take(leaving)
        ids = [run.id for run in leaving]
        note(Verb.REMOVE, ids)
        remove_now(ids, {run.group_name for run in leaving if run.group_name is not None})
        known = {run.id for run in runs}
        return Removed(ids, needed, [run_id for run_id in run_ids if run_id not in known])

    return requests.write(database, verb)


def remove_now(run_ids: Sequence[str], group_names: Collection[str]) -> None:
    """Inside a transaction: delete the rows of runs, and the groups among these that are empty then."""
    Run.delete().where(Run.id.in_(list(run_ids))).execute()
    note_settled()
    _forget_empty_groups(group_names)


def unknown(database: Database, run_ids: Sequence[str]) -> set[str]:
    """Return those of these ids that no run has."""

    def query() -> set[str]:
        from peewee import chunked

        known: set[str] = set()
        for ids in chunked(run_ids, IDS_PER_QUERY):
            rows: Any = Run.select(Run.id).where(Run.id.in_(list(ids))).tuples()
            known |= {run_id for (run_id,) in rows}
        return set(run_ids) - known

    return database.read(query)


def batches_without_runs(database: Database, batches: Collection[str]) -> set[str]:
    """Return those of these batches of which no member is left."""

    def query() -> set[str]:
        return {
            batch for batch in batches if not Run.select(Run.id).where(Run.batch == batch).limit(1).exists()
        }

    return database.read(query)


def _needed(run_ids: list[str]) -> dict[str, str]:
    """Return those that some waiting run outside depends on, each with that run."""
    waiting = [state.value for state in WAITING]
    links: Any = (
        Dependency.select(Dependency.parent_id, Dependency.run_id)
        .join(Run, on=(Dependency.run_id == Run.id))
        .where(
            Dependency.parent_id.in_(run_ids),
            Run.state.in_(waiting),
            Run.segment == 0,
            Run.id.not_in(run_ids),
        )
        .tuples()
    )
    return dict(list(links))


def _forget_empty_groups(names: Collection[str]) -> None:
    inhabited: Any = Run.select(Run.group_name).where(Run.group_name.in_(list(names))).distinct().tuples()
    empty = set(names) - {name for (name,) in inhabited}
    Group.delete().where(Group.name.in_(list(empty))).execute()
