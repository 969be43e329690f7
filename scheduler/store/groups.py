"""Keeps the rules of groups, the rounds of their early stopping, and tells which end was the last of a group."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from backprop.scheduler.lifecycle import FINAL, Event, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import GroupRules
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.rows import listed, run_of
from backprop.scheduler.store.schema import Group as Row
from backprop.scheduler.store.schema import Ranking, Run, Segment
from backprop.scheduler.store.writes.transitions import move
from backprop.scheduler.successive_halving import Rank

IDS_PER_QUERY: Final = 500
_WITHOUT_TRAINING: Final = [outcome.value for outcome in SegmentOutcome if not outcome.trained]
_RULES: Final = GroupRules.__struct_fields__


def set_rules(group: GroupRules, now_s: float) -> None:
    """Create the group, or set those of its rules that are given. Call inside a transaction."""
    values: dict[str, Any] = {
        "max_parallel": group.max_parallel,
        "keep_share": group.keep_share,
        "keep_every": group.keep_every,
        "keep_metric": group.keep_metric,
        "until": group.until,
        "max_total_s": group.max_total_s,
    }
    given = {name: value for name, value in values.items() if value is not None}
    if group.keep_metric is not None:
        given["keep_highest"] = group.keep_highest
    if group.until is not None or group.max_total_s is not None:
        given["over_why"] = None  # a rule that is given again is judged again
    fresh = {"name": group.name, "created_at_s": now_s, "keep_highest": group.keep_highest} | values
    Row.insert(fresh).on_conflict_ignore().execute()
    if given:
        Row.update(given).where(Row.name == group.name).execute()


def rules(database: Database, name: str) -> GroupRules | None:
    """Return the rules of a group; None when none were ever given."""
    rows = database.rows(f"SELECT {', '.join(_RULES)} FROM groups WHERE name = ?", name)
    return _group(rows[0]) if rows else None


def all_rules(database: Database) -> dict[str, GroupRules]:
    """Return the rules of every group that has any, by name."""
    rows = database.rows(f"SELECT {', '.join(_RULES)} FROM groups")
    return {group.name: group for group in map(_group, rows)}


def hold_rest(database: Database, run: RunRecord, fault: str) -> int:
    """Hold the members of a group that have not started yet, once two have failed the same way at their first start.

    `run`: the member that has just failed with `fault`. Returns how many were held.
    """

    def verb() -> int:
        alike = (Run.group_name == run.group_name) & (Run.state == State.FAILED.value)
        same = alike & (Run.fault == fault) & (Run.segment == 1)
        if Run.select(Run.id).where(same).limit(2).count() < 2:
            return 0
        why = f"held: two runs of this group failed with the same {fault} (backprop show {run.id})"
        return _hold(Run.group_name == run.group_name, Run.segment == 0, why)

    return database.write(verb) if run.group_name is not None else 0


def hold_unbegun(database: Database, run: RunRecord) -> int:
    """Hold the waiting members of a group that have not got to a step yet, once `run` has failed to. Returns how many
    were held."""
    why = (
        f"held: a run of this group failed its smoke test (backprop show {run.id}); repair what it is, then backprop"
        f" release --group {run.group_name}"
    )
    unbegun = Run.last_step.is_null() & Run.last_loss.is_null()

    def verb() -> int:
        return _hold(Run.group_name == run.group_name, unbegun, why)

    return database.write(verb) if run.group_name is not None else 0


def _hold(members: Any, which: Any, why: str) -> int:
    """Inside a transaction: hold those of some runs that are queued; return how many that were."""
    waiting: Any = (
        Run.select(Run.id, Run.segment).where(members & which & (Run.state == State.QUEUED.value)).tuples()
    )
    rows = list(waiting)
    for run_id, segment in rows:
        move(run_id, State.QUEUED, Event.HELD, segment, {"reason": why, "waiting": None})
    return len(rows)


def unfinished(database: Database, name: str) -> list[RunRecord]:
    """Return the members that have not ended, in the order of the queue."""
    ended = [state.value for state in FINAL]
    query = Run.select().where(Run.group_name == name, Run.state.not_in(ended)).order_by(Run.turn_s, Run.id)
    return database.read(lambda: [run_of(row) for row in query])


def counts(database: Database, name: str) -> dict[str, int]:
    """Return how many members are in each state; states without any are missing."""

    def query() -> dict[str, int]:
        from peewee import fn

        rows: Any = (
            Run.select(Run.state, fn.COUNT(Run.id)).where(Run.group_name == name).group_by(Run.state).tuples()
        )
        return dict(list(rows))

    return database.read(query)


def all_names(database: Database) -> list[tuple[str, int]]:
    """Return (name, number of members) of every group, the newest first."""

    def query() -> list[tuple[str, int]]:
        from peewee import fn

        newest = fn.MAX(Run.created_at_s)
        rows: Any = (
            Run.select(Run.group_name, fn.COUNT(Run.id))
            .where(Run.group_name.is_null(False))
            .group_by(Run.group_name)
            .order_by(newest.desc())
            .tuples()
        )
        return list(rows)

    return database.read(query)


def is_short(database: Database, name: str, every: int) -> bool:
    """Return whether a member that has not ended has begun fewer than `every` timeboxes: then no round is due."""
    ended = listed(FINAL)
    asked = f"SELECT 1 FROM runs WHERE group_name = ? AND state NOT IN {ended} AND boxes < ? LIMIT 1"
    return bool(database.rows(asked, name, every))


def segments_had(database: Database, run_ids: Sequence[str]) -> dict[str, int]:
    """Return how many timeboxes in which it could train each of these runs has ended; runs without any are missing.

    Segments that were lost or could not be started do not count, and the timebox in force has not ended.
    """

    def query() -> dict[str, int]:
        from peewee import chunked, fn

        found: dict[str, int] = {}
        for ids in chunked(run_ids, IDS_PER_QUERY):
            own = Segment.run_id.in_(list(ids))
            trained = Segment.outcome.is_null() | Segment.outcome.not_in(_WITHOUT_TRAINING)
            had = fn.SUM(Segment.boxes - Segment.ended_at_s.is_null())
            rows: Any = Segment.select(Segment.run_id, had).where(own & trained).group_by(Segment.run_id)
            found |= dict(list(rows.having(had > 0).tuples()))
        return found

    return database.read(query)


def rounds_of(database: Database, name: str) -> dict[str, int]:
    """Return in how many rounds of its group each member was ranked; those ranked in none are missing."""
    return dict(
        database.rows("SELECT run_id, COUNT(*) FROM rankings WHERE group_name = ? GROUP BY run_id", name)
    )


def rounds(database: Database, name: str) -> int:
    """Return how many rounds have been decided."""

    def query() -> int:
        from peewee import fn

        last: Any = Ranking.select(fn.MAX(Ranking.round)).where(Ranking.group_name == name).scalar()
        return last or 0

    return database.read(query)


def decide_round(database: Database, name: str, number: int, ranks: Sequence[Rank], now_s: float) -> bool:
    """Write a round's ranking down. Returns False when another worker has."""

    def verb() -> bool:
        if Ranking.select().where(Ranking.group_name == name, Ranking.round >= number).exists():
            return False
        for rank in ranks:
            Ranking.insert(
                group_name=name,
                round=number,
                run_id=rank.run_id,
                place=rank.place,
                value=rank.value,
                kept=rank.kept,
                at_s=now_s,
            ).execute()
        return True

    return database.write(verb)


