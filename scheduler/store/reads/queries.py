"""Reads runs, segments, checkpoints and workers; rows leave as frozen records, in finished lists.

With a rollback journal an unfinished SELECT blocks every writer, so no cursor leaves a function here.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

from backprop.scheduler.config.choices import Secrets
from backprop.scheduler.errors import AmbiguousRun, UnknownRun
from backprop.scheduler.lifecycle import FINAL, HAS_PROCESSES, HOLDS_A_SLOT, State
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord, WorkerRecord
from backprop.scheduler.store import dependencies
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.rows import (
    SELECT_CHECKPOINTS,
    SELECT_RUNS,
    SELECT_SEGMENTS,
    checkpoint_from,
    listed,
    run_from,
    run_of,
    segment_from,
    worker_of,
)
from backprop.scheduler.store.schema import Checkpoint, Run, Worker

SHOWN_MATCHES: Final = 6
_NEWEST: Final = re.compile(r"@(?:~([0-9]{1,9}))?")
_GROUP_ROOM: Final = f"""
    SELECT name, max_parallel - (
        SELECT COUNT(*) FROM runs AS member
        WHERE member.group_name = groups.name AND member.state IN {listed(HOLDS_A_SLOT)}) AS room
    FROM groups WHERE max_parallel IS NOT NULL"""
_ROOM_IN_GROUP: Final = (
    f"(group_name IS NULL OR group_name NOT IN (SELECT name FROM ({_GROUP_ROOM}) WHERE room <= 0))"
)
_IS_DUE: Final = "(not_before_s <= :now_s OR (segment > 0 AND queued_at_s > :now_s + 1))"
"""A retry that was queued later than it is now: the clock was set back, and would have it wait for the whole jump."""
_QUEUED: Final = "state = 'queued' AND cluster IS :cluster"
_MAY_THAW: Final = (
    "state = 'suspended' AND cluster IS :cluster AND intent IS NULL"
    " AND (suspension IS NULL OR thaw_at_s <= :now_s)"
)
"""A suspended run waits for its turn like a queued one, unless its user keeps it as it is."""
_FULL_GROUPS: Final = (
    f"SELECT DISTINCT group_name FROM runs WHERE ({_QUEUED} OR {_MAY_THAW}) AND {_IS_DUE}"
    f" AND group_name IN (SELECT name FROM ({_GROUP_ROOM}) WHERE room <= 0)"
    f" AND NOT EXISTS ({dependencies.UNSATISFIED})"
)
_BEHIND: Final = (
    " AND (priority < :priority OR (priority = :priority"
    " AND (turn_s > :turn_s OR (turn_s = :turn_s AND id > :id))))"
)
_QUEUE: Final = (
    f"{SELECT_RUNS} WHERE {{state}}{{behind}} AND {_IS_DUE} AND {_ROOM_IN_GROUP}"
    f" AND NOT EXISTS ({dependencies.UNSATISFIED}){{among}} ORDER BY priority DESC, turn_s, id LIMIT :limit"
)
_HELD_FOR: Final = (
    f"{SELECT_RUNS} WHERE state = 'held' AND waiting IS NOT NULL AND (queued_at_s, id) > (?, ?)"
    " ORDER BY queued_at_s, id LIMIT ?"
)
_SCRUBS: Final = f"""instr(spec, '"secrets":"{Secrets.SCRUB}"')"""
_TO_SCRUB: Final = (
    f"SELECT id, segment, batch FROM runs WHERE ended_at_s >= ? AND state IN {listed(FINAL)} AND {_SCRUBS}"
)
_BATCH_WAITS: Final = f"SELECT 1 FROM runs WHERE batch = ? AND state NOT IN {listed(FINAL)} LIMIT 1"
_ROTATING: Final = """
    SELECT id FROM runs WHERE (ended_at_s IS NULL OR ended_at_s >= ?) AND segment > 0
    AND instr(spec, '"keep_checkpoints":') AND NOT instr(spec, '"keep_checkpoints":null')
