"""Queues runs that have keys: whoever asks for a key again gets the run that has it.

All of it is one transaction: the keys are looked up, the rows inserted, the request noted in `requests.jsonl`, and the
files written. Whoever is killed in between has noted it already, so the next one finds that the database is behind, and
has it completed from the files before it looks again. The same holds for an older copy of the database.

A key goes with its run: when that is removed, the key is free.
"""

# peewee is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Sequence
from typing import Any, Final

from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.home.request_log import Verb
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import GroupRules, NewRun
from backprop.scheduler.store import requests
from backprop.scheduler.store.connection import Database, proxy
from backprop.scheduler.store.requests import Note
from backprop.scheduler.store.rows import SELECT_RUNS, execute, run_from
from backprop.scheduler.store.writes import enqueue

KEYS_PER_STATEMENT: Final = 500
_TAKE: Final = (
    "UPDATE OR IGNORE runs SET key = json_extract(spec, '$.key')"
    " WHERE key IS NULL AND json_extract(spec, '$.key') IS NOT NULL"
)


class Behind(DatabaseBusy):
    """The database lacks what the home holds. Complete it, and ask again."""


def runs_with(database: Database, keys: Sequence[str]) -> dict[str, RunRecord]:
    """Return the runs that have these keys, by key. Raises Behind."""

    def verb() -> dict[str, RunRecord]:
        _refuse_older(database)
        return _runs_with(keys)

    # As a write: nothing that an older copy says counts, and only inside a transaction is that known.
    return database.write(verb)


def enqueue_once(
    database: Database,
    runs: Sequence[NewRun],
    now_s: float,
    write_files: Callable[[], None],
    *,
    group: GroupRules | None = None,
    batch: str | None = None,
) -> dict[str, RunRecord]:
    """Queue all of `runs`, which have keys, unless one of the keys is taken; return the runs that have them, by key.

    `write_files`: puts on disk what the runs are put back from; it may be called again. Raises Behind, what
    `enqueue_all` raises, and what `write_files` raises. Then nothing was queued.
    """
    rows = enqueue.rows_of(runs, now_s, batch)
    keys = [run.spec.key for run in runs if run.spec.key is not None]

    def verb(note: Note) -> dict[str, RunRecord]:
        _refuse_older(database)
        if taken := _runs_with(keys):
            return taken
        enqueue.enqueue_now(runs, rows, now_s, group)
        note(Verb.QUEUE, [run.id for run in runs], at_s=now_s)
        write_files()
        return {}

    return requests.write(database, verb)


def take_now(run_ids: Sequence[str] | None = None) -> None:
    """Inside a transaction: give runs the keys that they were queued with, unless other runs have these. None: all."""
    if run_ids is None:
        execute(_TAKE, ())
    for run_id in run_ids or ():
        execute(f"{_TAKE} AND id = ?", (run_id,))


def _refuse_older(database: Database) -> None:
    if requests.behind(database):
        raise Behind(f"{database.home.database} is older than its home; repair it with: backprop worker")


def _runs_with(keys: Sequence[str]) -> dict[str, RunRecord]:
    found: dict[str, RunRecord] = {}
    for at in range(0, len(keys), KEYS_PER_STATEMENT):
        some = keys[at : at + KEYS_PER_STATEMENT]
        query = f"{SELECT_RUNS} WHERE key IN ({', '.join('?' * len(some))})"
        cursor: Any = proxy.execute_sql(query, list(some))
        found |= {run.key: run for run in map(run_from, cursor.fetchall()) if run.key is not None}
    return found
