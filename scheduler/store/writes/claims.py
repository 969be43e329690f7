"""Claims runs, and writes what the worker that owns a segment may write: its pauses, its end, its wishes.

Each verb is one short transaction. A claim and the VRAM that it reserves are written in the same one.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from peewee import fn

from backprop.scheduler.errors import LostRace
from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.lifecycle import FINAL, HAS_PROCESSES, Event, Intent, State, next_state
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import KEPT, SUSPECT, RunRecord, Waiting
from backprop.scheduler.store import drain, requests
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.groups import NOTHING, Finished, finished
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.rows import insert_row, update_each, update_rows
from backprop.scheduler.store.schema import Checkpoint, Run, Segment, Worker
from backprop.scheduler.store.writes.transitions import move, move_now

TURN_GAP_S: Final = 1e-6


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One run that a worker wants to start.

    `serial`: the admission serial that the decision was made on, the same for all that are claimed together.
    `promised_mib`: VRAM reserved on each GPU of `gpu_uuids`. `checkpoint_used`: absolute path or None. `token`: of the
    job that its segment is on the run's cluster; None on this machine.
    """

    run: RunRecord
    worker: str
    serial: int
    gpu_uuids: tuple[str, ...] = ()
    promised_mib: int = 0
    need_source: str = "default"
    exclusive: bool = False
    checkpoint_used: str | None = None
    token: str | None = None


def claim(database: Database, wanted: Sequence[Claim], now_s: float) -> list[int | None]:
    """Claim all of `wanted`: queued → running, or submitted, each with its segment row and reservation.

    What was decided on together is claimed together. Returns the numbers of their segments, None for a run that
    changed its state meanwhile. Call with the locks of the runs held. Raises LostRace when the queue was drained, or
    when any worker has claimed a run since `serial` was read, so that no decision rests on outdated reservations.
    """

    def verb() -> list[int | None]:
        if wanted and wanted[0].serial != queries.serial(database):
            raise LostRace("another worker claimed a run meanwhile")
        if drain.drained(database) is not None:
            raise LostRace("the queue was drained meanwhile")
        if wanted and requests.behind(database):
            raise LostRace("the database is an older copy: users have asked for more than it knows")
        return [_claim_one(request, now_s) for request in wanted]

    return database.write(verb)


def _claim_one(wanted: Claim, now_s: float) -> int | None:
    run, number = wanted.run, wanted.run.segment + 1
    values = {
        "worker": wanted.worker,
        "segment": number,
        "boxes": run.boxes + 1,
        "reason": f"segment {number}"
        if wanted.token is None
        else f"segment {number}: to be handed to {run.cluster}",
        "started_at_s": run.started_at_s or now_s,
        "waiting": None,
        "suspension": None,
        "thaw_at_s": None,
    }
    try:
        event = Event.CLAIMED if wanted.token is None else Event.SUBMITTED
        move(run.id, run.state, event, run.segment, values, {"cluster": run.cluster})
    except LostRace:
        return None
    segment = {
        "run_id": run.id,
        "number": number,
        "worker": wanted.worker,
        "started_at_s": now_s,
        "gpu_uuids": json.dumps(wanted.gpu_uuids),
        "promised_mib": wanted.promised_mib,
        "need_source": wanted.need_source,
        "exclusive": wanted.exclusive,
        "checkpoint_used": wanted.checkpoint_used,
        "steps_from": run.last_step,
        "log_offset": 0,
        "events_offset": 0,
        "bad_events": 0,
        "cluster": run.cluster,
        "token": wanted.token,
    }
    insert_row("segments", segment)
    return number


def begun(database: Database, run: RunRecord, begun_at_s: float, node: str | None, job: str | None) -> State:
    """Note that a submitted segment has begun on a node of its cluster. Raises LostRace, IllegalMove."""

    def verb() -> State:
        state = move(
            run.id, run.state, Event.BEGUN, run.segment, {"reason": f"segment {run.segment} on {node}"}
        )
        seen = {"begun_at_s": begun_at_s, "started_at_s": begun_at_s, "node": node, "job": job}
        update_rows("segments", seen, {"run_id": run.id, "number": run.segment})
        return state

    return database.write(verb)


