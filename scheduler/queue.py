"""What may a user ask of the queue? The verbs behind the commands: each is one short transaction."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections.abc import Sequence
from typing import Any, Final

from backprop.scheduler import groups
from backprop.scheduler.database import Database
from backprop.scheduler.dependencies import WORDS
from backprop.scheduler.errors import BadCommand, IllegalMove, LostRace
from backprop.scheduler.lifecycle import FINAL, LIVE, Event, Intent, State, next_state
from backprop.scheduler.models import Dependency, Run, Switch
from backprop.scheduler.moves import move_now
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import Group, NewRun, Place, RunSpec, encode

ROWS_A_STATEMENT: Final = 500
"""SQLite takes 32,766 values in a statement (SQLITE_MAX_VARIABLE_NUMBER); a run has about 40."""


def enqueue(
    database: Database,
    run_id: str,
    name: str,
    spec: RunSpec,
    now_s: float,
    reason: str = "queued",
    place: Place = Place(),  # noqa: B008 - frozen
) -> None:
    """Put a new run into the queue. Raises BadCommand when the id is taken."""
    one = NewRun(id=run_id, name=name, spec=spec, place=place)
    enqueue_all(database, [one], now_s, reason=reason)


def enqueue_all(
    database: Database,
    runs: Sequence[NewRun],
    now_s: float,
    *,
    group: Group | None = None,
    batch: str | None = None,
    reason: str = "queued",
) -> None:
    """Put all of `runs` into the queue, or none. They take their turns in this order. Raises BadCommand.

    `group`: rules to set for the group they belong to. `batch`: where their specifications are, see `batches`.
    """
    rows = [_row(one, now_s, number, batch, reason) for number, one in enumerate(runs)]
    links = [
        {"run_id": one.id, "parent_id": parent, "kind": kind}
        for one in runs
        for parent, kind in one.place.after
    ]

    def verb() -> None:
        taken = _taken(rows)
        missing = [row for row in rows if row["id"] not in taken]
        if any(taken[row["id"]] != (row["created_at_s"], row["spec"]) for row in rows if row["id"] in taken):
            raise BadCommand(_id_taken(sorted(taken)))
        for at in range(0, len(missing), ROWS_A_STATEMENT):
            Run.insert_many(missing[at : at + ROWS_A_STATEMENT]).execute()
        for at in range(0, len(links), ROWS_A_STATEMENT):
            Dependency.insert_many(links[at : at + ROWS_A_STATEMENT]).on_conflict_ignore().execute()
        if group is not None:
            groups.set_rules(group, now_s)

    database.write(verb)


def _taken(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, str]]:
    """(created, specification) of those that are here already: a worker that starts puts in whatever it finds a
    folder of, perhaps between the folder and the row of a `run` under way."""
    found: dict[str, tuple[float, str]] = {}
    for at in range(0, len(rows), ROWS_A_STATEMENT):
        ids = [row["id"] for row in rows[at : at + ROWS_A_STATEMENT]]
        known: Any = Run.select(Run.id, Run.created_at_s, Run.spec).where(Run.id.in_(ids)).tuples()
        found |= {run_id: (created_s, spec) for run_id, created_s, spec in known}
    return found


def _id_taken(ids: Sequence[str]) -> str:
    return f"a run with the id {ids[0]} exists; choose another --run-id, or: backprop resume {ids[0]}"


def _row(one: NewRun, now_s: float, number: int, batch: str | None, reason: str) -> dict[str, Any]:
    place = one.place
    told = "held when it was queued" if place.held else reason
    return new_run(one.id, one.name, one.spec, now_s) | {
        "state": State.HELD.value if place.held else State.QUEUED.value,
        "reason": f"waits for {_parents(place)}" if place.after and not place.held else told,
        "turn_s": now_s + number * 1e-6,
        "priority": place.priority,
        "not_before_s": place.begin_s,
        "group_name": place.group,
        "array_index": place.array_index,
        "batch": batch,
    }


def _parents(place: Place) -> str:
    return ", ".join(f"{parent} {WORDS[kind]}" for parent, kind in place.after[:3])


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
    return move_now(
        database, run, Event.STOPPED, reason="stopped by the user before it ran on", ended_at_s=now_s
    )


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
    return move_now(
        database,
        run,
        event,
        reason="resumed by the user",
        spec=encode(spec),
        resume_pin=pin,
        queued_at_s=now_s,
        turn_s=now_s,
        not_before_s=0.0,
        ended_at_s=None,
        chain_start=run.segment,
        chain_total_s=0.0,
        stalled=0,
        retries_used=0,
        lost=0,
        oom_retries=0,
    )


def new_run(run_id: str, name: str, spec: RunSpec, now_s: float) -> dict[str, Any]:
    """Column values of a run that is queued and has done nothing yet."""
    return {
        "id": run_id,
        "name": name,
        "state": State.QUEUED.value,
        "reason": "queued",
        "spec": encode(spec),
        "script": spec.script or spec.program,
        "created_at_s": now_s,
        "queued_at_s": now_s,
        "priority": 0,
        "turn_s": now_s,
        "not_before_s": 0.0,
        "segment": 0,
        "chain_start": 0,
        "chain_total_s": 0.0,
        "stalled": 0,
        "retries_used": 0,
        "lost": 0,
        "oom_retries": 0,
    }


def move_in_queue(
    database: Database, run_ids: Sequence[str], *, before: str | None, now_s: float
) -> list[str]:
    """Put queued runs, in this order, right before another queued run (`before`: its id), or at the very front
    (`before` None): of the highest priority too. Returns the ids that were moved; others are not queued."""

    def verb() -> list[str]:
        waiting = [State.QUEUED.value, State.HELD.value]
        mine = Run.select(Run.id).where(Run.id.in_(list(run_ids)), Run.state.in_(waiting)).tuples()
        movable: set[str] = {run_id for (run_id,) in list(mine)}
        order = Run.select(Run.id, Run.priority, Run.turn_s).where(Run.state.in_(waiting))
        ahead = order.order_by(Run.priority.desc(), Run.turn_s, Run.id).tuples()
        others: list[tuple[str, int, float]] = [row for row in list(ahead) if row[0] not in movable]
        at = next(
            (number for number, row in enumerate(others) if row[0] == before), 0 if before is None else None
        )
        if at is None:
            raise IllegalMove(f"run {before} is not queued")
        priority, high_s = (others[at][1], others[at][2]) if others else (0, now_s)
        same = at > 0 and others[at - 1][1] == priority
        low_s = others[at - 1][2] if same else high_s - len(movable) - 1.0
        todo = [run_id for run_id in run_ids if run_id in movable]
        for number, run_id in enumerate(todo, 1):
            turn_s = low_s + (high_s - low_s) * number / (len(todo) + 1)
            Run.update(priority=priority, turn_s=turn_s).where(Run.id == run_id).execute()
        return todo

    return database.write(verb)


def move_to_back(database: Database, run_ids: Sequence[str], now_s: float) -> list[str]:
    """Put queued runs behind every other one of the lowest priority there is."""

    def verb() -> list[str]:
        from peewee import fn

        waiting = [State.QUEUED.value, State.HELD.value]
        lowest: Any = Run.select(fn.MIN(Run.priority)).where(Run.state.in_(waiting)).scalar()
        moved: list[str] = []
        for number, run_id in enumerate(run_ids):
            here = (Run.id == run_id) & Run.state.in_(waiting)
            if Run.update(priority=lowest or 0, turn_s=now_s + number * 1e-6).where(here).execute():
                moved.append(run_id)
        return moved

    return database.write(verb)


def change_place(database: Database, run: RunRecord, name: str, spec: RunSpec, priority: int) -> None:
    """Put an edited name, specification and priority in the place of a waiting run's. Raises LostRace when it has
    moved on since `run` was read."""

    def verb() -> None:
        here = (Run.id == run.id) & (Run.state == run.state) & (Run.segment == run.segment)
        same = (Run.spec == encode(run.spec)) & (Run.name == run.name)
        values = {
            "name": name,
            "spec": encode(spec),
            "priority": priority,
            "script": spec.script or spec.program,
        }
        if run.state not in (State.QUEUED, State.HELD) or not Run.update(values).where(here & same).execute():
            raise LostRace(f"run {run.id} has just moved on; look again: backprop show {run.id}")

    database.write(verb)


def release(database: Database, run: RunRecord) -> State:
    """held → queued, at its old place and with its counters as they are. Raises LostRace, IllegalMove."""
    return move_now(database, run, Event.RELEASED, reason="released by the user")


def set_drained(database: Database, why: str | None, now_s: float) -> None:
    """From now on no worker starts anything (`why` says who wants that), or all do again (None)."""

    def verb() -> None:
        Switch.delete().where(Switch.name == "drained").execute()
        if why is not None:
            Switch.insert(name="drained", why=why, since_s=now_s).execute()

    database.write(verb)
