"""Puts new runs into the queue, all that are queued together or none, and finished runs from elsewhere.

On the path of every `backprop run`: what few of them need is imported where it is needed, the tables' models among it.
"""

# peewee is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.lifecycle import State
from backprop.scheduler.spec import GroupRules, NewRun, QueuePosition, RunSpec, created_s, decode, encode
from backprop.scheduler.store.connection import Database, proxy

if TYPE_CHECKING:
    from backprop.scheduler.records import CheckpointRecord

ROWS_PER_STATEMENT: Final = 500
"""SQLite takes 32,766 values in a statement (SQLITE_MAX_VARIABLE_NUMBER); a run has about 40."""


def enqueue_all(
    database: Database,
    runs: Sequence[NewRun],
    now_s: float,
    *,
    group: GroupRules | None = None,
    batch: str | None = None,
    reason: str = "queued",
) -> None:
    """Put all of `runs` into the queue, or none. They take their turns in this order.

    `group`: rules to set for the group they belong to. `batch`: where their specifications are, see `home.batch_file`.
    Raises BadCommand when an id is taken by another run.
    """
    rows = rows_of(runs, now_s, batch, reason)
    database.write(lambda: enqueue_now(runs, rows, now_s, group))


def rows_of(
    runs: Sequence[NewRun], now_s: float, batch: str | None, reason: str = "queued"
) -> list[dict[str, Any]]:
    """Return the column values of new runs that are queued together."""
    return [row_of(run, created_s(now_s, number), batch, reason) for number, run in enumerate(runs)]


def enqueue_now(
    runs: Sequence[NewRun], rows: Sequence[dict[str, Any]], now_s: float, group: GroupRules | None
) -> None:
    """As `enqueue_all`, inside a transaction. `rows`: the same runs as rows."""
    taken = _taken(rows)
    missing = [row for row in rows if row["id"] not in taken]
    if others := sorted(row["id"] for row in rows if row["id"] in taken and taken[row["id"]] != _kept(row)):
        raise BadCommand(id_taken(others))
    insert(missing)
    insert_links(runs)
    if waiting := [
        (run.id,) for run in runs if run.place.after and not run.place.held and not run.place.begin_s
    ]:
        from backprop.scheduler.store.dependencies import UNSATISFIED

        met = f"UPDATE runs SET reason = 'queued' WHERE id = ? AND NOT EXISTS ({UNSATISFIED})"
        _connection().executemany(met, waiting)
    if group is not None:
        from backprop.scheduler.store import groups

        groups.set_rules(group, now_s)


def insert(rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of `row_of`. Call inside a transaction.

    As one prepared statement: peewee takes 200 µs to put a row into words, SQLite 10 to store it.
    """
    if not rows:
        return
    names = list(rows[0])
    statement = f"INSERT INTO runs ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    _connection().executemany(statement, (tuple(row.values()) for row in rows))


def insert_links(runs: Sequence[NewRun]) -> None:
    """Insert what the runs wait for; links that exist are left alone. Call inside a transaction, after `insert`."""
    _connection().executemany(
        "INSERT OR IGNORE INTO dependencies (run_id, parent_id, kind) VALUES (?, ?, ?)",
        ((run.id, parent, kind) for run in runs for parent, kind in run.place.after),
    )


def _connection() -> Any:
    return proxy.connection()


def _taken(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, RunSpec]]:
    """Return (created, specification) of those that exist already.

    A worker that starts puts in every run that has a folder, perhaps between the folder and the row of a `run` under
    way.
    """
    taken: dict[str, tuple[float, RunSpec]] = {}
    for at in range(0, len(rows), ROWS_PER_STATEMENT):
        ids = [row["id"] for row in rows[at : at + ROWS_PER_STATEMENT]]
        query = f"SELECT id, created_at_s, spec FROM runs WHERE id IN ({', '.join('?' * len(ids))})"
        cursor: Any = proxy.execute_sql(query, ids)
        known: list[tuple[str, float, str]] = cursor.fetchall()
        taken |= {run_id: (created_at_s, decode(spec)) for run_id, created_at_s, spec in known}
    return taken


def _kept(row: dict[str, Any]) -> tuple[float, RunSpec]:
    """Return what must be the same. Not the text: what was read from a file is put into words a little differently."""
    return row["created_at_s"], decode(row["spec"])


def id_taken(ids: Sequence[str]) -> str:
    """Return the message for a requested id that exists."""
    return f"a run with the id {ids[0]} exists; choose another --run-id, or: backprop resume {ids[0]}"


def row_of(run: NewRun, created_at_s: float, batch: str | None, reason: str) -> dict[str, Any]:
    """Return the column values of a new run at its place in the queue."""
    place = run.place
    return _new_run(run.id, run.name, run.spec, created_at_s) | {
        "state": State.HELD.value if place.held else State.QUEUED.value,
        "reason": _reason(place) or reason,
        "priority": place.priority,
        "not_before_s": place.begin_s,
        "group_name": place.group,
        "array_index": place.array_index,
        "batch": batch,
    }


def _reason(place: QueuePosition) -> str:
    """Return why it does not start at once, by its own place in the queue; empty for no reason."""
    if place.held:
        return "held when it was queued"
    return "; ".join(" ".join(pair) for pair in conditions(place))


def conditions(place: QueuePosition, met: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return what its place in the queue has a run wait for, in words: `not before` a time, `waits for` other runs.

    `met`: ids of runs that have ended as wanted already; they are left out.
    """
    waits: list[tuple[str, str]] = []
    if place.begin_s:
        import time

        waits.append(("not before", time.strftime("%a %Y-%m-%d %H:%M", time.localtime(place.begin_s))))
    if after := [link for link in place.after if link[0] not in met]:
        from backprop.scheduler.store.dependencies import WORDS

        parents = ", ".join(f"{parent} {WORDS[kind]}" for parent, kind in after[:3])
        more = f" and {len(after) - 3} more" if len(after) > 3 else ""
        waits.append(("waits for", f"{parents}{more}"))
    return waits


def _new_run(run_id: str, name: str, spec: RunSpec, now_s: float) -> dict[str, Any]:
    """Return the column values of a run that is queued and has done nothing yet."""
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
        "host_faults": 0,
        "key": spec.key,
        "cluster": spec.cluster,
    }


def adopt_foreign(
    database: Database, rows: Sequence[tuple[dict[str, Any], Sequence["CheckpointRecord"]]]
) -> list[str]:
    """Insert finished runs from elsewhere, with their checkpoints, in one transaction.

    `rows`: values over those of `finished_run`. Ids that exist are left alone. Returns the ids inserted.
    """
    from backprop.scheduler.store.schema import Run
    from backprop.scheduler.store.writes.progress import insert_checkpoint

    def verb() -> list[str]:
        added: list[str] = []
        for values, saved in rows:
            if Run.select().where(Run.id == values["id"]).exists():
                continue
            Run.insert(values).execute()
            for checkpoint in saved:
                insert_checkpoint(checkpoint)
            added.append(values["id"])
        return added

    return database.write(verb)


def finished_run(
    run_id: str, name: str, spec: RunSpec, state: State, created_at_s: float, ended_at_s: float
) -> dict[str, Any]:
    """Return the column values of a run that ended before it was imported."""
    base = _new_run(run_id, name, spec, created_at_s)
    return base | {"state": state.value, "started_at_s": created_at_s, "ended_at_s": ended_at_s}