def note_job(database: Database, run: RunRecord, job: str | None, words: str) -> None:
    """Note what a cluster says of a live segment's job: its number, and words for its user."""

    def verb() -> None:
        update_rows(
            "segments", {"job": job, "engine_words": words}, {"run_id": run.id, "number": run.segment}
        )
        waits = (Run.id == run.id) & (Run.state == State.SUBMITTED) & (Run.segment == run.segment)
        Run.update(reason=f"{run.cluster}: {words}").where(waits & Run.intent.is_null()).execute()

    database.write(verb)


class AppliedMove(msgspec.Struct, frozen=True):
    """What a segment's end has led to. `at_s`: when, Unix seconds. `finished`: groups (or the queue) that this end
    completed; exactly one end has it, whoever applies it."""

    state: State
    at_s: float
    finished: Finished = NOTHING


def apply_result(
    database: Database, run: RunRecord, decision: NextMove, ending: SegmentResult, now_s: float
) -> AppliedMove:
    """Apply a segment's end to its run: the move, the counters, the segment row.

    `decision`: with its advice in the reason, see `outcome.with_advice`. Raises LostRace when somebody applied the end
    of this segment before, or an intent was recorded since `run` was read.
    """

    def verb() -> AppliedMove:
        target = next_state(run.state, decision.event)
        values: dict[str, Any] = {
            "reason": decision.reason,
            "worker": None,
            "intent": None,
            "intent_why": None,
            "stalled": decision.stalled,
            "retries_used": decision.retries_used,
            "lost": decision.lost,
            "host_faults": decision.host_faults,
            "exit_code": ending.exit_code,
            "chain_total_s": run.chain_total_s + ending.running_s,
            "ended_at_s": now_s if target in FINAL else None,
            "paused_for": None,
            "suspension": KEPT if decision.kept else None,
            "thaw_at_s": decision.kept_until_s,
            "waiting": None,
            "fault": decision.fault or (run.fault if run.fault == Fault.NAN else None),
        }
        if decision.need_mib is not None:
            values |= {"need_mib": decision.need_mib, "oom_retries": run.oom_retries + 1}
        if target is State.QUEUED:
            values |= {
                "queued_at_s": now_s,
                "not_before_s": max(
                    now_s + decision.delay_s if decision.delay_s else 0.0, decision.kept_until_s or 0.0
                ),
            }
            if run.spec.order != "fifo":
                last_s = last_turn_s(database, run.priority, run.cluster)
                values["turn_s"] = max(now_s, last_s + TURN_GAP_S)
        # A stop recorded since the caller looked must not be lost: it decides what this end means.
        # So must no wish to have it suspended, or to let it go on.
        unchanged = {"intent": run.intent, "suspension": run.suspension, "thaw_at_s": run.thaw_at_s}
        new = move(run.id, run.state, decision.event, run.segment, values, unchanged)
        ended = {
            "ended_at_s": now_s,
            "outcome": decision.outcome,
            "reason": decision.reason,
            "exit_code": ending.exit_code,
            "signal_name": ending.signal_name,
            "running_s": ending.running_s,
            "cut_cost_s": ending.cut_cost_s,
        }
        update_rows("segments", ended, {"run_id": run.id, "number": run.segment})
        _suspect(run, decision)
        if new not in FINAL:
            return AppliedMove(new, now_s)
        groups = [run.group_name] if run.group_name is not None else []
        return AppliedMove(new, now_s, finished(database, groups))

    return database.write(verb)


def _suspect(run: RunRecord, decision: NextMove) -> None:
    """Keep the newest checkpoint at a path from the next segments, or give all such ones back."""
    own = Checkpoint.run_id == run.id
    if decision.acquits:
        Checkpoint.update(refused=None).where(own & Checkpoint.refused.startswith(SUSPECT)).execute()
    if decision.suspect is None:
        return
    good = own & (Checkpoint.path == decision.suspect) & Checkpoint.refused.is_null()
    newest = Checkpoint.select(fn.MAX(Checkpoint.serial)).where(good)
    why = f"{SUSPECT}segment {run.segment} failed at once when it was given this"
    Checkpoint.update(refused=why).where(Checkpoint.serial == newest).execute()


def last_turn_s(database: Database, priority: int, cluster: str | None = None) -> float:
    """Return the turn of the last in the queue, which is later than now where the clock was set back meanwhile.

    With a turn before all others, a requeued run would be the only one to start until the clock is where it was.
    """
    query = "SELECT MAX(turn_s) FROM runs WHERE state = ? AND cluster IS ? AND priority = ?"
    states = ("queued", "suspended")
    return max(database.rows(query, state, cluster, priority)[0][0] or 0.0 for state in states)


