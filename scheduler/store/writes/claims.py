"""What may the worker that owns a segment write? Claims, pauses, and their ends.

Each verb is one short transaction. Claims and the VRAM they promise are made in the same one.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from backprop.scheduler.errors import LostRace
from backprop.scheduler.faults import Fault
from backprop.scheduler.lifecycle import FINAL, LIVE, Event, Intent, State, next_state
from backprop.scheduler.outcome import NextMove, SegmentResult
from backprop.scheduler.records import RunRecord, Waiting
from backprop.scheduler.store import drain
from backprop.scheduler.store import rows as statements
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.groups import NOTHING, Finished, finished
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.schema import Run, Worker
from backprop.scheduler.store.writes.transitions import move, move_now

TURN_GAP_S: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a worker wants to start. `serial`: the admission serial its decision was made on, the same for all that are
    claimed together.

    `promised_mib` is promised on each GPU of `gpu_uuids`. `checkpoint_used`: absolute path or None.
    """

    run: RunRecord
    worker: str
    serial: int
    gpu_uuids: tuple[str, ...] = ()
    promised_mib: int = 0
    need_source: str = "default"
    exclusive: bool = False
    checkpoint_used: str | None = None


def claim(database: Database, wanted: Sequence[Claim], now_s: float) -> list[int | None]:
    """queued → running, with its segment row and reservation, for all of `wanted`: what was decided on together is
    claimed together. The numbers of their segments; None for a run that has moved meanwhile.

    Call with their locks held. Raises LostRace when the queue was drained, or when anybody has claimed anything since
    `serial` was read, so that no decision rests on outdated reservations.
    """

    def verb() -> list[int | None]:
        if wanted and wanted[0].serial != queries.serial(database):
            raise LostRace("another worker claimed a run meanwhile")
        if drain.drained(database) is not None:
            raise LostRace("the queue was drained meanwhile")
        return [_claim(one, now_s) for one in wanted]

    return database.write(verb)


def _claim(wanted: Claim, now_s: float) -> int | None:
    run, number = wanted.run, wanted.run.segment + 1
    values = {
        "worker": wanted.worker,
        "segment": number,
        "reason": f"segment {number}",
        "started_at_s": run.started_at_s or now_s,
        "waiting": None,
    }
    try:
        move(run.id, run.state, Event.CLAIMED, run.segment, values)
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
    }
    statements.insert("segments", segment)
    return number


@dataclass(frozen=True)
class AppliedMove:
    """What a segment's end has led to. `at_s`: when, Unix seconds. `finished`: what it was the last end of. Exactly one
    end is told so, whoever settles it."""

    state: State
    at_s: float
    finished: Finished = NOTHING


def apply_result(
    database: Database, run: RunRecord, verdict: NextMove, ending: SegmentResult, now_s: float
) -> AppliedMove:
    """Apply a segment's end to its run: the move, the counters, the segment row.

    Raises LostRace when somebody settled this segment before.
    """

    def verb() -> AppliedMove:
        target = next_state(run.state, verdict.event)
        values: dict[str, Any] = {
            "reason": verdict.reason,
            "worker": None,
            "intent": None,
            "intent_why": None,
            "stalled": verdict.stalled,
            "retries_used": verdict.retries_used,
            "lost": verdict.lost,
            "exit_code": ending.exit_code,
            "chain_total_s": run.chain_total_s + ending.running_s,
            "ended_at_s": now_s if target in FINAL else None,
            "paused_for": None,
            "fault": verdict.fault or (run.fault if run.fault == Fault.NAN else None),
        }
        if verdict.need_mib is not None:
            values |= {"need_mib": verdict.need_mib, "oom_retries": run.oom_retries + 1}
        if target is State.QUEUED:
            values |= {
                "queued_at_s": now_s,
                "not_before_s": now_s + verdict.delay_s if verdict.delay_s else 0.0,
            }
            if run.spec.order != "fifo":
                values["turn_s"] = max(now_s, _last_turn_s(database, run.priority) + TURN_GAP_S)
        # A stop recorded since the caller looked must not be lost: it decides what this end means.
        new = move(run.id, run.state, verdict.event, run.segment, values, unchanged={"intent": run.intent})
        ended = {
            "ended_at_s": now_s,
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "exit_code": ending.exit_code,
            "signal_name": ending.signal_name,
            "running_s": ending.running_s,
            "cut_cost_s": ending.cut_cost_s,
        }
        statements.update("segments", ended, {"run_id": run.id, "number": run.segment})
        if new not in FINAL:
            return AppliedMove(new, now_s)
        groups = [run.group_name] if run.group_name is not None else []
        return AppliedMove(new, now_s, finished(database, groups))

    return database.write(verb)


