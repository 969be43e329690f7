"""Who moves runs? The verbs that write: each is one short transaction, each move a compare-and-set.

A move is legal if the state table has it, and happens only if the run is still in the state (and, for a live
run, the segment) that the caller saw: check and write cannot be pulled apart by another process. Claims and the
VRAM they promise are made in the same transaction.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from backprop.scheduler.database import Database
from backprop.scheduler.errors import BadCommand, IllegalMove, LostRace
from backprop.scheduler.lifecycle import FINAL, LIVE, Event, State, next_state
from backprop.scheduler.models import Checkpoint, Run, Segment, Worker
from backprop.scheduler.outcome import Ending, Intent, Verdict
from backprop.scheduler.records import CheckpointRecord, RunRecord, Waiting
from backprop.scheduler.spec import RunSpec, encode

KEPT_CHECKPOINTS = 20


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a worker wants to start. `serial`: the admission serial its decision was made on.

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


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a segment said since the last read. Offsets are bytes into its log and its events file."""

    log_from: int
    log_to: int
    events_from: int
    events_to: int
    last_step: int | None = None
    last_loss: float | None = None
    checkpoints: Sequence[CheckpointRecord] = ()
    bad_events: int = 0
    first_output_s: float | None = None


def enqueue(database: Database, run_id: str, name: str, spec: RunSpec, now_s: float, reason: str) -> None:
    """Put a new run into the queue. Raises BadCommand when the id is taken."""
    new = new_run(run_id, name, spec, now_s) | {"reason": reason}

    def verb() -> None:
        known: Any = Run.get_or_none(Run.id == run_id)
        if known is not None:
            if (known.created_at_s, known.spec) == (now_s, new["spec"]):
                return  # this very run: a worker that starts puts in whatever it finds a folder of
            raise BadCommand(
                f"a run with the id {run_id} exists; choose another --run-id, or: backprop resume {run_id}"
            )
        Run.insert(new).execute()

    database.write(verb)


def adopt_foreign(
    database: Database, rows: Sequence[tuple[dict[str, Any], Sequence[CheckpointRecord]]]
) -> list[str]:
    """Insert finished runs from elsewhere, with their checkpoints, in one transaction; ids already here are left
    alone. `rows`: values over `finished_run`'s. Returns the ids inserted."""

    def verb() -> list[str]:
        added: list[str] = []
        for values, saved in rows:
            if Run.select().where(Run.id == values["id"]).exists():
                continue
            Run.insert(values).execute()
            for checkpoint in saved:
                _insert_checkpoint(checkpoint)
            added.append(values["id"])
        return added

    return database.write(verb)


def finished_run(
    run_id: str, name: str, spec: RunSpec, state: State, created_at_s: float, ended_at_s: float
) -> dict[str, Any]:
    """Column values of a run that ended before it came here."""
    base = new_run(run_id, name, spec, created_at_s)
    return base | {"state": state.value, "started_at_s": created_at_s, "ended_at_s": ended_at_s}


def claim(database: Database, wanted: Claim, now_s: float) -> int:
    """queued → running, with its segment row and reservation. Returns the segment's number.

    Call with the run lock held. Raises LostRace when the run has moved, or when any claim was made since
    `wanted.serial` was read, so that no decision rests on outdated reservations.
    """
    run, number = wanted.run, wanted.run.segment + 1

    def verb() -> int:
        from peewee import fn

        serial: Any = Segment.select(fn.MAX(Segment.serial)).scalar()
        if (serial or 0) != wanted.serial:
            raise LostRace("another worker claimed a run meanwhile")
        _move(
            run.id,
            run.state,
            Event.CLAIMED,
            (Run.segment == run.segment),
            worker=wanted.worker,
            segment=number,
            reason=f"segment {number}",
            started_at_s=run.started_at_s or now_s,
            waiting=None,
        )
        Segment.insert(
            run_id=run.id,
            number=number,
            worker=wanted.worker,
            started_at_s=now_s,
            gpu_uuids=json.dumps(wanted.gpu_uuids),
            promised_mib=wanted.promised_mib,
            need_source=wanted.need_source,
            exclusive=wanted.exclusive,
            checkpoint_used=wanted.checkpoint_used,
            steps_from=run.last_step,
            log_offset=0,
            events_offset=0,
            bad_events=0,
        ).execute()
        return number

    return database.write(verb)


