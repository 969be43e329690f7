"""Keeps the reasons of waiting runs: which rules refuse each, since when, and whether one of them is starving."""

import math
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.scheduler.governor import starvation
from backprop.scheduler.governor.decide import Decision, Denial, Rule
from backprop.scheduler.records import RunRecord, Waiting
from backprop.scheduler.store.writes import claims
from backprop.worker.context import Context

REWRITE_S: Final = 30.0
"""A reason of which only the amounts have changed is recorded at most this often."""

Since = dict[str, float]
"""Rule, GPU and path → since when it fails, Unix seconds."""


class Starving(msgspec.Struct, frozen=True):
    """A run that holds back those behind it, and what it waits for."""

    run: RunRecord
    wait: starvation.Wait

    def behind(self) -> Decision:
        """The decision on each run that it holds back."""
        what = ", ".join(sorted(rule.value for rule in self.wait.rules))
        since = time.strftime("%H:%M", time.localtime(self.wait.since_s))
        text = f"waiting its turn behind {self.run.id} ({self.run.name}), which has waited for {what} since {since}"
        return Decision((Denial(Rule.HEAD_OF_LINE, None, None, text),), ())


def head_of_line(
    run: RunRecord, decision: Decision, since: Since, now_s: float, excused_s: float | None = None
) -> Starving | None:
    """Return a refused run as one that nothing behind it may pass, if it has waited long enough for amounts that our
    runs take. `now_s`, `excused_s`: Unix seconds; see `starvation.Wait`."""
    rules = starvation.amounts(decision.denials)
    begun = [since.get(_key(denial), now_s) for denial in decision.denials if denial.rule in rules]
    if not begun:
        return None
    wait = starvation.Wait(rules, min(begun), excused_s)
    return Starving(run, wait) if starvation.is_starving(wait, now_s) else None


def recorded_since(run: RunRecord) -> Since:
    """Return since when which rules refuse the run, as a worker recorded it."""
    return {_name(waiting.rule, waiting.gpu_index, waiting.path): waiting.since_s for waiting in run.waiting}


class WaitingReasons:
    """One worker's memory of the runs it refused, so that it writes only what has changed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._recorded: dict[str, tuple[Since, float]] = {}
        self._excused_s: dict[str, float] = {}
        self._alive_s = -math.inf

    def clear(self) -> None:
        """Forget everything: nothing waits."""
        self._recorded.clear()
        self._excused_s.clear()

    def tell_again(self) -> None:
        """Have the next round record new amounts at once: the user waits for them."""
        self._recorded.clear()

    def note_alive(self, count: int) -> None:
        """Note how many runs live now, of any worker."""
        if count:
            self._alive_s = self._context.clock.monotonic_s()

    def starving(self, run: RunRecord, decision: Decision) -> Starving | None:
        """Return a refused run as the head of the line, if nothing may pass it any more."""
        now_s = self._context.clock.wall_s()
        since = self._since(run, decision, now_s)
        head = head_of_line(run, decision, since, now_s, self._excused_s.get(run.id))
        if head is None:
            return None
        if starvation.holding_back_is_futile(self._context.clock.monotonic_s() - self._alive_s):
            self._excused_s[run.id] = now_s
            self._context.console.event(
                "passed", run, "it does not fit although no other run is running; others may pass it"
            )
            return None
        return head

    def record(
        self,
        waiting: Sequence[tuple[RunRecord, Decision]],
        behind: Sequence[tuple[RunRecord, Decision]] = (),
    ) -> None:
        """Record why these runs wait, rule by rule with since when, if the rules have changed. `waiting`: those that
        are judged each time; of them a change of amounts alone is recorded too, after a while. Raises DatabaseBusy."""
        now_s = self._context.clock.wall_s()
        news: dict[str, tuple[str, list[Waiting]]] = {}
        recorded: dict[str, tuple[Since, float]] = {}
        for run, decision in waiting:
            since = self._since(run, decision, now_s)
            before, written_s = self._recorded.get(run.id, (recorded_since(run), 0.0))
            reason = decision.sentence()
            if since.keys() == before.keys() and (now_s - written_s < REWRITE_S or reason == run.reason):
                recorded[run.id] = (since, written_s)
                continue
            recorded[run.id] = (since, now_s)
            news[run.id] = (reason, _rules(decision, since))
        for run, decision in behind:
            since = self._since(run, decision, now_s)
            if since.keys() != recorded_since(run).keys():
                news[run.id] = (decision.sentence(), _rules(decision, since))
        # A run that has started meanwhile begins to wait anew when it is queued again.
        self._recorded = recorded
        self._excused_s = {run_id: at_s for run_id, at_s in self._excused_s.items() if run_id in recorded}
        if news:
            claims.record_waiting_reasons(self._context.database, news)

    def _since(self, run: RunRecord, decision: Decision, now_s: float) -> Since:
        before, _ = self._recorded.get(run.id, (recorded_since(run), 0.0))
        return {_key(denial): before.get(_key(denial), now_s) for denial in decision.denials}


def _key(denial: Denial) -> str:
    return _name(denial.rule, denial.gpu_index, denial.path)


def _name(rule: str, gpu_index: int | None, path: str | None) -> str:
    return f"{rule}/{gpu_index}/{path or ''}"


def _rules(decision: Decision, since: Since) -> list[Waiting]:
    return [
        Waiting(
            rule=denial.rule.value,
            text=denial.sentence(),
            needed=denial.needed,
            present=denial.present,
            gpu_index=denial.gpu_index,
            since_s=since[_key(denial)],
            path=denial.path,
        )
        for denial in decision.denials
    ]
