"""How is one row written without a query builder? By statements whose text is made once for each set of columns.

For what a worker writes with every segment: putting the statement into words takes peewee several times as long as
SQLite takes to carry it out. Call inside a transaction (`Database.write`).
"""

# peewee's models are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from backprop.scheduler.proxy import proxy


def insert(table: str, values: Mapping[str, object]) -> None:
    """One row. Raises peewee's errors."""
    _run(_insert_text(table, tuple(values)), tuple(values.values()))


def update(table: str, values: Mapping[str, object], where: Mapping[str, object]) -> int:
    """Change the rows in which every column of `where` has its value, None included; how many there were."""
    given = tuple(value for value in where.values() if value is not None)
    missing = tuple(name for name, value in where.items() if value is None)
    named = tuple(name for name, value in where.items() if value is not None)
    return _run(_update_text(table, tuple(values), named, missing), (*values.values(), *given))


def update_each(table: str, columns: Sequence[str], rows: Iterable[Sequence[object]], where: str) -> None:
    """The same change to many rows, each with values of its own: those of `columns`, then those of `where`'s `?`."""
    changed = ", ".join(f"{name} = ?" for name in columns)
    proxy.connection().executemany(f"UPDATE {table} SET {changed} WHERE {where}", rows)


def _run(text: str, values: Sequence[object]) -> int:
    cursor: Any = proxy.execute_sql(text, values)
    return cursor.rowcount


@lru_cache(maxsize=64)
def _insert_text(table: str, names: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


@lru_cache(maxsize=256)
def _update_text(
    table: str, changed: tuple[str, ...], named: tuple[str, ...], missing: tuple[str, ...]
) -> str:
    here = [*(f"{name} = ?" for name in named), *(f"{name} IS NULL" for name in missing)]
    return f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in changed)} WHERE {' AND '.join(here)}"
