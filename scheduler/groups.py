"""What rules does a group of runs keep to, and which groups may start nothing now?"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any

from backprop.scheduler.database import Database
from backprop.scheduler.lifecycle import LIVE
from backprop.scheduler.models import Group as Row
from backprop.scheduler.models import Run
from backprop.scheduler.spec import Group


def set_rules(group: Group, now_s: float) -> None:
    """Inside a transaction: create the group, or set those rules that are given."""
    values: dict[str, Any] = {
        "max_parallel": group.max_parallel,
        "keep_share": group.keep_share,
        "keep_every": group.keep_every,
        "keep_metric": group.keep_metric,
    }
    given = {name: value for name, value in values.items() if value is not None}
    if group.keep_metric is not None:
        given["keep_highest"] = group.keep_highest
    fresh = {"name": group.name, "created_at_s": now_s, "keep_highest": group.keep_highest} | values
    Row.insert(fresh).on_conflict_ignore().execute()
    if given:
        Row.update(given).where(Row.name == group.name).execute()


def rules(database: Database, name: str) -> Group | None:
    """The rules of a group; None when none were ever given."""

    def query() -> Group | None:
        rows = list(Row.select().where(Row.name == name))
        return _group(rows[0]) if rows else None

    return database.read(query)


def all_rules(database: Database) -> dict[str, Group]:
    """The rules of every group that has any, by name."""
    return database.read(lambda: {row.name: _group(row) for row in Row.select()})


def full() -> list[str]:
    """Inside a read: the groups that have as many live members as they may."""
    from peewee import fn

    limited: Any = Row.select(Row.name, Row.max_parallel).where(Row.max_parallel.is_null(False)).tuples()
    limits: dict[str, int] = dict(list(limited))
    if not limits:
        return []
    live: Any = (
        Run.select(Run.group_name, fn.COUNT(Run.id))
        .where(Run.state.in_(list(LIVE)), Run.group_name.is_null(False))
        .group_by(Run.group_name)
        .tuples()
    )
    return [name for name, count in live if count >= limits.get(name, count + 1)]


def _group(row: Any) -> Group:
    return Group(
        name=row.name,
        max_parallel=row.max_parallel,
        keep_share=row.keep_share,
        keep_every=row.keep_every,
        keep_metric=row.keep_metric,
        keep_highest=row.keep_highest,
    )
