"""Tells which runs wait for others, and stops those whose dependencies can never be met.

A parent counts once it has ended: while it is requeued, retried or resumed, its dependents wait on. So do those that
wait for it to complete where it may have done so: its chain ended with exit code 0, and nobody has said what that was.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from backprop.scheduler.home.wake_pipes import note_settled
from backprop.scheduler.lifecycle import FINAL, Event, State, next_state
from backprop.scheduler.spec import DependencyKind, decode
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.groups import NOTHING, Finished, finished
from backprop.scheduler.store.rows import listed
from backprop.scheduler.store.schema import Dependency, Run

WAITING: Final = (State.QUEUED, State.HELD)
IDS_PER_STATEMENT: Final = 500
WORDS: Final = {"success": "to complete", "any": "to end", "fail": "to fail"}
_OTHERWISE: Final = [state.value for state in FINAL if state is not State.COMPLETED]
UNSATISFIED: Final = f"""
    SELECT 1 FROM dependencies AS link LEFT JOIN runs AS parent ON parent.id = link.parent_id
    WHERE link.run_id = runs.id AND runs.segment = 0 AND NOT COALESCE(CASE link.kind
        WHEN 'success' THEN parent.state = '{State.COMPLETED.value}'
        WHEN 'fail' THEN parent.state IN {listed(FINAL - {State.COMPLETED})}
        ELSE parent.id IS NULL OR parent.state IN {listed(FINAL)}
    END, FALSE)"""
"""Inside a query on `runs`: the run's dependencies that are not met yet. A parent that was removed counts as ended,
and as nothing better. What was met when the run began stays so, whatever becomes of the parent: a chain is not given
up half-way."""


class Link(NamedTuple):
    """A dependency on a parent in a state, None if it was removed. `may_be_done`: see the function."""

    parent: str
    kind: DependencyKind
    state: State | None
    may_be_done: bool = False


def may_be_done(state: str | None, exit_code: int | None) -> bool:
    """Return whether a run may be done although it did not end as completed: its user has to say."""
    return state == State.TIMEBOXED and exit_code == 0


def waits_for(database: Database, run_id: str) -> list[Link]:
    """Return each dependency of a run."""

    def query() -> list[Link]:
        from peewee import JOIN

        rows: Any = (
            Dependency.select(Dependency.parent_id, Dependency.kind, Run.state, Run.exit_code)
            .join(Run, JOIN.LEFT_OUTER, on=(Dependency.parent_id == Run.id))
            .where(Dependency.run_id == run_id)
            .tuples()
        )
        return [
            Link(parent, kind, State(state) if state else None, may_be_done(state, exit_code))
            for parent, kind, state, exit_code in rows
        ]

    return database.read(query)


def links_of_waiting(database: Database) -> list[tuple[str, Link]]:
    """Return the dependencies of all queued runs that have not begun, each with its run."""
    rows = database.rows("""
        SELECT link.run_id, link.parent_id, link.kind, parent.state, parent.exit_code
        FROM dependencies AS link JOIN runs ON runs.id = link.run_id
        LEFT JOIN runs AS parent ON parent.id = link.parent_id
        WHERE runs.state = 'queued' AND runs.segment = 0""")
    return [
        (run_id, Link(parent, kind, State(state) if state else None, may_be_done(state, exit_code)))
        for run_id, parent, kind, state, exit_code in rows
    ]


def is_met(kind: DependencyKind, state: State | None, may_be_done: bool = False) -> bool | None:
    """Return whether a dependency is met by its parent's state (None: removed); None while that is open."""
    if kind == "any":
        return True if state is None or state in FINAL else None
    if state is None:
        return False
    if state not in FINAL or (kind == "success" and may_be_done):
        return None
    return (state is State.COMPLETED) == (kind == "success")


def end_unsatisfiable(database: Database, now_s: float) -> tuple[list[tuple[str, str]], Finished]:
    """Stop waiting runs of which a dependency can never be met, and in turn those that wait for them.

    Runs that were queued to stay (`keep_when_unmet`), or whose parent may be done, stay, and get the reason. Returns
    (id, reason) of the stopped, and what they were the last of.
    """

    def verb() -> tuple[list[tuple[str, str]], Finished]:
        ended: list[tuple[str, str]] = []
        while stopped := _end_once(now_s):
            ended += stopped
        return ended, finished(database, _groups_of([run_id for run_id, _ in ended])) if ended else NOTHING

    if not database.rows("SELECT 1 FROM dependencies LIMIT 1"):
        return [], NOTHING
    if not database.read(_unsatisfiable):
        return [], NOTHING
    return database.write(verb)


