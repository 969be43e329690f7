"""Ends groups that have had enough: their goal is met, or their running time used up.

A live member is looked at in each tick, before anything is started: its latest values, and how long it has run. All
that is kept of all members is looked at when this worker begins and every half minute: whoever died between a value
and its decision has left the value.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import Final

from backprop.scheduler.home import batch_outcomes
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import State
from backprop.scheduler.outcome.group_budget import parse_goal, why_met, why_used_up
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import GroupRules
from backprop.scheduler.store import budgets
from backprop.scheduler.store.groups import NOTHING, Finished
from backprop.scheduler.store.reads import queries
from backprop.worker.context import Context
from backprop.worker.executor import segment_files

ALL_EVERY_S: Final = 30.0


class Budgets:
    """The goals and limits of groups. Each method returns what the ends of groups have completed, and raises
    DatabaseBusy."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._all_s = -math.inf
        self._ran_s: dict[str, float] = {}

    def forget(self) -> None:
        """Look at all members again: the database may be another one."""
        self._all_s = -math.inf

    def end_if_due(self, live: Sequence[RunRecord]) -> list[Finished]:
        """End the groups that are due. `live`: every live run, of whatever worker. Call once per tick."""
        database, now_s = self._context.database, self._context.clock.monotonic_s()
        everything = now_s - self._all_s >= ALL_EVERY_S
        if not everything and all(run.group_name is None for run in live):
            return []
        done: list[Finished] = []
        rules = budgets.open_groups(database)
        for name, group in rules.items():
            members = [run for run in live if run.group_name == name]
            if everything or members:
                done.append(self._end(group, members, everything))
        self._ran_s = {name: ran_s for name, ran_s in self._ran_s.items() if name in rules}
        if everything:
            self._all_s = now_s
        return done

    def ended(self, run: RunRecord) -> Finished:
        """End the group of a run, a segment of which has ended, if that is due."""
        database, name = self._context.database, run.group_name
        group = budgets.open_groups(database).get(name) if name is not None else None
        if group is None:
            return NOTHING
        self._ran_s.pop(group.name, None)
        if group.until is not None:
            met = budgets.met_by(database, group.name, parse_goal(group.until), run.id)
            if met is not None:
                return self._met(group, *met)
        live = [other for other in queries.live_runs(database) if other.group_name == group.name]
        return self._end(group, live, everything=False)

    def _end(self, group: GroupRules, live: Sequence[RunRecord], everything: bool) -> Finished:
        if (
            group.until is not None
            and (met := self._met_by(group, group.until, live, everything)) is not None
        ):
            return self._met(group, *met)
        if group.max_total_s is None:
            return NOTHING
        if everything or group.name not in self._ran_s:
            self._ran_s[group.name] = budgets.ran_s(self._context.database, group.name)
        used_s = self._ran_s[group.name] + sum(map(self._running_s, live))
        why = why_used_up(used_s, group.max_total_s)
        return self._over(group, why) if why is not None else NOTHING

    def _met_by(
        self, group: GroupRules, until: str, live: Sequence[RunRecord], everything: bool
    ) -> tuple[str, float] | None:
        database, goal = self._context.database, parse_goal(until)
        for run in live:
            value = budgets.latest(database, run.id, goal.metric)
            if value is not None and goal.is_met_by(value):
                return run.id, value
        return budgets.met_by(database, group.name, goal) if everything else None

    def _running_s(self, run: RunRecord) -> float:
        """Return for how long its live segment has been running; nothing where its files do not tell."""
        with contextlib.suppress(OSError):
            return segment_files.running_s(self._context.executor.folder(run.id, run.segment)) or 0.0
        return 0.0

    def _met(self, group: GroupRules, run_id: str, value: float) -> Finished:
        return self._over(group, why_met(parse_goal(group.until or ""), run_id, value), run_id)

    def _over(self, group: GroupRules, why: str, spared: str | None = None) -> Finished:
        context, now_s = self._context, self._context.clock.wall_s()
        ended = budgets.end_group(context.database, group.name, why, now_s, spared)
        if ended is None:
            return NOTHING
        more = f"group {group.name}: {why}; {len(ended.stopped)} stopped, {ended.asked} asked to end"
        context.console.event("over", more=more)
        outcomes = [
            (run, OutcomeFile(state=State.STOPPED.value, reason=why, segment=run.segment, ended_at_s=now_s))
            for run in ended.stopped
        ]
        with contextlib.suppress(OSError):
            batch_outcomes.write(context.home, outcomes)
        return ended.finished
