"""Keeps what the workers of a home know of each cluster: why nothing is handed over now, and since when."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from typing import Final

import msgspec

from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import ClusterState

FRESH_S: Final = 30.0
"""How far the time of the last answer may lag behind: a write each time would be for nothing."""


class ClusterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster. `why`: why nothing is handed over, in words, `since_s` and `until_s` Unix seconds; None where it
    takes jobs. `answered_at_s`: when its scheduler last answered. `jobs`: how many it had of this home then."""

    name: str
    why: str | None = None
    since_s: float | None = None
    until_s: float | None = None
    answered_at_s: float | None = None
    jobs: int | None = None


def read(database: Database) -> dict[str, ClusterRecord]:
    """Return what is known of each cluster, by name."""
    names = ClusterRecord.__struct_fields__
    rows = database.rows(f"SELECT {', '.join(names)} FROM clusters")
    return {row[0]: ClusterRecord(**dict(zip(names, row, strict=True))) for row in rows}


def note(
    database: Database,
    name: str,
    *,
    why: str | None,
    now_s: float,
    until_s: float | None,
    answered_at_s: float | None,
    jobs: int | None,
) -> None:
    """Note the state of a cluster; `since_s` stays while the reason does. Raises DatabaseBusy."""
    known = read(database).get(name)
    same = known is not None and (known.why, known.jobs) == (why, jobs)
    if same and known is not None and (known.answered_at_s or 0.0) + FRESH_S > (answered_at_s or 0.0):
        return
    since_s = known.since_s if known is not None and known.why == why else now_s
    values = {
        "name": name,
        "why": why,
        "since_s": since_s if why is not None else None,
        "until_s": until_s,
        "answered_at_s": answered_at_s,
        "jobs": jobs,
    }
    database.write(lambda: ClusterState.insert(values).on_conflict_replace().execute())
