"""Was that the last one? Of a group, or of the whole queue, as seen inside the transaction of an end."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from backprop.scheduler.database import Database
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.rows import listed

_UNFINISHED: Final = f"SELECT 1 FROM runs WHERE state IN {listed(frozenset(State) - FINAL)}"


@dataclass(frozen=True)
class Finished:
    """`groups`: those of which every member has ended now. `queue_empty`: nothing is queued, held or live any more."""

    groups: tuple[str, ...] = ()
    queue_empty: bool = False


NOTHING: Final = Finished()


def finished(database: Database, groups: Collection[str]) -> Finished:
    """What the ends of members of `groups` have finished. Call inside their transaction: of two ends at once only the
    later one is the last then, and exactly one is told so."""
    over = (one for one in groups if not database.rows(f"{_UNFINISHED} AND group_name = ? LIMIT 1", one))
    return Finished(tuple(over), not database.rows(f"{_UNFINISHED} LIMIT 1"))
