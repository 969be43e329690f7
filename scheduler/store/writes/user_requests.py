"""Does what a user asks of runs in the queue: stop, hold, release, resume, declare done, edit.

Each verb is one short transaction, over one run or thousands. A run that changed its state since it was chosen is left
alone: the verbs over many return the ids that they have moved, the verbs over one run raise LostRace.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from backprop.scheduler.errors import IllegalMove
from backprop.scheduler.home.request_log import Verb
from backprop.scheduler.home.wake_pipes import note_settled
from backprop.scheduler.lifecycle import FINAL, HAS_PROCESSES, SETTLED, Event, Intent, State, next_state
from backprop.scheduler.records import RunRecord, Waiting
from backprop.scheduler.spec import RunSpec, decode, encode
from backprop.scheduler.store import requests
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.requests import Note
from backprop.scheduler.store.schema import Run
from backprop.scheduler.store.writes.transitions import lost_race, move, move_now

STOPPED_WAITING: Final = "stopped while queued"
DECLARED_DONE: Final = "declared done by the user"
ROWS_PER_STATEMENT: Final = 500
_NOT_WAITING: Final = {"waiting": None, "unsatisfied_parent": None}
_NOT_KEPT: Final = {"suspension": None, "thaw_at_s": None}
_WAIT_AGAIN: Final = "UPDATE runs SET reason = ?, unsatisfied_parent = NULL WHERE unsatisfied_parent = ?"


def ask_to_stop(database: Database, run: RunRecord, now_s: float) -> State:
    """Stop a waiting run at once; give a live one the intent, which its worker acts on.

    Returns the state afterwards. Raises IllegalMove for a run that has ended, LostRace.
    """
    if run.state in FINAL:
        raise IllegalMove(f"run {run.id} has ended already ({run.state})")

    def verb(note: Note) -> State:
        if run.state not in HAS_PROCESSES:
            ended = {"reason": STOPPED_WAITING, "ended_at_s": now_s}
            state = move(run.id, run.state, Event.STOPPED, run.segment, ended)
        elif intend_to_stop(run.id, run.segment):
            state = run.state
        else:
            raise lost_race(run.id)
        note(Verb.STOP_LIVE if run.state in HAS_PROCESSES else Verb.STOP, [run.id], at_s=now_s)
        return state

    return requests.write(database, verb)


def intend_to_stop(run_id: str, segment: int) -> bool:
    """Inside a transaction: give a live segment the intent. Returns False if it does not live."""
    alive = (Run.id == run_id) & Run.state.in_(list(HAS_PROCESSES)) & (Run.segment == segment)
    stopping = Run.update(intent=Intent.STOP, reason="stopping: asked by the user")
    return bool(stopping.where(alive).execute())


def stop_waiting(database: Database, run_ids: Sequence[str], now_s: float) -> list[str]:
    """Stop those that are queued or held. Returns the ids of the stopped."""
    return _noted(database, Verb.STOP, lambda: stop_now(run_ids, now_s), at_s=now_s)


def hold_run(database: Database, run: RunRecord, why: str, held_for: Sequence[Waiting] = ()) -> State:
    """Hold a queued run until its user releases it. `held_for`: rules whose end releases it as well. Raises LostRace,
    IllegalMove."""
    waiting = msgspec.json.encode(held_for).decode() if held_for else None
    return move_now(database, run, Event.HELD, reason=why, waiting=waiting)


def hold(database: Database, run_ids: Sequence[str], why: str) -> list[str]:
    """Hold those that are queued, and those that would be released by themselves. Returns their ids."""
    return _noted(database, Verb.HOLD, lambda: hold_now(run_ids, why), why=why)


def release_found(database: Database, run: RunRecord) -> bool:
    """Queue a run whose missing files are back. Returns False when its user has decided otherwise meanwhile."""

    def verb() -> bool:
        unchanged = (Run.id == run.id) & (Run.state == State.HELD.value) & (Run.segment == run.segment)
        found = {"reason": "released: its files are back", "state": State.QUEUED.value, "waiting": None}
        return bool(Run.update(found).where(unchanged & Run.waiting.is_null(False)).execute())

    return database.write(verb)


def release(database: Database, run_ids: Sequence[str]) -> list[str]:
    """Queue those that are held, at their old places. Returns their ids."""
    return _noted(database, Verb.RELEASE, lambda: release_now(run_ids))


def resume(
    database: Database,
    run_ids: Sequence[str],
    specs: Mapping[str, RunSpec],
    pin: str | None,
    now_s: float,
    change_folder: Callable[[str], None] = lambda _: None,
    restore_folders: Callable[[], None] = lambda: None,
) -> list[str]:
    """Queue those that have ended or are held, each with a fresh chain, in this order. Returns their ids.

    `specs`: what replaces the specification of a run, by id. `pin`: what their chains begin from, see `RunRecord`.
    `change_folder`: gives the folder of a run its new specification; may be called again. `restore_folders`: takes all
    of that back. Raises what these two raise.
    """

    def verb(note: Note) -> list[str]:
        done = resume_now(run_ids, specs, pin, now_s)
        note(Verb.RESUME, done, at_s=now_s, pin=pin)
        for run_id in done:
            if run_id in specs:
                change_folder(run_id)
        return done

    return requests.write(database, verb, restore_folders)


def declare_done(database: Database, run_ids: Sequence[str], now_s: float) -> list[str]:
    """Count those that have ended otherwise or are held as completed, by their user's word. Returns their ids."""
    return _noted(database, Verb.DONE, lambda: declare_done_now(run_ids, now_s), at_s=now_s)