def _end_once(now_s: float) -> list[tuple[str, str]]:
    """Inside a transaction: stop those that are unsatisfiable now. Returns (id, reason) of the stopped."""
    alike: dict[tuple[str, str, bool], list[str]] = {}
    for run in _unsatisfiable():
        if run.parent_may_be_done:
            why = f"waits for {run.parent}: {continue_or_done(run.parent)}"
            alike.setdefault((why, run.parent, True), []).append(run.id)
            continue
        end = f"ended as {run.parent_state}" if run.parent_state else "was removed"
        why = f"waited for {run.parent} {WORDS[run.kind]}, but it {end}"
        keep = decode(run.spec).keep_when_unmet
        why += f"; kept: backprop resume {run.parent}" if keep else ""
        alike.setdefault((why, run.parent, keep), []).append(run.id)
    stopped: list[tuple[str, str]] = []
    for (why, parent, keep), run_ids in alike.items():
        if keep:
            _keep(run_ids, parent, why)
        else:
            _stop(run_ids, why, now_s)
            stopped += [(run_id, why) for run_id in run_ids]
    return stopped


def continue_or_done(parent: str) -> str:
    """Return what the user can do about a parent that may be done, in words."""
    return (
        f"it exited 0 when asked to stop; backprop resume {parent} continues it, or if it had finished,"
        f" backprop resume --done {parent}"
    )


def members(database: Database, group: str) -> list[tuple[str, State, bool]]:
    """Return (id, state, whether it may be done) of each member of a group; none when there is no such group."""

    def query() -> list[tuple[str, State, bool]]:
        rows: Any = Run.select(Run.id, Run.state, Run.exit_code).where(Run.group_name == group).tuples()
        return [(run_id, State(state), may_be_done(state, code)) for run_id, state, code in rows]

    return database.read(query)


def _was_removed(parent: Any) -> Any:
    """Return the condition that a needed parent was removed: SQL's NULL makes comparisons neither true nor false."""
    return parent.id.is_null() & (Dependency.kind != "any")


def _stop(run_ids: Sequence[str], why: str, now_s: float) -> None:
    """Inside the transaction that read them as waiting. Many per statement: a whole group may wait for one run."""
    values = {"reason": why, "ended_at_s": now_s, "waiting": None, "unsatisfied_parent": None}
    for state in WAITING:
        new = next_state(state, Event.STOPPED)
        for ids in _in_parts(run_ids):
            Run.update(state=new, **values).where(Run.id.in_(ids) & (Run.state == state.value)).execute()
    note_settled()


def _keep(run_ids: Sequence[str], parent: str, why: str) -> None:
    """Note which parent they wait for although it can never be met, where that is not noted yet."""
    unknown = Run.unsatisfied_parent.is_null() | (Run.unsatisfied_parent != parent)
    for ids in _in_parts(run_ids):
        Run.update(reason=why, unsatisfied_parent=parent).where(Run.id.in_(ids) & unknown).execute()


def _groups_of(run_ids: Sequence[str]) -> set[str]:
    names = set[str]()
    for ids in _in_parts(run_ids):
        rows: Any = Run.select(Run.group_name).where(Run.id.in_(ids)).distinct().tuples()
        names |= {name for (name,) in rows if name is not None}
    return names


def _in_parts(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(run_ids), IDS_PER_STATEMENT):
        yield run_ids[at : at + IDS_PER_STATEMENT]


class _UnsatisfiableRun(msgspec.Struct, frozen=True):
    """A waiting run, and one parent of it that rules it out. `parent_state` None: the parent was removed."""

    id: str
    spec: str
    parent: str
    kind: DependencyKind
    parent_state: str | None
    parent_may_be_done: bool


def _unsatisfiable() -> list[_UnsatisfiableRun]:
    """Return the waiting runs of which a dependency can never be met, or might be if its parent is done, each once."""
    from peewee import JOIN

    child, parent = Run.alias(), Run.alias()
    columns = (child.id, child.spec, Dependency.parent_id, Dependency.kind, parent.state, parent.exit_code)
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
            | _was_removed(parent),
        )
        .tuples()
    )
    runs: dict[str, _UnsatisfiableRun] = {}
    for run_id, spec, parent_id, kind, parent_state, exit_code in list(query):
        is_open = kind == "success" and may_be_done(parent_state, exit_code)
        found = _UnsatisfiableRun(run_id, spec, parent_id, kind, parent_state, is_open)
        # What rules it out for good goes before what only its user can decide.
        if run_id not in runs or runs[run_id].parent_may_be_done:
            runs[run_id] = found
    return list(runs.values())
