"""Writes what becomes of suspended runs: that one is asked for, has been carried out or taken back, and its end.

The order to a supervisor is a file with a number, see `worker.executor.suspend_files`. A segment's row keeps the number
of the last one that is over, so that whoever finds both can tell a suspension that has begun from one that ends.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.scheduler.errors import LostRace
from backprop.scheduler.home.request_log import Verb
from backprop.scheduler.lifecycle import HAS_PROCESSES, HOLDS_A_SLOT, Event, Intent, State
from backprop.scheduler.outcome.move import SUSPENDED_BY_USER
from backprop.scheduler.records import ASKED, KEPT, RunRecord
from backprop.scheduler.store import drain, requests
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.rows import execute, insert_row, update_rows
from backprop.scheduler.store.schema import Run
from backprop.scheduler.store.writes import user_requests
from backprop.scheduler.store.writes.claims import TURN_GAP_S, last_turn_s
from backprop.scheduler.store.writes.transitions import move

_SLOTS = [state.value for state in HOLDS_A_SLOT]
_ALIVE = [state.value for state in HAS_PROCESSES]
_LEAVES = [Intent.TIMEBOX.value, Intent.YIELD.value]
_NEXT_SERIAL: Final = (
    "UPDATE segments SET serial = (SELECT MAX(serial) FROM segments) + 1 WHERE run_id = ? AND number = ?"
)
_CLAIMED: Final = (
    "UPDATE suspensions SET claimed_at_s = ? WHERE run_id = ? AND segment = ? AND claimed_at_s IS NULL"
)
_WENT_ON: Final = (
    "UPDATE suspensions SET claimed_at_s = COALESCE(claimed_at_s, ?1), on_at_s = ?1"
    " WHERE run_id = ?2 AND segment = ?3 AND on_at_s IS NULL"
)
_ISSUED: Final = "UPDATE sqlite_sequence SET seq = (SELECT MAX(serial) FROM segments) WHERE name = 'segments'"


class Promised(msgspec.Struct, frozen=True):
    """VRAM that is reserved on the GPU of a segment. `serial`: the admission serial that this was decided on."""

    mib: int
    serial: int


def ask(database: Database, run_ids: Sequence[str], thaw_at_s: float | None) -> list[str]:
    """Note that a user wants live runs suspended, or keeps suspended ones as they are; return the ids of those. One
    that ends meanwhile, to be queued again, is held off.

    `thaw_at_s`: when they may go on by themselves (Unix seconds); None for not before `unsuspend`.
    """

    def verb(note: requests.Note) -> list[str]:
        done = ask_now(run_ids, thaw_at_s)
        note(Verb.SUSPEND, done, thaw_at_s=thaw_at_s)
        return done

    return requests.write(database, verb)


def ask_now(run_ids: Sequence[str], thaw_at_s: float | None) -> list[str]:
    """As `ask`, inside a transaction, and without a note of it; so are those that follow."""
    return [run_id for run_id in run_ids if _ask_one(run_id, thaw_at_s)]


def hold_off_now(run_ids: Sequence[str], thaw_at_s: float | None) -> None:
    """Hold off those that wait: their segments were over when the suspension that is asked for came to them."""
    values = {"suspension": KEPT, "thaw_at_s": thaw_at_s, "reason": SUSPENDED_BY_USER}
    waits = State.QUEUED if thaw_at_s is not None else State.HELD
    if waits is State.HELD:
        user_requests.hold_now(run_ids, SUSPENDED_BY_USER)
    else:
        values["not_before_s"] = thaw_at_s
    Run.update(values).where(Run.id.in_(list(run_ids)), Run.state == waits.value).execute()


def unask_now(run_ids: Sequence[str]) -> list[str]:
    return [run_id for run_id in run_ids if _unask_one(run_id)]


def _ask_one(run_id: str, thaw_at_s: float | None) -> bool:
    # On a cluster its own preemption does that.
    own = (Run.id == run_id) & Run.intent.is_null() & Run.cluster.is_null()
    asked = Run.update(suspension=ASKED, thaw_at_s=thaw_at_s).where(own & Run.state.in_(_SLOTS)).execute()
    values = {"suspension": KEPT, "thaw_at_s": thaw_at_s}
    kept = values | {"reason": SUSPENDED_BY_USER, "waiting": None}
    stays = asked or Run.update(kept).where(own & (Run.state == State.SUSPENDED.value)).execute()
    # One that is about to end, to be queued again, is held off then.
    is_leaving = (Run.id == run_id) & Run.cluster.is_null() & Run.intent.in_(_LEAVES) & Run.state.in_(_ALIVE)
    return bool(stays or Run.update(values).where(is_leaving).execute())


def leave(database: Database, run: RunRecord, why: str, number: int | None) -> bool:
    """Ask a live run to save and end that its user wants suspended: it will be held off then. `why`: it can't stand
    still where it is. `number`: of the order that came to nothing, if one was given. Returns False where its user has
    taken that back, or it is asked to end already."""

    def verb() -> bool:
        if number is not None:
            update_rows("segments", {"suspensions": number}, {"run_id": run.id, "number": run.segment})
        own = (Run.id == run.id) & (Run.segment == run.segment) & Run.state.in_(_SLOTS)
        values = {"suspension": KEPT, "intent": Intent.YIELD, "intent_why": why, "reason": f"stopping: {why}"}
        return bool(Run.update(values).where(own & Run.intent.is_null(), Run.suspension == ASKED).execute())

    return database.write(verb)


def unask(database: Database, run_ids: Sequence[str]) -> list[str]:
    """Take back what `ask` noted, also of runs that have been held off since; return the ids of the runs for which
    there was something."""

    def verb(note: requests.Note) -> list[str]:
        done = unask_now(run_ids)
        note(Verb.UNSUSPEND, done)
        return done

    return requests.write(database, verb)


def _unask_one(run_id: str) -> bool:
    own = (Run.id == run_id) & Run.suspension.is_null(False)
    waits = {"reason": "suspended: waits for its turn"}
    Run.update(waits).where(own & (Run.state == State.SUSPENDED.value)).execute()
    queued = {"reason": "let go on by the user", "not_before_s": 0.0}
    Run.update(queued).where(own & (Run.state == State.QUEUED.value)).execute()
    if Run.select().where(own & (Run.state == State.HELD.value)).exists():
        return bool(user_requests.release_now([run_id]))
    return bool(Run.update(suspension=None, thaw_at_s=None).where(own).execute())


def suspended(
    database: Database,
    run: RunRecord,
    why: str,
    kept_mib: int | None,
    now_s: float,
    vram_out_mib: int | None = None,
    ordered_at_s: float | None = None,
) -> State:
    """Note that a live run is frozen: it leaves its slot and takes a place at the back of the queue.

    `kept_mib`: the RAM that it keeps. `vram_out_mib`: how much of that is VRAM which was moved there: nothing is
    promised to the run from here on. `ordered_at_s`: when that was ordered, None where nobody knows. Raises LostRace,
    also for one that was asked to end meanwhile.
    """

    def verb() -> State:
        kept = run.suspension is not None
        values: dict[str, object] = {
            "reason": SUSPENDED_BY_USER if kept else f"suspended: {why}",
            "suspension": KEPT if kept else None,
            "thaw_at_s": run.thaw_at_s if kept else None,
            "paused_for": None,
            "queued_at_s": now_s,
            "not_before_s": 0.0,
            "waiting": None,
        }
        if run.spec.order != "fifo":
            values["turn_s"] = max(now_s, last_turn_s(database, run.priority) + TURN_GAP_S)
        # Its user may have asked for it, or taken that back, since `run` was read.
        unchanged = {"intent": None, "suspension": run.suspension}
        state = move(run.id, run.state, Event.SUSPENDED, run.segment, values, unchanged)
        kept_values = {"kept_mib": kept_mib, "vram_out_mib": vram_out_mib}
        update_rows("segments", kept_values, {"run_id": run.id, "number": run.segment})
        _leaves(run, now_s if ordered_at_s is None else min(ordered_at_s, now_s), now_s)
        return state

    return database.write(verb)


def over(database: Database, run: RunRecord, number: int, reason: str | None = None) -> None:
    """Note that order `number` is over without a suspension. `reason`: why nothing came of it. What its user was told
    is not to happen does not happen later either, from an older copy of the database."""

    def verb(note: requests.Note) -> None:
        update_rows("segments", {"suspensions": number}, {"run_id": run.id, "number": run.segment})
        own = (Run.id == run.id) & (Run.segment == run.segment)
        if Run.update(suspension=None, thaw_at_s=None).where(own & (Run.suspension == ASKED)).execute():
            note(Verb.UNSUSPEND, [run.id])
        if reason is not None:
            Run.update(reason=reason).where(own & Run.intent.is_null()).execute()

    requests.write(database, verb)


def thaw(
    database: Database,
    run: RunRecord,
    worker: str,
    number: int,
    most: int | None,
    now_s: float,
    promise: Promised | None = None,
) -> None:
    """Claim a suspended run: suspended → running, in a slot of `worker`. `number`: of the order that ends with it.

    `most`: how many runs may hold a slot, this one included; None for one that runs already, whatever the row says.
    `promise`: for one whose VRAM is in RAM, which goes on later, see `went_on`. Raises LostRace when the queue was
    drained, the slots or the room were taken, or the run has moved meanwhile.
    """

    def verb() -> None:
        _promise(database, run, promise)
        if most is not None and drain.drained(database) is not None:
            raise LostRace("the queue was drained meanwhile")
        if most is not None and queries.slot_count(database) >= most:
            raise LostRace("the slots were taken meanwhile")
        if requests.behind(database):
            raise LostRace("the database is an older copy: users have asked for more than it knows")
        values = {
            "worker": worker,
            "reason": f"segment {run.segment}, goes on",
            "suspension": None,
            "thaw_at_s": None,
            "waiting": None,
        }
        unchanged = {"intent": None, "suspension": run.suspension, "worker": run.worker}
        move(run.id, State.SUSPENDED, Event.THAWED, run.segment, values, unchanged)
        over_values = {"suspensions": number, "vram_out_mib": None}
        update_rows("segments", over_values, {"run_id": run.id, "number": run.segment})
        if promise is None:
            execute(_WENT_ON, (now_s, run.id, run.segment))
        else:
            execute(_CLAIMED, (now_s, run.id, run.segment))

    database.write(verb)


def went_on(database: Database, run: RunRecord, now_s: float) -> None:
    """Note that a segment has its VRAM again and goes on."""
    database.write(lambda: execute(_WENT_ON, (now_s, run.id, run.segment)))


def promise_again(database: Database, run: RunRecord, promise: Promised) -> None:
    """Promise a suspended run its VRAM again, which is to come back so that the run can save and end. Raises LostRace
    when the room was taken meanwhile."""
    database.write(lambda: _promise(database, run, promise))


def give_back(
    database: Database, run: RunRecord, why: str, vram_out_mib: int, not_before_s: float, now_s: float
) -> State:
    """Note that a claimed run stays suspended: its VRAM found no room, and is promised to it no longer. It keeps its
    place in the queue. `not_before_s`: Unix seconds. Raises LostRace."""

    def verb() -> State:
        values: dict[str, object] = {
            "reason": f"suspended: {why}",
            "not_before_s": not_before_s,
            "paused_for": None,
            "waiting": None,
        }
        state = move(run.id, run.state, Event.SUSPENDED, run.segment, values, {"intent": None})
        update_rows("segments", {"vram_out_mib": vram_out_mib}, {"run_id": run.id, "number": run.segment})
        _leaves(run, now_s, now_s)
        return state

    return database.write(verb)


def promise_after_all(database: Database, run: RunRecord) -> None:
    """Note that the VRAM of a suspended run is on its GPU, where the database says otherwise."""
    database.write(
        lambda: update_rows("segments", {"vram_out_mib": None}, {"run_id": run.id, "number": run.segment})
    )


def vram_stays(database: Database, run: RunRecord, why: str) -> None:
    """Note that the VRAM of a run is not to be moved any more."""
    database.write(lambda: update_rows("runs", {"vram_stays": why}, {"id": run.id}))


def _leaves(run: RunRecord, ordered_at_s: float, now_s: float) -> None:
    """Inside a transaction: note that a segment is without a slot from now on, and was on until it was ordered away."""
    execute(_WENT_ON, (ordered_at_s, run.id, run.segment))
    times = {"ordered_at_s": ordered_at_s, "left_at_s": now_s}
    insert_row("suspensions", {"run_id": run.id, "segment": run.segment, **times})


def _promise(database: Database, run: RunRecord, promise: Promised | None) -> None:
    """Inside a transaction: reserve VRAM for a segment that lives. The serial changes, as with a claim: what was
    decided on the reservations before is void. Raises LostRace."""
    if promise is None:
        return
    if promise.serial != queries.serial(database):
        raise LostRace("another worker promised VRAM meanwhile")
    values = {"promised_mib": promise.mib, "vram_out_mib": None}
    if not update_rows("segments", values, {"run_id": run.id, "number": run.segment, "ended_at_s": None}):
        raise LostRace(f"segment {run.segment} of {run.id} is over")
    execute(_NEXT_SERIAL, (run.id, run.segment))
    execute(_ISSUED, ())
