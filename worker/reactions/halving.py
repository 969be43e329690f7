"""Decides a group's rounds: after every few segments of each member, the worse part of the group is stopped."""

import contextlib

from backprop.scheduler.home import batch_outcomes
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import State
from backprop.scheduler.outcome.group_budget import why_out
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import GroupRules
from backprop.scheduler.store import groups
from backprop.scheduler.store.budgets import stop_member
from backprop.scheduler.store.reads import metrics, queries
from backprop.scheduler.successive_halving import Candidate, Rank, is_due, rank
from backprop.worker.context import Context


class Halving:
    """Successive halving of the groups that ask for it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def decide_if_due(self, name: str | None) -> None:
        """Decide the next round of group `name`, a segment of which has ended, if it is due. Raises DatabaseBusy."""
        database = self._context.database
        rules = groups.rules(database, name) if name is not None else None
        if rules is None or rules.keep_share is None or rules.keep_every is None or rules.keep_metric is None:
            return
        if groups.is_short(database, rules.name, rules.keep_every):
            return
        decided = groups.rounds(database, rules.name)
        members = groups.unfinished(database, rules.name)
        ids = [run.id for run in members]
        values = metrics.latest(database, ids, rules.keep_metric)
        had, rounds = groups.segments_had(database, ids), groups.rounds_of(database, rules.name)
        candidates = [
            Candidate(run_id, had.get(run_id, 0), values.get(run_id), rounds.get(run_id, 0)) for run_id in ids
        ]
        if is_due(candidates, rules.keep_every):
            ranks = rank(candidates, rules.keep_share, rules.keep_highest)
            self._decide(rules, decided + 1, ranks, {run.id: run for run in members})

    def _decide(
        self, rules: GroupRules, number: int, ranks: list[Rank], members: dict[str, RunRecord]
    ) -> None:
        """In one transaction with the stops: a crash must not leave a round that is decided and stops nobody."""
        database, now_s = self._context.database, self._context.clock.wall_s()
        summary = self._summary(rules, number, ranks)
        out = [
            (members[rank.run_id], f"{_place(rank, ranks)} in {summary}") for rank in ranks if not rank.kept
        ]

        def verb() -> list[tuple[RunRecord, str]] | None:
            # Of two workers that find the same round due, one writes it down.
            if not groups.decide_round(database, rules.name, number, ranks, now_s):
                return None
            return [(run, why) for run, why in out if self._stop(run.id, why, now_s)]

        stopped = database.write(verb)
        if stopped is None:
            return
        self._context.console.event("ranked", more=f"group {rules.name}, {summary}")
        outcomes = [(run, _stopped(run, why, now_s)) for run, why in stopped]
        with contextlib.suppress(OSError):
            batch_outcomes.write(self._context.home, outcomes)

    def _summary(self, rules: GroupRules, number: int, ranks: list[Rank]) -> str:
        kept = sum(rank.kept for rank in ranks)
        summary = f"round {number} by {rules.keep_metric}: {kept} of {len(ranks)} go on"
        if any(rank.value is not None for rank in ranks):
            return summary
        first = ranks[0].run_id
        reported = metrics.latest_of_each(self._context.database, [first])[first]
        return (
            f"{summary}, for none has reported it; reported are: {', '.join(reported) or 'no metrics at all'}"
        )

    def _stop(self, run_id: str, why: str, now_s: float) -> bool:
        """As `stop_member`, inside the transaction."""
        run = queries.run_by_id(self._context.database, run_id)
        return run is not None and stop_member(run, why, now_s)


def _stopped(run: RunRecord, why: str, now_s: float) -> OutcomeFile:
    return OutcomeFile(state=State.STOPPED.value, reason=why_out(why), segment=run.segment, ended_at_s=now_s)


def _place(rank: Rank, ranks: list[Rank]) -> str:
    value = "no value" if rank.value is None else f"{rank.value:g}"
    return f"place {rank.place} of {len(ranks)} ({value})"