def settle(database: Database, run: RunRecord, verdict: Verdict, ending: Ending, now_s: float) -> State:
    """Apply a segment's end to its run: the move, the counters, the segment row. Returns the new state.

    Raises LostRace when somebody settled this segment before.
    """

    def verb() -> State:
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
            "chain_total_s": Run.chain_total_s + ending.running_s,
            "ended_at_s": now_s if target in FINAL else None,
            "paused_for": None,
        }
        if verdict.need_mib is not None:
            values |= {"need_mib": verdict.need_mib, "oom_retries": Run.oom_retries + 1}
        if target is State.QUEUED:
            values |= {
                "queued_at_s": now_s,
                "not_before_s": now_s + verdict.delay_s if verdict.delay_s else 0.0,
            }
        # A stop recorded since the caller looked must not be lost: it decides what this end means.
        unasked = Run.intent.is_null() if run.intent is None else Run.intent == run.intent
        new = _move(run.id, run.state, verdict.event, (Run.segment == run.segment) & unasked, **values)
        Segment.update(
            ended_at_s=now_s,
            outcome=verdict.outcome,
            reason=verdict.reason,
            exit_code=ending.exit_code,
            signal_name=ending.signal_name,
            running_s=ending.running_s,
        ).where(Segment.run_id == run.id, Segment.number == run.segment).execute()
        return new

    return database.write(verb)


def record(database: Database, run_id: str, number: int, heard: Heard) -> bool:
    """Store what a segment said, once: compare-and-set on the offsets read from. False if it was stored before."""

    def verb() -> bool:
        values: dict[str, Any] = {
            "log_offset": heard.log_to,
            "events_offset": heard.events_to,
            "bad_events": Segment.bad_events + heard.bad_events,
        }
        if heard.first_output_s is not None:
            values["first_output_s"] = heard.first_output_s
        here = (Segment.run_id == run_id) & (Segment.number == number)
        at = (Segment.log_offset == heard.log_from) & (Segment.events_offset == heard.events_from)
        if not Segment.update(values).where(here & at).execute():
            return False
        for checkpoint in heard.checkpoints:
            if not _known(checkpoint):
                _insert_checkpoint(checkpoint)
        if heard.checkpoints:
            _forget_old_checkpoints(run_id)
        said = {"last_step": heard.last_step, "last_loss": heard.last_loss}
        news = {key: value for key, value in said.items() if value is not None}
        if news:
            Run.update(news).where(Run.id == run_id).execute()
        return True

    return database.write(verb)


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
    return _simple_move(
        database, run, Event.STOPPED, reason="stopped by the user before it ran on", ended_at_s=now_s
    )


def ask_to_end(database: Database, run: RunRecord, intent: Intent, why: str) -> bool:
    """Record why a live segment is about to be asked to end: YIELD to make room, LIMIT for going beyond its own.
    What was recorded before is not overwritten. False if it was, or the segment is gone."""

    def verb() -> bool:
        here = (Run.id == run.id) & Run.state.in_(list(LIVE)) & (Run.segment == run.segment)
        asked = Run.update(intent=intent, intent_why=why, reason=f"asked to end: {why}")
        return bool(asked.where(here & Run.intent.is_null()).execute())

    return database.write(verb)


def pause(database: Database, run: RunRecord, cause: str, why: str) -> State:
    """running → paused. `cause`: kept while it is. Raises LostRace, IllegalMove."""
    return _simple_move(database, run, Event.PAUSED, reason=f"paused: {why}", paused_for=cause)


def unpause(database: Database, run: RunRecord) -> State:
    """paused → running. Raises LostRace, IllegalMove."""
    return _simple_move(database, run, Event.CONTINUED, reason=f"segment {run.segment}", paused_for=None)


def hold(database: Database, run: RunRecord, why: str) -> State:
    """queued → held, until the user says otherwise. Raises LostRace, IllegalMove."""
    return _simple_move(database, run, Event.HELD, reason=why, waiting=None)