def stop_now(run_ids: Sequence[str], now_s: float) -> list[str]:
    """As `stop_waiting`, inside a transaction, and without a note of it; so are those that follow."""
    return _move(run_ids, Event.STOPPED, {"reason": STOPPED_WAITING, "ended_at_s": now_s} | _NOT_WAITING)


def hold_now(run_ids: Sequence[str], why: str) -> list[str]:
    """Hold the runs that may be held, with the reason; return their ids in the order given. Needs a transaction."""
    values = {"reason": why} | _NOT_WAITING
    held = {run_id for run_id in run_ids if _hold_on(run_id, values)}
    held |= set(_move(run_ids, Event.HELD, values))
    return [run_id for run_id in run_ids if run_id in held]


def _hold_on(run_id: str, values: Mapping[str, Any]) -> bool:
    released_by_itself = (Run.state == State.HELD.value) & Run.waiting.is_null(False)
    return bool(Run.update(dict(values)).where(Run.id == run_id, released_by_itself).execute())


def release_now(run_ids: Sequence[str]) -> list[str]:
    return _move(run_ids, Event.RELEASED, {"reason": "released by the user", "unsatisfied_parent": None})


def resume_now(
    run_ids: Sequence[str], specs: Mapping[str, RunSpec], pin: str | None, now_s: float
) -> list[str]:
    """Queue ended or held runs again, in the order given, at `now_s`; return the ids of those that could be.

    `specs`: what changes, by run. `pin`: the checkpoint to start from; None: the newest. Needs a transaction. Who has
    waited for one of them waits again."""
    values = _fresh_chain(now_s) | {"resume_pin": pin, "unsatisfied_parent": None}
    moved = {
        *_move(run_ids, Event.RESUMED, values),
        *_move(run_ids, Event.RELEASED, values),
    }
    done = [run_id for run_id in run_ids if run_id in moved]
    turns = [(now_s + number * 1e-6, run_id) for number, run_id in enumerate(done)]
    _connection().executemany("UPDATE runs SET turn_s = ? WHERE id = ?", turns)
    dependents = [(f"waits for {run_id}, which was resumed", run_id) for run_id in done]
    _connection().executemany(_WAIT_AGAIN, dependents)
    changed = [(encode(specs[run_id]), specs[run_id].cluster, run_id) for run_id in done if run_id in specs]
    _connection().executemany("UPDATE runs SET spec = ?, cluster = ? WHERE id = ?", changed)
    return done


