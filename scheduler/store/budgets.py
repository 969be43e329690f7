"""Reads how far groups are on their way to their goal or their limit, and writes down that one is over."""

# peewee is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Final

import msgspec

from backprop.scheduler.lifecycle import FINAL, HAS_PROCESSES, Event, Intent
from backprop.scheduler.outcome.group_budget import Goal, why_out
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import GroupRules
from backprop.scheduler.store import groups
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.groups import NOTHING, Finished
from backprop.scheduler.store.schema import Group, Run
from backprop.scheduler.store.writes.transitions import move

_OPEN: Final = "over_why IS NULL AND (until IS NOT NULL OR max_total_s IS NOT NULL)"
_RAN: Final = """
    SELECT COALESCE(SUM(segments.running_s), 0.0) FROM runs JOIN segments ON segments.run_id = runs.id
    WHERE runs.group_name = ?
"""
_MET_BY_ANY: Final = """
    SELECT metrics.run_id, metrics.value FROM runs JOIN metrics ON metrics.run_id = runs.id
    WHERE runs.group_name = ? AND metrics.name = ? AND metrics.value {relation} ? ORDER BY metrics.serial LIMIT 1
"""
_MET_BY_ONE: Final = """
    SELECT value FROM metrics WHERE run_id = ? AND name = ? AND value {relation} ? ORDER BY serial LIMIT 1
"""
_LATEST: Final = "SELECT value FROM metrics WHERE run_id = ? AND name = ? ORDER BY serial DESC LIMIT 1"


def open_groups(database: Database) -> dict[str, GroupRules]:
    """Return the rules of the groups that have a goal or a limit, and are not over yet."""
    rows = database.rows(f"SELECT name, until, max_total_s FROM groups WHERE {_OPEN}")
    return {name: GroupRules(name=name, until=until, max_total_s=max_s) for name, until, max_s in rows}


def over(database: Database) -> dict[str, str]:
    """Return why groups are over, by name; those that are not are missing."""
    return dict(database.rows("SELECT name, over_why FROM groups WHERE over_why IS NOT NULL"))


def ran_s(database: Database, name: str) -> float:
    """Return for how long the ended segments of a group have run, in seconds."""
    return float(database.rows(_RAN, name)[0][0])


def met_by(database: Database, name: str, goal: Goal, run_id: str | None = None) -> tuple[str, float] | None:
    """Return which member has ever met a goal, as far as its metrics are kept, and with which value; None for none.

    `run_id`: the only member to look at.
    """
    if run_id is None:
        rows = database.rows(_MET_BY_ANY.format(relation=goal.relation), name, goal.metric, goal.bound)
        return (str(rows[0][0]), float(rows[0][1])) if rows else None
    rows = database.rows(_MET_BY_ONE.format(relation=goal.relation), run_id, goal.metric, goal.bound)
    return (run_id, float(rows[0][0])) if rows else None


def latest(database: Database, run_id: str, metric: str) -> float | None:
    """Return the last value of a metric of a run; None where it has reported none."""
    rows = database.rows(_LATEST, run_id, metric)
    return float(rows[0][0]) if rows else None


class EndedGroup(msgspec.Struct, frozen=True):
    """What the end of a group has done. `stopped`: the members that waited. `asked`: how many live ones were asked to
    end."""

    stopped: list[RunRecord]
    asked: int
    finished: Finished = NOTHING


def end_group(
    database: Database, name: str, why: str, now_s: float, spared: str | None = None
) -> EndedGroup | None:
    """Note that a group is over, and stop its members but the one that is `spared`: at once, or asked to save first.

    Returns None where another worker has, or the group was given its rules anew. In one transaction: a crash leaves
    no group that is over and goes on.
    """

    def verb() -> EndedGroup | None:
        if database.rows(f"SELECT 1 FROM groups WHERE name = ? AND {_OPEN}", name) == []:
            return None
        Group.update(over_why=why).where(Group.name == name).execute()
        others = [run for run in groups.unfinished(database, name) if run.id != spared]
        stopped = [run for run in others if stop_member(run, why, now_s)]
        asked = sum(run.state in HAS_PROCESSES for run in others)
        return EndedGroup(stopped, asked, groups.finished(database, [name]) if stopped else NOTHING)

    return database.write(verb)


def stop_member(run: RunRecord, why: str, now_s: float) -> bool:
    """Stop a member of a group, inside a transaction in which `run` was read; return whether it waited and is stopped
    now. A live one is asked to end, as by its user's stop. `why`: as `why_out` words it."""
    if run.state in HAS_PROCESSES:
        # One that is about to leave its place, to come back later, is not to come back.
        comes_back = Run.intent.is_null() | Run.intent.in_([Intent.TIMEBOX, Intent.YIELD])
        own = (Run.id == run.id) & (Run.segment == run.segment) & comes_back
        Run.update(intent=Intent.OUTRANKED, intent_why=why, reason=f"stopping: {why}").where(own).execute()
        return False
    if run.state in FINAL:
        return False
    values = {"reason": why_out(why), "ended_at_s": now_s, "waiting": None}
    move(run.id, run.state, Event.STOPPED, run.segment, values)
    return True
