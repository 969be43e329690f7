"""How do new runs get into the queue? All that are queued together, or none.

On the path of every `backprop run`: what few of them need is imported where it is needed, the tables' models among it.

How do runs that ended elsewhere come into this queue?
"""

# peewee is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Collection, Sequence
from typing import Any, Final

from backprop.scheduler.errors import BadCommand
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import CheckpointRecord
from backprop.scheduler.spec import GroupRules, NewRun, QueuePosition, RunSpec, created_s, decode, encode
from backprop.scheduler.store.connection import Database, proxy

ROWS_A_STATEMENT: Final = 500
"""SQLite takes 32,766 values in a statement (SQLITE_MAX_VARIABLE_NUMBER); a run has about 40."""


def enqueue(
    database: Database,
    run_id: str,
    name: str,
    spec: RunSpec,
    now_s: float,
    reason: str = "queued",
    place: QueuePosition = QueuePosition(),  # noqa: B008 - frozen
) -> None:
    """Put a new run into the queue. Raises BadCommand when the id is taken."""
    one = NewRun(id=run_id, name=name, spec=spec, place=place)
    enqueue_all(database, [one], now_s, reason=reason)


def enqueue_all(
    database: Database,
    runs: Sequence[NewRun],
    now_s: float,
    *,
    group: GroupRules | None = None,
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
            raise BadCommand(id_taken(others))
        insert(missing)
        insert_links(runs)
        if waiting := [
            (one.id,) for one in runs if one.place.after and not one.place.held and not one.place.begin_s
        ]:
            from backprop.scheduler.store.dependencies import UNMET

            met = f"UPDATE runs SET reason = 'queued' WHERE id = ? AND NOT EXISTS ({UNMET})"
            _connection().executemany(met, waiting)
        if group is not None:
            from backprop.scheduler.store import groups

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
    return proxy.connection()


def _taken(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, RunSpec]]:
    """(created, specification) of those that are here already: a worker that starts puts in whatever it finds a
    folder of, perhaps between the folder and the row of a `run` under way."""
    found: dict[str, tuple[float, RunSpec]] = {}
    for at in range(0, len(rows), ROWS_A_STATEMENT):
        ids = [row["id"] for row in rows[at : at + ROWS_A_STATEMENT]]
        asked = f"SELECT id, created_at_s, spec FROM runs WHERE id IN ({', '.join('?' * len(ids))})"
        cursor: Any = proxy.execute_sql(asked, ids)
        known: list[tuple[str, float, str]] = cursor.fetchall()
        found |= {run_id: (created_at_s, decode(spec)) for run_id, created_at_s, spec in known}
    return found


def _kept(row: dict[str, Any]) -> tuple[float, RunSpec]:
    """Not the text: that which was read from a file is put into words a little differently."""
    return row["created_at_s"], decode(row["spec"])


def id_taken(ids: Sequence[str]) -> str:
    """What is said to who asks for an id that there is."""
    return f"a run with the id {ids[0]} exists; choose another --run-id, or: backprop resume {ids[0]}"


def row_of(one: NewRun, created_at_s: float, batch: str | None, reason: str) -> dict[str, Any]:
    """Column values of a new run at its place in the queue."""
    place = one.place
    return new_run(one.id, one.name, one.spec, created_at_s) | {
        "state": State.HELD.value if place.held else State.QUEUED.value,
        "reason": _told(place) or reason,
        "priority": place.priority,
        "not_before_s": place.begin_s,
        "group_name": place.group,
        "array_index": place.array_index,
        "batch": batch,
    }


def _told(place: QueuePosition) -> str:
    """Why it does not start at once, by its own place in the queue; empty for no reason."""
    if place.held:
        return "held when it was queued"
    return "; ".join(" ".join(pair) for pair in conditions(place))


def conditions(place: QueuePosition, met: Collection[str] = ()) -> list[tuple[str, str]]:
    """What its place has it wait for, in words: `not before` a time, `waits for` other runs, but for those that have
    ended as wanted already (`met`, ids)."""
    found: list[tuple[str, str]] = []
    if place.begin_s:
        import time

        found.append(("not before", time.strftime("%a %Y-%m-%d %H:%M", time.localtime(place.begin_s))))
    if after := [link for link in place.after if link[0] not in met]:
        from backprop.scheduler.store.dependencies import WORDS

        parents = ", ".join(f"{parent} {WORDS[kind]}" for parent, kind in after[:3])
        more = f" and {len(after) - 3} more" if len(after) > 3 else ""
        found.append(("waits for", f"{parents}{more}"))
    return found


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


def adopt_foreign(
    database: Database, rows: Sequence[tuple[dict[str, Any], Sequence[CheckpointRecord]]]
) -> list[str]:
    """Insert finished runs from elsewhere, with their checkpoints, in one transaction; ids already here are left
    alone. `rows`: values over `finished_run`'s. Returns the ids inserted."""
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
    """Column values of a run that ended before it came here."""
    base = new_run(run_id, name, spec, created_at_s)
    return base | {"state": state.value, "started_at_s": created_at_s, "ended_at_s": ended_at_s}
