"""Says what keeps a queued run from starting before any rule of the governor is asked."""

from collections.abc import Callable

from backprop.scheduler.lifecycle import HOLDS_A_SLOT, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import DependencyKind
from backprop.scheduler.store import dependencies, drain, groups
from backprop.scheduler.store.connection import Database

When = Callable[[float], str]
"""Returns Unix seconds as people read them."""


def reasons(database: Database, run: RunRecord, now_s: float, when: When) -> list[str]:
    """Return why a queued run may not start yet, one line each: a drained queue, its time, dependencies, its group."""
    if run.state not in (State.QUEUED, State.SUSPENDED):
        return []
    lines: list[str] = []
    drained = drain.drained(database)
    if drained is not None:
        lines.append(
            f"the queue is drained since {when(drained[1])} ({drained[0]}); backprop undrain opens it"
        )
    if run.suspension is not None:
        until = f"until {when(run.thaw_at_s)}" if run.thaw_at_s is not None else "for good"
        lines.append(f"its user has suspended it {until}; backprop unsuspend {run.id} lets it go on")
    elif run.not_before_s > now_s:
        what = "its retry is due at" if run.segment else "its time comes at"
        lines.append(f"{what} {when(run.not_before_s)}")
    lines += [
        dependency_text(*link)
        for link in dependencies.waits_for(database, run.id)
        if run.segment == 0 and not dependencies.is_met(*link[1:])
    ]
    return lines + _full_group(database, run)


def dependency_text(parent: str, kind: DependencyKind, state: State | None, may_be_done: bool = False) -> str:
    """Return one dependency with how it stands: `waits for 3fa2-1 to complete (running)`."""
    waits = f"waits for {parent} {dependencies.WORDS[kind]}"
    match dependencies.is_met(kind, state, may_be_done):
        case True:
            return f"{waits}: done"
        case False:
            end = f"ended as {state}" if state else "was removed"
            return f"{waits}, but it {end}: this can never be met"
        case _:
            return f"{waits} ({state})" + (
                f": {dependencies.continue_or_done(parent)}" if may_be_done else ""
            )


def _full_group(database: Database, run: RunRecord) -> list[str]:
    rules = groups.rules(database, run.group_name) if run.group_name is not None else None
    if rules is None or rules.max_parallel is None:
        return []
    live = sum(1 for _, state, _ in dependencies.members(database, rules.name) if state in HOLDS_A_SLOT)
    if live < rules.max_parallel:
        return []
    return [f"its group {rules.name} has {live} running, at most {rules.max_parallel} may"]