def rankings(database: Database, name: str) -> list[tuple[int, Rank]]:
    """Return (round, rank) of every decision of a group, in order."""
    query = Ranking.select().where(Ranking.group_name == name).order_by(Ranking.round, Ranking.place)
    return database.read(
        lambda: [(row.round, Rank(row.run_id, row.place, row.value, row.kept)) for row in query]
    )


def _group(row: Sequence[Any]) -> GroupRules:
    """Return rules from the columns `_RULES`."""
    values: dict[str, Any] = dict(zip(_RULES, row, strict=True))
    values["keep_highest"] = bool(values["keep_highest"])
    return GroupRules(**values)


_UNFINISHED: Final = f"SELECT 1 FROM runs WHERE state IN {listed(frozenset(State) - FINAL)}"


class Finished(msgspec.Struct, frozen=True):
    """What an end completed. `groups`: those of which every member has ended. `queue_empty`: nothing is queued, held
    or live any more."""

    groups: tuple[str, ...] = ()
    queue_empty: bool = False


NOTHING: Final = Finished()


def finished(database: Database, groups: Collection[str]) -> Finished:
    """Return what the ends of members of `groups` have completed.

    Call inside their transaction: of two ends at once only the later one is the last then, and exactly one learns so.
    """
    over = (name for name in groups if not database.rows(f"{_UNFINISHED} AND group_name = ? LIMIT 1", name))
    return Finished(tuple(over), not database.rows(f"{_UNFINISHED} LIMIT 1"))
