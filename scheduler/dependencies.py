"""Which runs wait for others, and which of them wait in vain?

A parent counts once it has ended: while it is requeued, retried or resumed, its dependents wait on.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any, Final

from backprop.scheduler.database import Database
from backprop.scheduler.lifecycle import FINAL, Event, State
from backprop.scheduler.models import Dependency, Run
from backprop.scheduler.moves import move
from backprop.scheduler.spec import DependencyKind, decode

WORDS: Final = {"success": "to complete", "any": "to end", "fail": "to fail"}
_OTHERWISE: Final = [state.value for state in FINAL if state is not State.COMPLETED]
_ENDED: Final = [state.value for state in FINAL]


def unmet() -> Any:
    """Inside a query on Run: selects from the run's dependencies that are not met yet."""
    from peewee import JOIN

    parent = Run.alias()
    completed = (Dependency.kind == "success") & (parent.state == State.COMPLETED.value)
    failed = (Dependency.kind == "fail") & parent.state.in_(_OTHERWISE)
    ended = (Dependency.kind == "any") & (parent.state.in_(_ENDED) | parent.id.is_null())
    joined = Dependency.select(Dependency.run_id).join(
        parent, JOIN.LEFT_OUTER, on=(Dependency.parent_id == parent.id)
    )
    return joined.where(Dependency.run_id == Run.id, ~(completed | failed | ended) | _unknown(parent))


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


def end_impossible(database: Database, now_s: float) -> list[tuple[str, str]]:
    """Stop waiting runs of which a dependency can never be met any more, and those that wait for them in turn; those
    that were queued to stay are only told. (id, reason) of the stopped."""

    def verb() -> list[tuple[str, str]]:
        ended: list[tuple[str, str]] = []
        while found := _hopeless():
            news = 0
            for run, parent, kind, state in found:
                why = f"waited for {parent} {WORDS[kind]}, which has {state or 'been removed'}"
                if decode(run.spec).keep_when_unmet:
                    told = f"{why}; kept: backprop resume {parent}"
                    Run.update(reason=told).where(Run.id == run.id, Run.reason != told).execute()
                    continue
                move(run.id, State(run.state), Event.STOPPED, True, reason=why, ended_at_s=now_s)
                ended.append((run.id, why))
                news += 1
            if not news:
                break
        return ended

    if not database.read(lambda: Dependency.select().limit(1).exists()):
        return []
    if not database.read(_hopeless):
        return []
    return database.write(verb)


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


def _hopeless() -> list[tuple[Any, str, DependencyKind, str | None]]:
    """(waiting run, parent's id, kind, parent's state), one for each waiting run that waits in vain."""
    from peewee import JOIN

    parent = Run.alias()
    query = (
        Dependency.select(Dependency.run_id, Dependency.parent_id, Dependency.kind, parent.state)
        .join(parent, JOIN.LEFT_OUTER, on=(Dependency.parent_id == parent.id))
        .where(
            ((Dependency.kind == "success") & parent.state.in_(_OTHERWISE))
            | ((Dependency.kind == "fail") & (parent.state == State.COMPLETED.value))
            | _unknown(parent)
        )
        .tuples()
    )
    vain: dict[str, tuple[str, DependencyKind, str | None]] = {}
    for child, parent_id, kind, state in list(query):
        vain.setdefault(child, (parent_id, kind, state))
    waiting = Run.select().where(
        Run.id.in_(list(vain)), Run.state.in_([State.QUEUED.value, State.HELD.value])
    )
    return [(row, *vain[row.id]) for row in list(waiting)]