def _last_turn_s(database: Database, priority: int) -> float:
    """The turn of the last in the queue, which is later than now where the clock was set back meanwhile: with a turn
    before all others, a requeued run would be the only one to start until the clock is where it was."""
    asked = "SELECT MAX(turn_s) FROM runs WHERE state = 'queued' AND priority = ?"
    last_s: float | None = database.rows(asked, priority)[0][0]
    return last_s or 0.0


def ask_to_end(database: Database, run: RunRecord, intent: Intent, why: str) -> bool:
    """Record why a live segment is about to be asked to end: YIELD to make room, LIMIT for going beyond its own,
    TIMEBOX for a moment better than its timebox's end.
    What was recorded before is not overwritten. False if it was, or the segment is gone."""

    def verb() -> bool:
        here = (Run.id == run.id) & Run.state.in_(list(LIVE)) & (Run.segment == run.segment)
        asked = Run.update(intent=intent, intent_why=why, reason=f"asked to end: {why}")
        return bool(asked.where(here & Run.intent.is_null()).execute())

    return database.write(verb)


def pause(database: Database, run: RunRecord, cause: str, why: str) -> State:
    """running → paused. `cause`: kept while it is. Raises LostRace, IllegalMove."""
    return move_now(database, run, Event.PAUSED, reason=f"paused: {why}", paused_for=cause)


def unpause(database: Database, run: RunRecord) -> State:
    """paused → running. Raises LostRace, IllegalMove."""
    return move_now(database, run, Event.CONTINUED, reason=f"segment {run.segment}", paused_for=None)


def say_waiting(database: Database, news: Mapping[str, tuple[str, Sequence[Waiting]]]) -> None:
    """Set why queued runs wait, in words and rule by rule, by run id; runs no longer queued are left alone."""

    rows = [
        (reason, msgspec.json.encode(waiting).decode() if waiting else None, run_id)
        for run_id, (reason, waiting) in news.items()
    ]
    database.write(
        lambda: statements.update_each("runs", ("reason", "waiting"), rows, "id = ? AND state = 'queued'")
    )


def change_owner(database: Database, run: RunRecord, worker: str) -> bool:
    """Take over a live run whose worker is dead. False when another worker was faster."""

    def verb() -> bool:
        here = (Run.id == run.id) & (Run.worker == run.worker) & (Run.segment == run.segment)
        return bool(Run.update(worker=worker).where(here & Run.state.in_(list(LIVE))).execute())

    return database.write(verb)


def worker_started(database: Database, worker: str, pid: int, max_parallel: int, now_s: float) -> None:
    """A worker says that it is here; again, after a database that knew it was replaced."""
    values = {"id": worker, "pid": pid, "max_parallel": max_parallel, "started_at_s": now_s}
    database.write(lambda: Worker.insert(values).on_conflict_replace().execute())


def worker_stopped(database: Database, worker: str, now_s: float) -> None:
    """Said by a worker on its way out, or by another one for it, once its lock is free."""
    database.write(lambda: Worker.update(stopped_at_s=now_s).where(Worker.id == worker).execute())