"""
_NEXT_DUE: Final = (
    "SELECT MIN(CASE state WHEN 'queued' THEN not_before_s ELSE COALESCE(thaw_at_s, 0) END) FROM runs"
    " WHERE (state = 'queued' OR (state = 'suspended' AND (suspension IS NULL OR thaw_at_s IS NOT NULL)))"
    f" AND NOT EXISTS ({dependencies.UNSATISFIED})"
)
_LIVE: Final = f"{SELECT_RUNS} WHERE state IN {listed(HAS_PROCESSES)}"
_SLOT_COUNT: Final = f"SELECT COUNT(*) FROM runs WHERE state IN {listed(HOLDS_A_SLOT)} AND cluster IS ?"
_CLUSTERS: Final = (
    "SELECT DISTINCT cluster FROM runs"
    f" WHERE state IN {listed(HAS_PROCESSES | {State.QUEUED})} AND cluster IS NOT NULL"
)
_KEPT_MIB: Final = (
    "SELECT COALESCE(kept_mib, 0) FROM runs JOIN segments ON run_id = id AND number = segment"
    " WHERE state = 'suspended'"
)
_SUSPENDED: Final = "SELECT id FROM runs WHERE state = 'suspended'"
_BY_USERS: Final = "SELECT id FROM runs WHERE suspension IS NOT NULL"
_COUNTS: Final = f"""
    SELECT state, COUNT(*) FROM runs WHERE state IN {listed(set(State) - {State.COMPLETED})} GROUP BY state
    UNION ALL SELECT '{State.COMPLETED.value}', (SELECT COUNT(*) FROM runs)"""
"""How many runs are in each state; beside `completed`: how many there are in all, which SQLite counts by the page."""
_ALIVE: Final = f"{SELECT_SEGMENTS} WHERE ended_at_s IS NULL ORDER BY serial"


def run_by_id(database: Database, run_id: str) -> RunRecord | None:
    """Return the run with this very id; None when there is none."""
    rows = database.rows(f"{SELECT_RUNS} WHERE id = ?", run_id)
    return run_from(rows[0]) if rows else None


def runs_by_id(database: Database, run_ids: Sequence[str]) -> list[RunRecord]:
    """Return those of these runs that exist, in the order given."""

    def query() -> dict[str, RunRecord]:
        from peewee import chunked

        return {
            row.id: run_of(row)
            for ids in chunked(run_ids, 500)
            for row in Run.select().where(Run.id.in_(list(ids)))
        }

    runs = database.read(query)
    return [runs[run_id] for run_id in run_ids if run_id in runs]


def find_run(database: Database, text: str) -> RunRecord:
    """Return the run that `text` names: by its id, else its name, else a prefix of its id.

    Raises AmbiguousRun listing the ids it could mean, UnknownRun.
    """
    newest = _NEWEST.fullmatch(text)
    if newest is not None:
        return _newest(database, text, int(newest[1] or 0))
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
    # A range, which the index answers: LIKE ignores case and reads every row.
    begins = (Run.id >= text) & (Run.id < text + "\U0010ffff")
    by_prefix = _matches(database, begins) if text else []
    if len(by_prefix) == 1:
        return by_prefix[0]
    if by_prefix:
        raise AmbiguousRun(
            f"{len(by_prefix)}{_more(by_prefix)} ids begin with {text}: {_ids(by_prefix)}; give more of it"
        )
    raise UnknownRun(f"no run has the id or name {text}; see: backprop list")


def any_id_begins(database: Database, prefix: str) -> bool:
    """Return whether a run's id begins with `prefix`. By the range of ids: LIKE would read every row."""
    beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return database.read(lambda: Run.select().where(Run.id >= prefix, Run.id < beyond).limit(1).exists())


def list_runs(database: Database, limit: int | None = None) -> list[RunRecord]:
    """Return runs, newest first; all of them when `limit` is None."""
    query = Run.select().order_by(Run.created_at_s.desc(), Run.id).limit(limit)
    return database.read(lambda: [run_of(row) for row in query])


