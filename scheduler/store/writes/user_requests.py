"""What may a user ask of a run that is in the queue? The verbs behind the commands: each is one short transaction.

One verb over thousands of runs, in one transaction: the same moves as in `queue`, by the same table.

Runs that have moved on since they were chosen are left alone: each verb says which it has moved.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backprop.scheduler.errors import IllegalMove, LostRace
from backprop.scheduler.lifecycle import FINAL, LIVE, Event, Intent, State, next_state
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec, decode, encode
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import Run
from backprop.scheduler.store.writes.transitions import move_now

STOPPED_WAITING: Final = "stopped by the user before it ran on"


def ask_to_stop(database: Database, run: RunRecord, now_s: float) -> State:
    """The user's stop. A waiting run is stopped at once; a live one gets the intent, which its worker acts on.

    Returns the state afterwards. Raises IllegalMove for a run that has ended, LostRace.
    """
    if run.state in LIVE:

        def intend() -> State:
            alive = (Run.id == run.id) & Run.state.in_(list(LIVE)) & (Run.segment == run.segment)
            if (
                not Run.update(intent=Intent.STOP, reason="stopping: asked by the user")
                .where(alive)
                .execute()
            ):
                raise LostRace(f"run {run.id} has just moved on; look again: backprop show {run.id}")
            return run.state

        return database.write(intend)
    if run.state in FINAL:
        raise IllegalMove(f"run {run.id} has ended already ({run.state})")
    return move_now(database, run, Event.STOPPED, reason=STOPPED_WAITING, ended_at_s=now_s)


def hold_run(database: Database, run: RunRecord, why: str) -> State:
    """queued → held, until the user says otherwise. Raises LostRace, IllegalMove."""
    return move_now(database, run, Event.HELD, reason=why, waiting=None)


def fresh_chain(now_s: float) -> dict[str, Any]:
    """Column values of a run that the user has queued again: its counters at zero, its history kept."""
    return {
        "reason": "resumed by the user",
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
        "fault": None,
    }


def apply_edit(database: Database, run: RunRecord, name: str, spec: RunSpec, priority: int) -> None:
    """Put an edited name, specification and priority in the place of a waiting run's. Raises LostRace when it has
    moved on since `run` was read."""

    def verb() -> None:
        here = (Run.id == run.id) & (Run.state == run.state) & (Run.segment == run.segment)
        same = (Run.name == run.name) & (Run.priority == run.priority)
        known = Run.get_or_none(here & same)
        # Not by their texts: whether a default is written out depends on where the value came from.
        moved = known is None or decode(known.spec) != run.spec
        values = {
            "name": name,
            "spec": encode(spec),
            "priority": priority,
            "script": spec.script or spec.program,
        }
        if moved or run.state not in (State.QUEUED, State.HELD):
            raise LostRace(f"run {run.id} has just moved on; look again: backprop show {run.id}")
        Run.update(values).where(here).execute()

    database.write(verb)


ROWS_A_STATEMENT: Final = 500
_GO_ON_WAITING: Final = """
    UPDATE runs SET reason = ? WHERE state = 'queued' AND segment = 0 AND reason LIKE '%; kept: backprop resume %'
    AND id IN (SELECT run_id FROM dependencies WHERE parent_id = ?)"""
"""Those that were told that they wait in vain for a run, and were queued with --keep."""


def stop_waiting(database: Database, run_ids: Sequence[str], now_s: float) -> list[str]:
    """Stop those that are queued or held; the ids of the stopped."""
    values = {"reason": STOPPED_WAITING, "ended_at_s": now_s, "waiting": None}
    return database.write(lambda: _move(run_ids, Event.STOPPED, values))


def hold(database: Database, run_ids: Sequence[str], why: str) -> list[str]:
    """Hold those that are queued; their ids."""
    return database.write(lambda: _move(run_ids, Event.HELD, {"reason": why, "waiting": None}))


def release(database: Database, run_ids: Sequence[str]) -> list[str]:
    """Queue those that are held, at their old places; their ids."""
    return database.write(lambda: _move(run_ids, Event.RELEASED, {"reason": "released by the user"}))


def resume(
    database: Database, run_ids: Sequence[str], specs: Mapping[str, RunSpec], pin: str | None, now_s: float
) -> list[str]:
    """Queue those that have ended or are held, each with a fresh chain, in this order; their ids. `specs`: what
    replaces the specification of a run; `pin`: as in `queue.resume`."""

    def verb() -> list[str]:
        values = fresh_chain(now_s) | {"resume_pin": pin}
        moved = {
            *_move(run_ids, Event.RESUMED, values),
            *_move(run_ids, Event.RELEASED, values),
        }
        done = [run_id for run_id in run_ids if run_id in moved]
        turns = [(now_s + number * 1e-6, run_id) for number, run_id in enumerate(done)]
        _connection().executemany("UPDATE runs SET turn_s = ? WHERE id = ?", turns)
        _connection().executemany(
            _GO_ON_WAITING, [(f"waits for {one}, which was resumed", one) for one in done]
        )
        changed = [(encode(specs[run_id]), run_id) for run_id in done if run_id in specs]
        _connection().executemany("UPDATE runs SET spec = ? WHERE id = ?", changed)
        return done

    return database.write(verb)


def _move(run_ids: Sequence[str], event: Event, values: Mapping[str, Any]) -> list[str]:
    """Inside a transaction: move those that may be moved so without a worker; their ids, in this order."""
    targets = {
        state.value: target
        for state in State
        if state not in LIVE and (target := next_state(state, event)) is not None
    }
    (target,) = set(targets.values())
    moved: list[str] = []
    for at in range(0, len(run_ids), ROWS_A_STATEMENT):
        some = list(run_ids[at : at + ROWS_A_STATEMENT])
        able: Any = Run.select(Run.id).where(Run.id.in_(some), Run.state.in_(list(targets))).tuples()
        ids = {run_id for (run_id,) in able}
        Run.update(dict(values) | {"state": target.value}).where(Run.id.in_(list(ids))).execute()
        moved += [run_id for run_id in some if run_id in ids]
    return moved


def _connection() -> Any:
    return Run._meta.database.connection()
