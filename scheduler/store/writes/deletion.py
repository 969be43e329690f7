"""Which runs are old enough to go, and how does one leave the database?"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import Dependency, Group, Run

WAITING: Final = (State.QUEUED, State.HELD)
REMOVABLE: Final = FINAL | frozenset(WAITING)
IDS_A_QUERY: Final = 500


@dataclass(frozen=True)
class Leaving:
    """A run that is about to be removed."""

    id: str
    batch: str | None


@dataclass
class Removed:
    """`ids`: what is gone. `needed`: what stays because a waiting run depends on it, and which. `moved`: what stays
    because it lives, or is gone already."""

    ids: list[str] = field(default_factory=list[str])
    needed: dict[str, str] = field(default_factory=dict[str, str])
    moved: list[str] = field(default_factory=list[str])

    def add(self, other: "Removed") -> None:
        self.ids += other.ids
        self.needed |= other.needed
        self.moved += other.moved


def outlived(
    database: Database, among: Collection[str], ended_before_s: float | None, keep_last: int
) -> list[str]:
    """Of the ended runs `among` these, all but the `keep_last` that ended last, and of those the ones that ended before
    `ended_before_s` (Unix seconds). Newest end first."""

    def query() -> list[tuple[str, float]]:
        ended = Run.select(Run.id, Run.ended_at_s).where(Run.state.in_([state.value for state in FINAL]))
        rows: Any = ended.order_by(Run.ended_at_s.desc(), Run.id).tuples()
        return [(run_id, at_s or 0.0) for run_id, at_s in rows if run_id in among]

    rows = database.read(query)[keep_last:]
    return [run_id for run_id, at_s in rows if ended_before_s is None or at_s < ended_before_s]


def remove(
    database: Database,
    run_ids: Sequence[str],
    take: Callable[[Sequence[Leaving]], None] = lambda _: None,
    among: Collection[State] = REMOVABLE,
) -> Removed:
    """Forget these runs, at most `IDS_A_QUERY`, unless they live or a waiting run outside depends on them. `among`: the
    states that are meant; one that has been resumed since it was chosen is not to go with the ended ones.

    `take`: called with those that go, before their rows do and in the same transaction, so that nothing can move them
    meanwhile; perhaps twice, if the transaction has to be made again. What it raises is raised, and nothing is
    forgotten.
    """

    def verb() -> Removed:
        states = [state.value for state in among]
        mine: Any = Run.select(Run.id, Run.batch, Run.group_name).where(
            Run.id.in_(list(run_ids)), Run.state.in_(states)
        )
        rows: list[tuple[str, str | None, str | None]] = list(mine.tuples())
        needed = _needed([run_id for run_id, _, _ in rows])
        going = [row for row in rows if row[0] not in needed]
        take([Leaving(run_id, batch) for run_id, batch, _ in going])
        ids = [run_id for run_id, _, _ in going]
        Run.delete().where(Run.id.in_(ids)).execute()
        _forget_empty_groups({group for _, _, group in going if group is not None})
        there = {run_id for run_id, _, _ in rows}
        return Removed(ids, needed, [run_id for run_id in run_ids if run_id not in there])

    return database.write(verb)


def unknown(database: Database, run_ids: Sequence[str]) -> set[str]:
    """Those of these ids that no run has."""

    def query() -> set[str]:
        from peewee import chunked

        known: set[str] = set()
        for ids in chunked(run_ids, IDS_A_QUERY):
            rows: Any = Run.select(Run.id).where(Run.id.in_(list(ids))).tuples()
            known |= {run_id for (run_id,) in rows}
        return set(run_ids) - known

    return database.read(query)


def batches_without_runs(database: Database, batches: Collection[str]) -> set[str]:
    """Those of these batches of which no member is left."""

    def query() -> set[str]:
        return {
            batch for batch in batches if not Run.select(Run.id).where(Run.batch == batch).limit(1).exists()
        }

    return database.read(query)


def _needed(run_ids: list[str]) -> dict[str, str]:
    """Which of them some waiting run outside depends on, and that run."""
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
