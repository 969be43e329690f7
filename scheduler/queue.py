"""What may a user ask of a run that is in the queue? The verbs behind the commands: each is one short transaction."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from typing import Any, Final

from backprop.scheduler.database import Database
from backprop.scheduler.errors import IllegalMove, LostRace
from backprop.scheduler.lifecycle import FINAL, LIVE, Event, Intent, State, next_state
from backprop.scheduler.models import Run, Switch
from backprop.scheduler.moves import move_now
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec, decode, encode

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


def hold(database: Database, run: RunRecord, why: str) -> State:
    """queued → held, until the user says otherwise. Raises LostRace, IllegalMove."""
    return move_now(database, run, Event.HELD, reason=why, waiting=None)


def resume(database: Database, run: RunRecord, spec: RunSpec, pin: str | None, now_s: float) -> State:
    """A final or held run back into the queue, its history kept, its counters at zero.

    `pin`: what the next segment resumes from, as the user said (a path, or "" for from scratch); None for the
    newest good checkpoint. Raises IllegalMove for a run that is queued or live, LostRace.
    """
    event = Event.RELEASED if run.state is State.HELD else Event.RESUMED
    if next_state(run.state, event) is None:
        raise IllegalMove(f"run {run.id} is {run.state}; only a run that has ended or is held can be resumed")
    fresh = fresh_chain(now_s) | {"chain_start": run.segment}
    return move_now(database, run, event, spec=encode(spec), resume_pin=pin, **fresh)


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


def change_place(database: Database, run: RunRecord, name: str, spec: RunSpec, priority: int) -> None:
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


def release(database: Database, run: RunRecord) -> State:
    """held → queued, at its old place and with its counters as they are. Raises LostRace, IllegalMove."""
    return move_now(database, run, Event.RELEASED, reason="released by the user")


def set_drained(database: Database, why: str | None, now_s: float) -> None:
    """From now on no worker starts anything (`why` says who wants that), or all do again (None)."""

    def verb() -> None:
        Switch.delete().where(Switch.name == "drained").execute()
        if why is None:
            from backprop.scheduler.gate import DRAINED

            # A worker gives each its new reason; until then, and without one, none must give the old.
            told = (Run.state == State.QUEUED) & (Run.reason % f"waits: {DRAINED}*")
            Run.update(reason="queued", waiting=None).where(told).execute()
        if why is not None:
            Switch.insert(name="drained", why=why, since_s=now_s).execute()

    database.write(verb)
