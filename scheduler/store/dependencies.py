"""Which runs wait for others, and which of them wait in vain?

A parent counts once it has ended: while it is requeued, retried or resumed, its dependents wait on.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from backprop.scheduler.lifecycle import FINAL, Event, State, next_state
from backprop.scheduler.spec import DependencyKind, decode
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.groups import NOTHING, Finished, finished
from backprop.scheduler.store.rows import listed
from backprop.scheduler.store.schema import Dependency, Run

WAITING: Final = (State.QUEUED, State.HELD)
IDS_A_STATEMENT: Final = 500
WORDS: Final = {"success": "to complete", "any": "to end", "fail": "to fail"}
_OTHERWISE: Final = [state.value for state in FINAL if state is not State.COMPLETED]
UNMET: Final = f"""
    SELECT 1 FROM dependencies AS link LEFT JOIN runs AS parent ON parent.id = link.parent_id
    WHERE link.run_id = runs.id AND runs.segment = 0 AND NOT COALESCE(CASE link.kind
        WHEN 'success' THEN parent.state = '{State.COMPLETED.value}'
        WHEN 'fail' THEN parent.state IN {listed(FINAL - {State.COMPLETED})}
        ELSE parent.id IS NULL OR parent.state IN {listed(FINAL)}
    END, FALSE)"""
"""Inside a query on `runs`: the run's dependencies that are not met yet. A parent that was removed counts as ended,
and as nothing better. What was met when the run began stays so, whatever becomes of the parent: a chain is not given
up half-way."""
_ENDED: Final = [state.value for state in FINAL]


def waits_for(database: Database, run_id: str) -> list[tuple[str, DependencyKind, State | None]]:
    """(parent's id, kind, its state) of what a run depends on; the state is None for a run that was removed."""

    def query() -> list[tuple[str, DependencyKind, State | None]]:
        from peewee import JOIN

        rows: Any = (
            Dependency.select(Dependency.parent_id, Dependency.kind, Run.state)
            .join(Run, JOIN.LEFT_OUTER, on=(Dependency.parent_id == Run.id))
            .where(Dependency.run_id == run_id)
            .tuples()
        )
        return [(parent, kind, State(state) if state else None) for parent, kind, state in rows]

    return database.read(query)


def is_met(kind: DependencyKind, state: State | None) -> bool | None:
    """Whether a dependency is met by its parent's state; None while that is open."""
    if kind == "any":
        return True if state is None or state in FINAL else None
    if state is None:
        return False
    if state not in FINAL:
        return None
    return (state is State.COMPLETED) == (kind == "success")


def end_unsatisfiable(database: Database, now_s: float) -> tuple[list[tuple[str, str]], Finished]:
    """Stop waiting runs of which a dependency can never be met any more, and those that wait for them in turn; those
    that were queued to stay are only told. (id, reason) of the stopped, and what these were the last of."""

    def verb() -> tuple[list[tuple[str, str]], Finished]:
        ended: list[tuple[str, str]] = []
        while found := _hopeless():
            alike: dict[tuple[str, bool], list[_UnsatisfiableRun]] = {}
            for one in found:
                why = f"waited for {one.parent} {WORDS[one.kind]}, which has {one.parent_state or 'been removed'}"
                alike.setdefault((why, decode(one.spec).keep_when_unmet), []).append(one)
            stopped: list[tuple[str, str]] = []
            for (why, kept), these in alike.items():
                if kept:
                    _tell([one.id for one in these], f"{why}; kept: backprop resume {these[0].parent}")
                else:
                    _stop([one.id for one in these], why, now_s)
                    stopped += [(one.id, why) for one in these]
            if not stopped:
                break
            ended += stopped
        return ended, finished(database, _groups_of([run_id for run_id, _ in ended])) if ended else NOTHING

    if not database.rows("SELECT 1 FROM dependencies LIMIT 1"):
        return [], NOTHING
    if not database.read(_hopeless):
        return [], NOTHING
    return database.write(verb)


def members(database: Database, group: str) -> list[tuple[str, State]]:
    """(id, state) of a group's members; none when there is no such group."""

    def query() -> list[tuple[str, State]]:
        rows: Any = Run.select(Run.id, Run.state).where(Run.group_name == group).tuples()
        return [(run_id, State(state)) for run_id, state in rows]

    return database.read(query)


def dependents(database: Database, run_id: str) -> list[str]:
    """The runs that have not ended and depend on this one."""

    def query() -> list[str]:
        rows: Any = (
            Dependency.select(Dependency.run_id)
            .join(Run, on=(Dependency.run_id == Run.id))
            .where(Dependency.parent_id == run_id, Run.state.not_in(_ENDED))
            .tuples()
        )
        return [child for (child,) in rows]

    return database.read(query)


def _unknown(parent: Any) -> Any:
    """A parent that was removed: SQL's NULL would make the comparison above neither true nor false."""
    return parent.id.is_null() & (Dependency.kind != "any")


def _stop(run_ids: Sequence[str], why: str, now_s: float) -> None:
    """Inside the transaction that has found them waiting. Many at a time: a group may wait for one run."""
    for state in WAITING:
        new = next_state(state, Event.STOPPED)
        for at in range(0, len(run_ids), IDS_A_STATEMENT):
            here = Run.id.in_(run_ids[at : at + IDS_A_STATEMENT]) & (Run.state == state.value)
            Run.update(state=new, reason=why, ended_at_s=now_s, waiting=None).where(here).execute()


def _groups_of(run_ids: Sequence[str]) -> set[str]:
    found = set[str]()
    for at in range(0, len(run_ids), IDS_A_STATEMENT):
        rows: Any = (
            Run.select(Run.group_name)
            .where(Run.id.in_(run_ids[at : at + IDS_A_STATEMENT]))
            .distinct()
            .tuples()
        )
        found |= {name for (name,) in rows if name is not None}
    return found


def _tell(run_ids: Sequence[str], told: str) -> None:
    for at in range(0, len(run_ids), IDS_A_STATEMENT):
        here = Run.id.in_(run_ids[at : at + IDS_A_STATEMENT]) & (Run.reason != told)
        Run.update(reason=told).where(here).execute()


@dataclass(frozen=True)
class _UnsatisfiableRun:
    """A waiting run, and one parent of it that rules it out. `parent_state` None: the parent was removed."""

    id: str
    state: State
    spec: str
    parent: str
    kind: DependencyKind
    parent_state: str | None


def _hopeless() -> list[_UnsatisfiableRun]:
    """One for each waiting run that waits in vain."""
    from peewee import JOIN

    child, parent = Run.alias(), Run.alias()
    columns = (child.id, child.state, child.spec, Dependency.parent_id, Dependency.kind, parent.state)
    query: Any = (
        Dependency.select(*columns)
        .join(child, on=(Dependency.run_id == child.id))
        .switch(Dependency)
        .join(parent, JOIN.LEFT_OUTER, on=(Dependency.parent_id == parent.id))
        .where(
            child.state.in_([state.value for state in WAITING]),
            child.segment == 0,
            ((Dependency.kind == "success") & parent.state.in_(_OTHERWISE))
            | ((Dependency.kind == "fail") & (parent.state == State.COMPLETED.value))
            | _unknown(parent),
        )
        .tuples()
    )
    vain: dict[str, _UnsatisfiableRun] = {}
    for run_id, state, spec, parent_id, kind, parent_state in list(query):
        vain.setdefault(run_id, _UnsatisfiableRun(run_id, State(state), spec, parent_id, kind, parent_state))
    return list(vain.values())
