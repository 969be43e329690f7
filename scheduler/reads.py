"""What does the database say? Queries that change nothing; rows leave as frozen records, in finished lists.

With a rollback journal an unfinished SELECT blocks every writer, so no cursor leaves a function here.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any, Final

import msgspec

from backprop.scheduler import dependencies, groups
from backprop.scheduler.database import Database
from backprop.scheduler.errors import AmbiguousRun, UnknownRun
from backprop.scheduler.lifecycle import LIVE, Intent, State
from backprop.scheduler.models import Checkpoint, Dependency, Run, Segment, Switch, Worker
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord, Waiting, WorkerRecord
from backprop.scheduler.spec import decode

SHOWN_MATCHES: Final = 6


def run_by_id(database: Database, run_id: str) -> RunRecord | None:
    return database.read(lambda: _first(Run.select().where(Run.id == run_id)))


def find_run(database: Database, text: str) -> RunRecord:
    """The run that `text` names: its id, else its name, else a prefix of its id.

    Raises AmbiguousRun listing the ids it could mean, UnknownRun.
    """
    exact = run_by_id(database, text)
    if exact is not None:
        return exact
    by_name = _matches(database, Run.name == text)
    if len(by_name) == 1:
        return by_name[0]
    if by_name:
        raise AmbiguousRun(
            f"{len(by_name)}{_more(by_name)} runs are named {text}: {_ids(by_name)}; say which by id"
        )
    by_prefix = _matches(database, Run.id.startswith(text)) if text else []
    if len(by_prefix) == 1:
        return by_prefix[0]
    if by_prefix:
        raise AmbiguousRun(
            f"{len(by_prefix)}{_more(by_prefix)} ids begin with {text}: {_ids(by_prefix)}; give more of it"
        )
    raise UnknownRun(f"no run has the id or name {text}; see: backprop list")


def list_runs(database: Database, limit: int | None = None) -> list[RunRecord]:
    """Runs, newest first; all of them when `limit` is None."""
    query = Run.select().order_by(Run.created_at_s.desc(), Run.id).limit(limit)
    return database.read(lambda: [_run(row) for row in query])


def queue(database: Database, now_s: float, limit: int = 200) -> list[RunRecord]:
    """The first `limit` queued runs that may be claimed at `now_s` (Unix seconds), in queue order: their time has
    come, what they depend on is done, and their group may start another member."""

    def query() -> list[RunRecord]:
        from peewee import fn

        ripe = Run.select().where(Run.state == State.QUEUED, Run.not_before_s <= now_s)
        if full := groups.full():
            ripe = ripe.where(Run.group_name.is_null() | Run.group_name.not_in(full))
        if Dependency.select().limit(1).exists():
            ripe = ripe.where(~fn.EXISTS(dependencies.unmet()))
        return [_run(row) for row in ripe.order_by(Run.priority.desc(), Run.turn_s, Run.id).limit(limit)]

    return database.read(query)


def drained(database: Database) -> tuple[str, float] | None:
    """(why, since when in Unix seconds) nothing is to be started; None when the queue is open."""
    rows = database.read(lambda: list(Switch.select().where(Switch.name == "drained")))
    return (rows[0].why, rows[0].since_s) if rows else None


def live_runs(database: Database) -> list[RunRecord]:
    """Runs that may have processes: running or paused, whoever claimed them."""
    return database.read(lambda: [_run(row) for row in Run.select().where(Run.state.in_(list(LIVE)))])


def state_counts(database: Database) -> dict[State, int]:
    """How many runs are in each state; states without a run are missing."""

    def query() -> dict[State, int]:
        from peewee import fn

        rows: Any = Run.select(Run.state, fn.COUNT(Run.id)).group_by(Run.state).tuples()
        return {State(state): count for state, count in rows}

    return database.read(query)


def next_due_s(database: Database) -> float | None:
    """When the first queued run may be claimed (Unix seconds); None when nothing is queued."""

    def query() -> float | None:
        from peewee import fn

        value: Any = Run.select(fn.MIN(Run.not_before_s)).where(Run.state == State.QUEUED).scalar()
        return value

    return database.read(query)


def segments(database: Database, run_id: str) -> list[SegmentRecord]:
    query = Segment.select().where(Segment.run_id == run_id).order_by(Segment.number)
    return database.read(lambda: [_segment(row) for row in query])


def segment(database: Database, run_id: str, number: int) -> SegmentRecord | None:
    rows = database.read(
        lambda: list(Segment.select().where(Segment.run_id == run_id, Segment.number == number))
    )
    return _segment(rows[0]) if rows else None


def live_segments(database: Database) -> tuple[int, list[SegmentRecord]]:
    """(admission serial, unfinished segments). The serial changes with every claim: `claims.claim` takes it back
    to prove that the decision was made on the current reservations."""

    def query() -> tuple[int, list[SegmentRecord]]:
        from peewee import fn

        serial: Any = Segment.select(fn.MAX(Segment.serial)).scalar()
        rows = list(Segment.select().where(Segment.ended_at_s.is_null()).order_by(Segment.serial))
        return serial or 0, [_segment(row) for row in rows]

    return database.read(query)


def checkpoints(database: Database, run_id: str) -> list[CheckpointRecord]:
    """Announced checkpoints of a run, newest first, refused ones included."""
    query = Checkpoint.select().where(Checkpoint.run_id == run_id).order_by(Checkpoint.serial.desc())
    return database.read(lambda: [_checkpoint(row) for row in query])


def newest_checkpoints(database: Database, run_ids: list[str]) -> dict[str, str]:
    """The path of the newest checkpoint that was not refused, by run id; runs without one are missing."""

    def query() -> dict[str, str]:
        from peewee import chunked, fn

        found: dict[str, str] = {}
        for ids in chunked(run_ids, 500):
            mine = Checkpoint.run_id.in_(list(ids)) & Checkpoint.refused.is_null()
            newest: Any = Checkpoint.select(fn.MAX(Checkpoint.serial)).where(mine).group_by(Checkpoint.run_id)
            rows: Any = (
                Checkpoint.select(Checkpoint.run_id, Checkpoint.path)
                .where(Checkpoint.serial.in_(newest))
                .tuples()
            )
            found |= dict(list(rows))
        return found

    return database.read(query)


def workers(database: Database) -> list[WorkerRecord]:
    """Workers that have not said goodbye. Whether one is alive, its lock tells."""
    query = Worker.select().where(Worker.stopped_at_s.is_null()).order_by(Worker.started_at_s)
    return database.read(lambda: [_worker(row) for row in query])


def _matches(database: Database, condition: Any) -> list[RunRecord]:
    query = Run.select().where(condition).order_by(Run.created_at_s.desc()).limit(SHOWN_MATCHES + 1)
    return database.read(lambda: [_run(row) for row in query])


def _more(found: list[RunRecord]) -> str:
    return "+" if len(found) > SHOWN_MATCHES else ""


def _ids(found: list[RunRecord]) -> str:
    return ", ".join(f"{run.id} ({run.state})" for run in found[:SHOWN_MATCHES])


def _first(query: Any) -> RunRecord | None:
    rows = list(query)
    return _run(rows[0]) if rows else None


def _run(row: Any) -> RunRecord:
    values: dict[str, Any] = dict(row.__data__)
    values["state"] = State(values["state"])
    values["intent"] = Intent(values["intent"]) if values["intent"] else None
    values["spec"] = decode(values["spec"])
    values["waiting"] = msgspec.json.decode(values["waiting"] or "[]", type=tuple[Waiting, ...])
    del values["script"]
    return RunRecord(**values)


def _segment(row: Any) -> SegmentRecord:
    values: dict[str, Any] = dict(row.__data__)
    del values["serial"]
    values["gpu_uuids"] = tuple(msgspec.json.decode(values["gpu_uuids"], type=list[str]))
    return SegmentRecord(**values)


def _checkpoint(row: Any) -> CheckpointRecord:
    values: dict[str, Any] = dict(row.__data__)
    del values["serial"]
    return CheckpointRecord(**values)


def _worker(row: Any) -> WorkerRecord:
    return WorkerRecord(**row.__data__)