def resume(database: Database, run: RunRecord, spec: RunSpec, pin: str | None, now_s: float) -> State:
    """A final or held run back into the queue, its history kept, its counters at zero.

    `pin`: what the next segment resumes from, as the user said (a path, or "" for from scratch); None for the
    newest good checkpoint. Raises IllegalMove for a run that is queued or live, LostRace.
    """
    event = Event.RELEASED if run.state is State.HELD else Event.RESUMED
    if next_state(run.state, event) is None:
        raise IllegalMove(f"run {run.id} is {run.state}; only a run that has ended or is held can be resumed")
    return _simple_move(
        database,
        run,
        event,
        reason="resumed by the user",
        spec=encode(spec),
        resume_pin=pin,
        queued_at_s=now_s,
        not_before_s=0.0,
        ended_at_s=None,
        chain_start=run.segment,
        chain_total_s=0.0,
        stalled=0,
        retries_used=0,
        lost=0,
        oom_retries=0,
    )


def say_waiting(database: Database, news: Mapping[str, tuple[str, Sequence[Waiting]]]) -> None:
    """Set why queued runs wait, in words and rule by rule, by run id; runs no longer queued are left alone."""

    def verb() -> None:
        for run_id, (reason, waiting) in news.items():
            told = msgspec.json.encode(waiting).decode() if waiting else None
            here = (Run.id == run_id) & (Run.state == State.QUEUED)
            Run.update(reason=reason, waiting=told).where(here).execute()

    database.write(verb)


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


def _simple_move(database: Database, run: RunRecord, event: Event, **values: Any) -> State:
    return database.write(lambda: _move(run.id, run.state, event, (Run.segment == run.segment), **values))


def _move(run_id: str, state: State, event: Event, condition: Any, **values: Any) -> State:
    """The one place where a state changes. Inside a transaction."""
    new = next_state(state, event)
    if new is None:
        raise IllegalMove(f"run {run_id} is {state}: it cannot be {event}")
    values["state"] = new.value
    if not Run.update(values).where((Run.id == run_id) & (Run.state == state) & condition).execute():
        raise LostRace(f"run {run_id} has just moved on; look again: backprop show {run_id}")
    return new


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
        "not_before_s": 0.0,
        "segment": 0,
        "chain_start": 0,
        "chain_total_s": 0.0,
        "stalled": 0,
        "retries_used": 0,
        "lost": 0,
        "oom_retries": 0,
    }


def _known(checkpoint: CheckpointRecord) -> bool:
    """Heard before, from a log that was truncated since: put in again, it would look like the newest."""
    same = (Checkpoint.run_id == checkpoint.run_id) & (Checkpoint.path == checkpoint.path)
    file = (Checkpoint.mtime_ns == checkpoint.mtime_ns) & (Checkpoint.size_bytes == checkpoint.size_bytes)
    said = (Checkpoint.segment == checkpoint.segment) & (Checkpoint.step == checkpoint.step)
    return checkpoint.refused is None and Checkpoint.select().where(same & file & said).exists()


def _insert_checkpoint(checkpoint: CheckpointRecord) -> None:
    Checkpoint.insert(
        run_id=checkpoint.run_id,
        segment=checkpoint.segment,
        path=checkpoint.path,
        step=checkpoint.step,
        size_bytes=checkpoint.size_bytes,
        mtime_ns=checkpoint.mtime_ns,
        is_dir=checkpoint.is_dir,
        saved_at_s=checkpoint.saved_at_s,
        refused=checkpoint.refused,
    ).execute()


def _forget_old_checkpoints(run_id: str) -> None:
    """Keep the newest good and the newest refused claims of a run. Forgets rows only: files are the user's."""
    for kind in (Checkpoint.refused.is_null(), ~Checkpoint.refused.is_null()):
        mine = (Checkpoint.run_id == run_id) & kind
        newest = Checkpoint.select(Checkpoint.serial).where(mine).order_by(Checkpoint.serial.desc())
        Checkpoint.delete().where(mine & Checkpoint.serial.not_in(newest.limit(KEPT_CHECKPOINTS))).execute()
