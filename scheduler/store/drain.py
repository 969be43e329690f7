"""Drains the queue and opens it again. On the path of every `backprop run`, so without the tables' models."""

# peewee is untyped.
# pyright: reportUnknownMemberType=false

from typing import Final

from backprop.scheduler.store.connection import Database, proxy

_FORGET_WAITING: Final = """
    UPDATE runs SET reason = 'queued', waiting = NULL WHERE state = 'queued' AND waiting IS NOT NULL
    AND EXISTS (SELECT 1 FROM json_each(runs.waiting) AS rule WHERE json_extract(rule.value, '$.rule') = ?)"""


def drained(database: Database) -> tuple[str, float] | None:
    """Return why nothing is to be started, and since when (Unix seconds); None when the queue is open."""
    rows = database.rows("SELECT why, since_s FROM switches WHERE name = 'drained'")
    return (rows[0][0], rows[0][1]) if rows else None


def set_drained(database: Database, why: str | None, now_s: float) -> None:
    """Let no worker start anything from now on, for the reason `why`; None lets all of them start runs again."""

    from backprop.scheduler.home.request_log import Verb
    from backprop.scheduler.store import requests

    def verb(note: requests.Note) -> None:
        put(why, now_s)
        note(Verb.UNDRAIN if why is None else Verb.DRAIN, why=why or "", at_s=now_s)

    requests.write(database, verb)


def put(why: str | None, now_s: float) -> None:
    """As `set_drained`, inside a transaction, and without a note of it."""
    proxy.execute_sql("DELETE FROM switches WHERE name = 'drained'")
    if why is None:
        from backprop.scheduler.governor.model import Rule

        # A worker gives each its new reason; until then, and without one, none must give the old.
        proxy.execute_sql(_FORGET_WAITING, (Rule.DRAINED.value,))
    else:
        proxy.execute_sql("INSERT INTO switches (name, why, since_s) VALUES ('drained', ?, ?)", (why, now_s))
