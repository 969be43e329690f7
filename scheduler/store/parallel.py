"""Sets how many runs the workers of a home may run at once, instead of what each of them was started with.

It holds for every worker, those that live and those that come, until one is started with a number of its own.
"""

# peewee is untyped.
# pyright: reportUnknownMemberType=false

from collections.abc import Iterable

from backprop.scheduler.home.request_log import Verb
from backprop.scheduler.records import WorkerRecord
from backprop.scheduler.store import requests
from backprop.scheduler.store.connection import Database, proxy


def chosen(database: Database) -> tuple[int, float] | None:
    """Return how many runs may run at once by the user's word, and since when (Unix seconds); None without one."""
    rows = database.rows("SELECT value, since_s FROM switches WHERE name = 'parallel'")
    return (rows[0][0], rows[0][1]) if rows else None


def in_force(database: Database, living: Iterable[WorkerRecord]) -> int | None:
    """Return how many runs the living workers may run at once: as chosen, else by the most generous of them; None
    where none lives."""
    own = max((worker.max_parallel for worker in living), default=None)
    known = chosen(database)
    return known[0] if known is not None and own is not None else own


def words(at_most: int) -> str:
    """Return the number as it is told everywhere."""
    return f"at most {at_most} run{'' if at_most == 1 else 's'} at once"


def choose(database: Database, at_most: int | None, now_s: float) -> None:
    """Let at most so many runs run at once from now on; None leaves it to the workers again."""

    def verb(note: requests.Note) -> None:
        put(at_most, now_s)
        note(Verb.PARALLEL, at_most=at_most, at_s=now_s)

    requests.write(database, verb)


def put(at_most: int | None, now_s: float) -> None:
    """As `choose`, inside a transaction, and without a note of it."""
    proxy.execute_sql("DELETE FROM switches WHERE name = 'parallel'")
    if at_most is not None:
        proxy.execute_sql(
            "INSERT INTO switches (name, why, since_s, value) VALUES ('parallel', '', ?, ?)", (now_s, at_most)
        )
