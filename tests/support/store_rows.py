"""Makes rows for tests of the store: a run in any state, by the verbs that lead there."""

from pathlib import Path

from backprop.scheduler.lifecycle import Event, State
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import CheckpointRecord, RunRecord
from backprop.scheduler.spec import NewRun, QueuePosition, RunSpec
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, enqueue, suspensions, user_requests

SPEC = RunSpec(
    argv=("python", "train.py"), program="/usr/bin/python", cwd="/project", script="/project/train.py"
)
SETTLED = {
    State.COMPLETED: Event.COMPLETED,
    State.FAILED: Event.FAILED,
    State.TIMEBOXED: Event.TIMEBOXED,
    State.STOPPED: Event.STOPPED,
}


def get(database: Database, run_id: str) -> RunRecord:
    run = queries.run_by_id(database, run_id)
    assert run is not None
    return run


def claimed(
    database: Database, run: RunRecord, now_s: float = 2.0, worker: str = "w1", token: str | None = None
) -> RunRecord:
    """Claim a queued run, and return it as it then is. `token`: of the job that it becomes on a cluster."""
    serial, _ = queries.live_segments(database)
    claims.claim(database, [claims.Claim(run=run, worker=worker, serial=serial, token=token)], now_s)
    return get(database, run.id)


def enqueue_run(
    database: Database,
    run_id: str,
    name: str,
    spec: RunSpec,
    now_s: float,
    reason: str = "queued",
    place: QueuePosition = QueuePosition(),  # noqa: B008 - frozen
) -> None:
    """Queue one run."""
    run = NewRun(id=run_id, name=name, spec=spec, place=place)
    enqueue.enqueue_all(database, [run], now_s, reason=reason)


def add_run(
    database: Database, run_id: str, state: State = State.QUEUED, name: str = "train", spec: RunSpec = SPEC
) -> RunRecord:
    """Add a run, and bring it into `state`."""
    enqueue_run(database, run_id, name, spec, 1.0, "queued")
    run = get(database, run_id)
    if state is State.HELD:
        user_requests.hold_run(database, run, "why")
    elif state is not State.QUEUED:
        run = claimed(database, run, token="0" * 16 if state is State.SUBMITTED else None)
        if state is State.PAUSED:
            claims.pause(database, run, "heat", "why")
        elif state is State.SUSPENDED:
            suspensions.suspended(database, run, "why", 100, 3.0)
        elif state in SETTLED:
            claims.apply_result(
                database,
                run,
                NextMove(SETTLED[state], SegmentOutcome(state.value), "why"),
                SegmentResult(),
                3.0,
            )
    return get(database, run_id)


def checkpoint(run_id: str, path: Path | str, segment: int = 1, step: int | None = None) -> CheckpointRecord:
    """Return an accepted checkpoint, with the size and time of the file if it exists."""
    info = Path(path).stat() if Path(path).is_file() else None
    return CheckpointRecord(
        run_id=run_id,
        segment=segment,
        path=str(path),
        step=step,
        size_bytes=info.st_size if info else 1,
        mtime_ns=info.st_mtime_ns if info else 1,
        is_dir=False,
        saved_at_s=1.0,
        refused=None,
    )
