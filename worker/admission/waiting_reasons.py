"""Why do queued runs wait, since when, and which of them has waited so long that nothing may pass it?"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from backprop.scheduler.governor import starvation
from backprop.scheduler.governor.decide import Decision, Denial, Rule
from backprop.scheduler.records import RunRecord, Waiting
from backprop.scheduler.store.writes import claims
from backprop.worker.context import Context

SAY_AGAIN_S: Final = 30.0
"""A waiting reason whose amounts alone changed is written this seldom."""

Since = dict[str, float]
"""Rule and GPU → since when it fails, Unix seconds."""


@dataclass(frozen=True)
class Starving:
    """A run that is to be let past, and what it waits for."""

    run: RunRecord
    wait: starvation.Wait

    def behind(self) -> Decision:
        """What those that it keeps back are told."""
        what = ", ".join(sorted(rule.value for rule in self.wait.rules))
        since = time.strftime("%H:%M", time.localtime(self.wait.since_s))
        text = f"lets {self.run.id} ({self.run.name}) go first, which has waited for {what} since {since}"
        return Decision((Denial(Rule.AGED, None, None, text),), ())


class WaitingReasons:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._said: dict[str, tuple[Since, float]] = {}
        self._excused_s: dict[str, float] = {}
        self._alive_s = -math.inf

    def clear(self) -> None:
        """Nothing waits."""
        self._said.clear()
        self._excused_s.clear()

    def note_alive(self, count: int) -> None:
        """How many of our runs live now, of any worker."""
        if count:
            self._alive_s = self._context.clock.monotonic_s()

    def aged(self, run: RunRecord, decision: Decision) -> Starving | None:
        """A refused run, if nothing may pass it any more."""
        now_s = self._context.clock.wall_s()
        rules = starvation.amounts(decision.denials)
        since = self._since(run, decision, now_s)
        begun = [since[_key(one)] for one in decision.denials if one.rule in rules]
        if not begun:
            return None
        wait = starvation.Wait(rules, min(begun), self._excused_s.get(run.id))
        if not starvation.is_starving(wait, now_s):
            return None
        if starvation.is_unsatisfiable(self._context.clock.monotonic_s() - self._alive_s):
            self._excused_s[run.id] = now_s
            self._context.console.event(
                "passed", run, "it does not fit though none of ours runs; others go first"
            )
            return None
        return Starving(run, wait)

    def tell(
        self,
        waiting: Sequence[tuple[RunRecord, Decision]],
        behind: Sequence[tuple[RunRecord, Decision]] = (),
    ) -> None:
        """Write down why these runs wait, rule by rule with since when, if that has changed in kind. `waiting` are all
        that are looked at each time: of those it is written after a while if it has changed in amount, too."""
        now_s = self._context.clock.wall_s()
        news: dict[str, tuple[str, list[Waiting]]] = {}
        said: dict[str, tuple[Since, float]] = {}
        for run, decision in waiting:
            since = self._since(run, decision, now_s)
            before, said_s = self._said.get(run.id, (_known(run), 0.0))
            reason = f"waits: {decision.sentence()}"
            if since.keys() == before.keys() and (now_s - said_s < SAY_AGAIN_S or reason == run.reason):
                said[run.id] = (since, said_s)
                continue
            said[run.id] = (since, now_s)
            news[run.id] = (reason, _rules(decision, since))
        for run, decision in behind:
            since = self._since(run, decision, now_s)
            if since.keys() != _known(run).keys():
                news[run.id] = (f"waits: {decision.sentence()}", _rules(decision, since))
        # A run that started meanwhile begins to wait anew when it is queued again.
        self._said = said
        self._excused_s = {run_id: at_s for run_id, at_s in self._excused_s.items() if run_id in said}
        if news:
            claims.record_waiting_reasons(self._context.database, news)

    def _since(self, run: RunRecord, decision: Decision, now_s: float) -> Since:
        before, _ = self._said.get(run.id, (_known(run), 0.0))
        return {_key(one): before.get(_key(one), now_s) for one in decision.denials}


def _key(denial: Denial) -> str:
    return f"{denial.rule}/{denial.gpu_index}"


def _known(run: RunRecord) -> Since:
    """What a worker wrote down before."""
    return {f"{one.rule}/{one.gpu_index}": one.since_s for one in run.waiting}


def _rules(decision: Decision, since: Since) -> list[Waiting]:
    return [
        Waiting(
            rule=denial.rule.value,
            text=denial.sentence(),
            needed=denial.needed,
            present=denial.present,
            gpu_index=denial.gpu_index,
            since_s=since[_key(denial)],
        )
        for denial in decision.denials
    ]
