"""Is a group's next round decided? After every few segments of each member the worse part of it is stopped."""

import contextlib

from backprop.scheduler import batches, claims, groups, metrics, reads
from backprop.scheduler.errors import IllegalMove, LostRace
from backprop.scheduler.folders import OutcomeFile
from backprop.scheduler.lifecycle import LIVE, Event, Intent, State
from backprop.scheduler.moves import move_now
from backprop.scheduler.ranking import Candidate, Place, due_round, rank
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import Group
from backprop.worker.context import Context


class Halving:
    def __init__(self, context: Context) -> None:
        self._context = context

    def look(self, name: str | None) -> None:
        """After a segment of a member of group `name` has ended. Raises DatabaseBusy."""
        rules = groups.rules(self._context.database, name) if name is not None else None
        if rules is None or rules.keep_share is None or rules.keep_every is None or rules.keep_metric is None:
            return
        members = groups.unfinished(self._context.database, rules.name)
        values = metrics.latest(self._context.database, [run.id for run in members], rules.keep_metric)
        # A live segment has not ended yet: it does not count.
        candidates = [
            Candidate(run.id, run.segment - (run.state in LIVE), values.get(run.id)) for run in members
        ]
        decided = groups.rounds(self._context.database, rules.name)
        number = due_round(candidates, rules.keep_every, decided)
        if number is None:
            return
        places = rank(candidates, rules.keep_share, rules.keep_highest)
        # Of two workers that see the same round due, one writes it down.
        if groups.decide_round(
            self._context.database, rules.name, number, places, self._context.clock.wall_s()
        ):
            self._stop(rules, number, places, {run.id: run for run in members})

    def _stop(self, rules: Group, number: int, places: list[Place], members: dict[str, RunRecord]) -> None:
        kept = sum(one.kept for one in places)
        said = f"round {number} by {rules.keep_metric}: {kept} of {len(places)} go on"
        self._context.talk.say("ranked", more=f"group {rules.name}, {said}")
        for one in places:
            if not one.kept:
                value = "no value" if one.value is None else f"{one.value:g}"
                self._stop_one(members[one.run_id], f"place {one.place} of {len(places)} ({value}) in {said}")

    def _stop_one(self, run: RunRecord, why: str) -> None:
        """A waiting member at once; a live one after its grace, as its user's stop would."""
        database = self._context.database
        for _ in range(3):
            now = reads.run_by_id(database, run.id)
            if now is None:
                return
            try:
                if now.state in LIVE:
                    if claims.ask_to_end(database, now, Intent.OUTRANKED, why):
                        return
                else:
                    self._stop_waiting(now, f"stopped: {why}")
                    return
            except (LostRace, IllegalMove):
                continue

    def _stop_waiting(self, run: RunRecord, why: str) -> None:
        now_s = self._context.clock.wall_s()
        move_now(self._context.database, run, Event.STOPPED, reason=why, ended_at_s=now_s)
        outcome = OutcomeFile(state=State.STOPPED.value, reason=why, segment=run.segment, ended_at_s=now_s)
        with contextlib.suppress(OSError):
            batches.write_outcomes(self._context.home, [(run, outcome)])
