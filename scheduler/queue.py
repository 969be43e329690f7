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
from backprop.scheduler.models import Run, Switch
from backprop.scheduler.moves import move_now
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import Group, NewRun, Place, RunSpec, decode, encode

STOPPED_WAITING: Final = "stopped by the user before it ran on"
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
    rows = [row_of(one, created_s(now_s, number), batch, reason) for number, one in enumerate(runs)]

    def verb() -> None:
        taken = _taken(rows)
        missing = [row for row in rows if row["id"] not in taken]
        if others := sorted(
            row["id"] for row in rows if row["id"] in taken and taken[row["id"]] != _kept(row)
        ):
            raise BadCommand(_id_taken(others))
        insert(missing)
        insert_links(runs)
        if group is not None:
            groups.set_rules(group, now_s)

    database.write(verb)


def insert(rows: Sequence[dict[str, Any]]) -> None:
    """Inside a transaction: `row_of`'s rows.

    As one prepared statement: peewee takes 200 µs to put a row into words, SQLite 10 to store it.
    """
    if not rows:
        return
    names = list(rows[0])
    statement = f"INSERT INTO runs ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    _connection().executemany(statement, (tuple(row.values()) for row in rows))


def insert_links(runs: Sequence[NewRun]) -> None:
    """Inside a transaction, after `insert`: what the runs wait for. Links that are there already are left alone."""
    _connection().executemany(
        "INSERT OR IGNORE INTO dependencies (run_id, parent_id, kind) VALUES (?, ?, ?)",
        ((one.id, parent, kind) for one in runs for parent, kind in one.place.after),
    )


def _connection() -> Any:
    return Run._meta.database.connection()


def created_s(now_s: float, number: int) -> float:
    """When the run with this number among those queued together was created: so that they keep their order."""
    return now_s + number * 1e-6


def _taken(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, RunSpec]]:
    """(created, specification) of those that are here already: a worker that starts puts in whatever it finds a
    folder of, perhaps between the folder and the row of a `run` under way."""
    found: dict[str, tuple[float, RunSpec]] = {}
    for at in range(0, len(rows), ROWS_A_STATEMENT):
        ids = [row["id"] for row in rows[at : at + ROWS_A_STATEMENT]]
        known: Any = Run.select(Run.id, Run.created_at_s, Run.spec).where(Run.id.in_(ids)).tuples()
        found |= {run_id: (created_at_s, decode(spec)) for run_id, created_at_s, spec in known}
    return found


def _kept(row: dict[str, Any]) -> tuple[float, RunSpec]:
    """Not the text: that which was read from a file is put into words a little differently."""
    return row["created_at_s"], decode(row["spec"])


def _id_taken(ids: Sequence[str]) -> str:
    return f"a run with the id {ids[0]} exists; choose another --run-id, or: backprop resume {ids[0]}"


def row_of(one: NewRun, created_at_s: float, batch: str | None, reason: str) -> dict[str, Any]:
    """Column values of a new run at its place in the queue."""
    place = one.place
    told = "held when it was queued" if place.held else reason
    return new_run(one.id, one.name, one.spec, created_at_s) | {
        "state": State.HELD.value if place.held else State.QUEUED.value,
        "reason": f"waits for {_parents(place)}" if place.after and not place.held else told,
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
    }


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