def queue(
    database: Database,
    now_s: float,
    limit: int | None = None,
    only: Collection[str] | None = None,
    after: RunRecord | None = None,
    cluster: str | None = None,
) -> list[RunRecord]:
    """Return the first `limit` queued and suspended runs of `cluster`, None for those of this machine, that may go on
    at `now_s` (Unix seconds), in queue order.

    Their time has come, their dependencies are met, and their group may start another member. `limit`
    None: all. `only`: of these ids. `after`: of those behind the place of this run.
    """
    limited = -1 if limit is None else limit
    values: dict[str, object] = {"now_s": now_s, "limit": limited, "cluster": cluster}
    values |= {f"only_{number}": run_id for number, run_id in enumerate(only or ())}
    among = f" AND id IN ({', '.join(f':only_{n}' for n in range(len(only)))})" if only is not None else ""
    if after is not None:
        values |= {"priority": after.priority, "turn_s": after.turn_s, "id": after.id}
    behind = _BEHIND if after is not None else ""

    def query() -> list[RunRecord]:
        # One state at a time: SQLite walks its index in order then, where it would sort the whole queue for two.
        asked = [_QUEUE.format(state=state, among=among, behind=behind) for state in (_QUEUED, _MAY_THAW)]
        return [run_from(row) for sql in asked for row in database.rows(sql, values)]

    found = database.read(query)
    return sorted(found, key=lambda run: (-run.priority, run.turn_s, run.id))[:limit]


def held_for_something(database: Database, limit: int, after: RunRecord | None = None) -> list[RunRecord]:
    """Return the first `limit` held runs that are released by themselves once what they are held for is over, the
    oldest first. `after`: of those behind this one."""
    beyond = (after.queued_at_s, after.id) if after is not None else (0.0, "")
    return [run_from(row) for row in database.rows(_HELD_FOR, *beyond, limit)]


def serial(database: Database) -> int:
    """Return the admission serial, which changes with every reservation of any worker."""
    newest: int | None = database.rows("SELECT MAX(serial) FROM segments")[0][0]
    return newest or 0


def issued_serial(database: Database) -> int:
    """Return the highest admission serial ever, of runs since removed too."""
    rows = database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'segments'")
    return int(rows[0][0]) if rows else 0


def group_room(database: Database) -> dict[str, int]:
    """Return how many more members may be started of each group that has a cap."""
    return dict(database.rows(_GROUP_ROOM))


def full_groups(database: Database, now_s: float) -> set[str]:
    """Return the groups that have reached their cap and have members waiting that are due on this machine."""
    return {name for (name,) in database.rows(_FULL_GROUPS, {"now_s": now_s, "cluster": None})}


def live_runs(database: Database) -> list[RunRecord]:
    """Return the runs that may have processes: submitted, running, paused or suspended, of any worker."""
    return [run_from(row) for row in database.rows(_LIVE)]


def slot_count(database: Database, cluster: str | None = None) -> int:
    """Return how many runs of any worker hold a slot of this machine: running or paused. `cluster`: how many are jobs
    there, waiting ones included."""
    count: int = database.rows(_SLOT_COUNT, cluster)[0][0]
    return count


def clusters(database: Database) -> list[str]:
    """Return the clusters that have queued or live runs."""
    return sorted(name for (name,) in database.rows(_CLUSTERS))


def cluster_counts(database: Database, cluster: str) -> dict[State, int]:
    """Return how many runs of a cluster are in each state."""
    query = "SELECT state, COUNT(*) FROM runs WHERE cluster = ? GROUP BY state"
    return {State(state): count for state, count in database.rows(query, cluster)}


def suspended(database: Database) -> frozenset[str]:
    """Return the ids of the suspended runs, of any worker."""
    return frozenset(run_id for (run_id,) in database.rows(_SUSPENDED))


def suspended_by_users(database: Database) -> frozenset[str]:
    """Return the ids of the runs that their users have suspended, or want to be, whatever their states."""
    return frozenset(run_id for (run_id,) in database.rows(_BY_USERS))


def kept_by_suspended(database: Database) -> list[int]:
    """Return the RAM in MiB that each suspended run keeps, of any worker; 0 where that is unknown."""
    return [mib for (mib,) in database.rows(_KEPT_MIB)]


def state_counts(database: Database) -> dict[State, int]:
    """Return how many runs are in each state; states without a run are missing."""
    found = {State(state): count for state, count in database.rows(_COUNTS)}
    # Most have completed, in the end a million: to count those would take six times as long as to count all.
    found[State.COMPLETED] = 2 * found[State.COMPLETED] - sum(found.values())
    return {state: count for state, count in sorted(found.items()) if count}


def next_due_s(database: Database) -> float | None:
    """Return when the first queued or suspended run may go on (Unix seconds); None when none may by itself.

    A run that waits for a held one or for an unsatisfiable dependency may not.
    """
    due_s: float | None = database.rows(_NEXT_DUE)[0][0]
    return due_s


