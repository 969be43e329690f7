"""What keeps a run from being looked at, before any rule of the governor? In words, for one run."""

from collections.abc import Callable

from backprop.scheduler.lifecycle import LIVE, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import DependencyKind
from backprop.scheduler.store import dependencies, drain, groups
from backprop.scheduler.store.connection import Database

When = Callable[[float], str]
"""Unix seconds as people read them."""


def reasons(database: Database, run: RunRecord, now_s: float, when: When) -> list[str]:
    """Why a queued run may not start yet, one line each: a drained queue, its time, its dependencies, its group."""
    if run.state is not State.QUEUED:
        return []
    found: list[str] = []
    drained = drain.drained(database)
    if drained is not None:
        found.append(
            f"the queue is drained since {when(drained[1])} ({drained[0]}); backprop undrain opens it"
        )
    if run.not_before_s > now_s:
        what = "its retry is due at" if run.segment else "its time comes at"
        found.append(f"{what} {when(run.not_before_s)}")
    found += [
        dependency_text(parent, kind, state)
        for parent, kind, state in dependencies.waits_for(database, run.id)
        if run.segment == 0 and not dependencies.is_met(kind, state)
    ]
    return found + _full_group(database, run)


def dependency_text(parent: str, kind: DependencyKind, state: State | None) -> str:
    """One dependency with how it stands: `waits for 3fa2-1 to complete (running)`."""
    told = f"waits for {parent} {dependencies.WORDS[kind]}"
    match dependencies.is_met(kind, state):
        case True:
            return f"{told}: done"
        case False:
            return f"{told}, which has {state or 'been removed'}: in vain"
        case _:
            return f"{told} ({state})"


def _full_group(database: Database, run: RunRecord) -> list[str]:
    rules = groups.rules(database, run.group_name) if run.group_name is not None else None
    if rules is None or rules.max_parallel is None:
        return []
    live = sum(1 for _, state in dependencies.members(database, rules.name) if state in LIVE)
    if live < rules.max_parallel:
        return []
    return [f"its group {rules.name} has {live} running, at most {rules.max_parallel} may"]