def ask_to_end(database: Database, run: RunRecord, intent: Intent, why: str) -> bool:
    """Record why a live segment is about to be asked to end.

    YIELD to make room, LIMIT for going beyond its own, TIMEBOX for a moment better than its timebox's end. Returns
    False if an intent was recorded before, which is not overwritten, or if the segment is gone.
    """

    def verb() -> bool:
        alive = (Run.id == run.id) & Run.state.in_(list(HAS_PROCESSES)) & (Run.segment == run.segment)
        update = Run.update(intent=intent, intent_why=why, reason=f"stopping: {why}")
        return bool(update.where(alive & Run.intent.is_null()).execute())

    return database.write(verb)


def renew(database: Database, run: RunRecord, box: int, reason: str) -> None:
    """Note that a live segment is in its box number `box`, and why it goes on. Nothing, where that is known or the
    segment is gone."""

    def verb() -> None:
        own = (Segment.run_id == run.id) & (Segment.number == run.segment)
        row = Segment.select(Segment.boxes).where(own & Segment.ended_at_s.is_null()).get_or_none()
        if row is None or row.boxes >= box:
            return
        alive = (Run.id == run.id) & Run.state.in_(list(HAS_PROCESSES)) & (Run.segment == run.segment)
        more = Run.update(boxes=Run.boxes + box - row.boxes, reason=reason)
        if more.where(alive & Run.intent.is_null()).execute():
            Segment.update(boxes=box).where(own).execute()

    database.write(verb)


def explain(database: Database, run: RunRecord, reason: str) -> None:
    """Say why a live segment goes on as it does."""

    def verb() -> None:
        alive = (Run.id == run.id) & (Run.state == State.RUNNING) & (Run.segment == run.segment)
        Run.update(reason=reason).where(alive & Run.intent.is_null()).execute()

    database.write(verb)


def pause(database: Database, run: RunRecord, cause: str, why: str) -> State:
    """Note that a running run is paused. `cause`: kept as `paused_for` meanwhile. Raises LostRace, IllegalMove."""
    return move_now(database, run, Event.PAUSED, reason=f"paused: {why}", paused_for=cause)


def unpause(database: Database, run: RunRecord) -> State:
    """Note that a paused run is running again. Raises LostRace, IllegalMove."""
    return move_now(database, run, Event.CONTINUED, reason=f"segment {run.segment}", paused_for=None)


def record_waiting_reasons(database: Database, reasons: Mapping[str, tuple[str, Sequence[Waiting]]]) -> None:
    """Set why queued and suspended runs wait, by run id, in words and rule by rule; other runs are left alone."""
    rows = [
        (reason, msgspec.json.encode(waiting).decode() if waiting else None, run_id)
        for run_id, (reason, waiting) in reasons.items()
    ]
    database.write(
        lambda: update_each(
            "runs", ("reason", "waiting"), rows, "id = ? AND state IN ('queued', 'suspended')"
        )
    )


def change_owner(database: Database, run: RunRecord, worker: str) -> bool:
    """Take over a live run whose worker is dead. Returns False when another worker was faster."""

    def verb() -> bool:
        unchanged = (Run.id == run.id) & (Run.worker == run.worker) & (Run.segment == run.segment)
        return bool(Run.update(worker=worker).where(unchanged & Run.state.in_(list(HAS_PROCESSES))).execute())

    return database.write(verb)


def worker_started(
    database: Database,
    worker: str,
    pid: int,
    max_parallel: int,
    now_s: float,
    active_hours: Sequence[str] = (),
) -> None:
    """Record a worker that has started; again, after a database that knew it was replaced."""
    hours = msgspec.json.encode(active_hours).decode()
    values = {
        "id": worker,
        "pid": pid,
        "max_parallel": max_parallel,
        "started_at_s": now_s,
        "active_hours": hours,
    }
    database.write(lambda: Worker.insert(values).on_conflict_replace().execute())


def worker_stopped(database: Database, worker: str, now_s: float) -> None:
    """Record that a worker has ended: by itself on its way out, or by another one once its lock is free."""
    database.write(lambda: Worker.update(stopped_at_s=now_s).where(Worker.id == worker).execute())