def segments(database: Database, run_id: str) -> list[SegmentRecord]:
    """Return the segments of a run, oldest first."""
    rows = database.rows(f"{SELECT_SEGMENTS} WHERE run_id = ? ORDER BY number", run_id)
    return [segment_from(row) for row in rows]


def segment(database: Database, run_id: str, number: int) -> SegmentRecord | None:
    """Return one segment of a run; None when there is none of that number."""
    rows = database.rows(f"{SELECT_SEGMENTS} WHERE run_id = ? AND number = ?", run_id, number)
    return segment_from(rows[0]) if rows else None


def live_segments(database: Database) -> tuple[int, list[SegmentRecord]]:
    """Return the admission serial and the unfinished segments.

    `claims.claim` takes the serial to prove that a decision was made on the current reservations.
    """

    def query() -> tuple[int, list[SegmentRecord]]:
        # The serial first: a claim made in between then makes the proof fail, not succeed.
        return serial(database), [segment_from(row) for row in database.rows(_ALIVE)]

    return database.read(query)


def checkpoints(database: Database, run_id: str) -> list[CheckpointRecord]:
    """Return the checkpoints of a run, newest first, refused ones included."""
    rows = database.rows(f"{SELECT_CHECKPOINTS} WHERE run_id = ? ORDER BY serial DESC", run_id)
    return [checkpoint_from(row) for row in rows]


def newest_checkpoints(database: Database, run_ids: list[str]) -> dict[str, str]:
    """Return the path of the newest checkpoint that was not refused, by run id; runs without one are missing."""

    def query() -> dict[str, str]:
        from peewee import chunked, fn

        paths: dict[str, str] = {}
        for ids in chunked(run_ids, 500):
            good = Checkpoint.run_id.in_(list(ids)) & Checkpoint.refused.is_null()
            newest: Any = Checkpoint.select(fn.MAX(Checkpoint.serial)).where(good).group_by(Checkpoint.run_id)
            rows: Any = (
                Checkpoint.select(Checkpoint.run_id, Checkpoint.path)
                .where(Checkpoint.serial.in_(newest))
                .tuples()
            )
            paths |= dict(list(rows))
        return paths

    return database.read(query)


def rotating(database: Database, since_s: float) -> list[str]:
    """Return the runs that keep a number of checkpoints, and wait or have ended since then (Unix seconds)."""
    return [run_id for (run_id,) in database.rows(_ROTATING, since_s)]


def to_scrub(database: Database, since_s: float) -> list[tuple[str, int, str | None]]:
    """Return the runs, each with its last segment and its batch, that have ended since then (Unix seconds) and whose
    credentials are to be removed then."""
    return list(database.rows(_TO_SCRUB, since_s))


def batch_waits(database: Database, batch: str) -> bool:
    """Return whether a run of a batch has not ended."""
    return bool(database.rows(_BATCH_WAITS, batch))


def scrubbing(database: Database) -> frozenset[str]:
    """Return the runs whose credentials are removed at their ends."""
    return frozenset(run_id for (run_id,) in database.rows(f"SELECT id FROM runs WHERE {_SCRUBS}"))


def workers(database: Database) -> list[WorkerRecord]:
    """Return the workers that have not ended in an orderly way. Its lock tells whether one is alive."""
    query = Worker.select().where(Worker.stopped_at_s.is_null()).order_by(Worker.started_at_s)
    return database.read(lambda: [worker_of(row) for row in query])


def _newest(database: Database, text: str, back: int) -> RunRecord:
    rows = database.rows(f"{SELECT_RUNS} ORDER BY created_at_s DESC, rowid DESC LIMIT 1 OFFSET ?", back)
    if not rows:
        raise UnknownRun(f"there are not so many runs that one is {text}; see: backprop list")
    return run_from(rows[0])


def _matches(database: Database, condition: Any) -> list[RunRecord]:
    query = Run.select().where(condition).order_by(Run.created_at_s.desc()).limit(SHOWN_MATCHES + 1)
    return database.read(lambda: [run_of(row) for row in query])


def _more(found: list[RunRecord]) -> str:
    return "+" if len(found) > SHOWN_MATCHES else ""


def _ids(found: list[RunRecord]) -> str:
    return ", ".join(f"{run.id} ({run.state})" for run in found[:SHOWN_MATCHES])