def declare_done_now(run_ids: Sequence[str], now_s: float) -> list[str]:
    """Complete the runs by their user's word; return the ids of those that could be. Needs a transaction."""
    ended = {"reason": DECLARED_DONE, "fault": None, "not_before_s": 0.0}
    done = _move(run_ids, Event.DECLARED_DONE, ended | {"ended_at_s": now_s} | _NOT_WAITING)
    dependents = [(f"{run_id} was declared done", run_id) for run_id in done]
    _connection().executemany(_WAIT_AGAIN, dependents)
    return done


def apply_edit(
    database: Database,
    run: RunRecord,
    name: str,
    spec: RunSpec,
    priority: int,
    change_folder: Callable[[], None] = lambda: None,
    restore_folder: Callable[[], None] = lambda: None,
) -> None:
    """Give a waiting run an edited name, specification and priority.

    `change_folder`: does the same in the run's folder, which a repair makes the edit from; may be called again.
    `restore_folder`: takes that back. Raises LostRace when the run was changed since `run` was read, and what these
    two raise.
    """

    def verb(note: Note) -> None:
        unmoved = (Run.id == run.id) & (Run.state == run.state) & (Run.segment == run.segment)
        unchanged = (Run.name == run.name) & (Run.priority == run.priority)
        known = Run.get_or_none(unmoved & unchanged)
        # Not by their texts: whether a default is written out depends on where the value came from.
        changed = known is None or decode(known.spec) != run.spec
        if changed or run.state not in (State.QUEUED, State.HELD):
            raise lost_race(run.id)
        edit_now(run.id, name, spec, priority)
        note(Verb.EDIT, [run.id])
        change_folder()

    requests.write(database, verb, restore_folder)


def edit_now(run_id: str, name: str, spec: RunSpec, priority: int) -> None:
    """Inside a transaction: change a run as `apply_edit` does, whatever its state."""
    values = {
        "name": name,
        "spec": encode(spec),
        "cluster": spec.cluster,
        "priority": priority,
        "script": spec.script or spec.program,
    }
    Run.update(values).where(Run.id == run_id).execute()


def _noted(database: Database, verb: Verb, change: Callable[[], list[str]], **more: Any) -> list[str]:
    """Make a change, and note for which runs it was made; return their ids."""

    def transaction(note: Note) -> list[str]:
        done = change()
        note(verb, done, **more)
        return done

    return requests.write(database, transaction)


def _fresh_chain(now_s: float) -> dict[str, Any]:
    """Return the column values of a run that the user has queued again: its counters at zero, its history kept."""
    return {
        "reason": "resumed by the user",
        "waiting": None,
        "queued_at_s": now_s,
        "turn_s": now_s,
        "not_before_s": 0.0,
        "ended_at_s": None,
        "chain_start": Run.segment,
        "chain_total_s": 0.0,
        "stalled": 0,
        "retries_used": 0,
        "lost": 0,
        "oom_retries": 0,
        "host_faults": 0,
        "fault": None,
    }


def _move(run_ids: Sequence[str], event: Event, values: Mapping[str, Any]) -> list[str]:
    """Inside a transaction: move those that may be moved so without a worker. Returns their ids, in this order."""
    targets = {
        state.value: target
        for state in State
        if state not in HAS_PROCESSES and (target := next_state(state, event)) is not None
    }
    (target,) = set(targets.values())
    moved: list[str] = []
    for at in range(0, len(run_ids), ROWS_PER_STATEMENT):
        some = list(run_ids[at : at + ROWS_PER_STATEMENT])
        able: Any = Run.select(Run.id).where(Run.id.in_(some), Run.state.in_(list(targets))).tuples()
        ids = {run_id for (run_id,) in able}
        Run.update(_NOT_KEPT | dict(values) | {"state": target.value}).where(Run.id.in_(list(ids))).execute()
        moved += [run_id for run_id in some if run_id in ids]
    if moved and target in SETTLED:
        note_settled()
    return moved


def _connection() -> Any:
    return Run._meta.database.connection()
