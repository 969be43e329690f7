"""Does what follows from a segment's end besides its run's own move: the rest of its group, hooks, and a bell.

Stops runs whose dependencies can no longer be met; like every end, that is written to disk.
"""

import contextlib
from collections.abc import Callable
from typing import Final

from backprop.scheduler.faults.kinds import WOULD_FAIL_AGAIN
from backprop.scheduler.home import batch_outcomes
from backprop.scheduler.home.credentials import masked_words
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.outcome import smoke
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store import dependencies, groups
from backprop.scheduler.store.groups import Finished
from backprop.scheduler.store.reads import nights, queries
from backprop.scheduler.store.writes.claims import AppliedMove
from backprop.worker.context import Context
from backprop.worker.reactions.budget import Budgets
from backprop.worker.reactions.halving import Halving
from backprop.worker.reactions.hooks import Hooks
from backprop.worker.reactions.hourly import done_words

Step = Callable[[], None]
RINGS: Final = (State.COMPLETED, State.FAILED)
NAMED: Final = 5
"""This many of the runs that are stopped together are printed one by one."""


class Reactions:
    """One per worker. `let_sleep`: called before a hook that may send the machine to sleep."""

    def __init__(self, context: Context, let_sleep: Callable[[], None]) -> None:
        self._context = context
        self._let_sleep = let_sleep
        self._hooks = Hooks(context)
        self._halving = Halving(context)
        self._budgets = Budgets(context)
        self._since_s = context.clock.wall_s()

    def steps(self, run: RunRecord, move: NextMove, applied: AppliedMove) -> list[Step]:
        """Return what is to be done now that an end is in the database, each step once.

        A step that raises DatabaseBusy has to be done again.
        """
        over = applied.state in FINAL
        steps: list[Step] = [lambda: self._tell_of_run(run, move, applied)] if over else []
        if move.fault in WOULD_FAIL_AGAIN and applied.state is State.FAILED and run.segment == 1:
            steps.append(lambda: self._hold_rest(run, str(move.fault)))
        if smoke.is_failure(move.reason) and applied.state is State.FAILED:
            steps.append(lambda: self._hold_unbegun(run))
        if over:
            steps.append(self.end_unsatisfiable)
        steps.append(lambda: self._halving.decide_if_due(run.group_name))
        if over:
            steps.append(lambda: self._tell_of_groups(applied.finished))
        steps.append(lambda: self._tell_of_groups(self._budgets.ended(run)))
        return steps

    def end_groups(self) -> None:
        """End the groups whose goal is met or whose running time is used up. Call once per tick, before anything is
        started. Raises DatabaseBusy."""
        for finished in self._budgets.end_if_due(queries.live_runs(self._context.database)):
            self._tell_of_groups(finished)

    def forget(self) -> None:
        """Look at everything anew: the database may be another one."""
        self._budgets.forget()

    def renewed(self, run: RunRecord) -> None:
        """Do what follows from another box in the same segment: for its group it counts as one that has ended. Raises
        DatabaseBusy."""
        self._halving.decide_if_due(run.group_name)

    def end_unsatisfiable(self) -> None:
        """Stop the runs whose dependencies can no longer be met. Raises DatabaseBusy."""
        self._tell_of_groups(end_unsatisfiable(self._context))

    def pump(self) -> None:
        """Collect hooks that have ended and start the next ones. Call once per tick."""
        self._hooks.pump()

    def close(self) -> None:
        """End all hooks, after a short time for those that are under way."""
        self._hooks.close()

    def _hold_rest(self, run: RunRecord, fault: str) -> None:
        held = groups.hold_rest(self._context.database, run, fault)
        if held:
            more = f"{held} more of group {run.group_name}: two ended at once with the same {fault}"
            self._context.console.event("held", more=more)

    def _hold_unbegun(self, run: RunRecord) -> None:
        held = groups.hold_unbegun(self._context.database, run)
        if held:
            more = f"{held} more of group {run.group_name}: {run.name} ({run.id}) has failed its smoke test"
            self._context.console.event("held", more=more)

    def _tell_of_run(self, run: RunRecord, move: NextMove, applied: AppliedMove) -> None:
        state = applied.state
        self._hooks.fire(state.value, {"run": _view(run, move, state), "group": run.group_name})
        if state in RINGS and run.group_name is None and not applied.finished.queue_empty:
            self._context.console.bell(f"{run.name} {state}")

    def _tell_of_groups(self, finished: Finished) -> None:
        # Everything is read before anything is told: a step that is done again must not tell twice.
        counted = [(name, groups.counts(self._context.database, name)) for name in finished.groups]
        database, now_s = self._context.database, self._context.clock.wall_s()
        ended = nights.counts(database, self._since_s, now_s) if finished.queue_empty else {}
        for name, counts in counted:
            self._hooks.fire("group_finished", {"group": name, "counts": counts})
            self._context.console.bell(
                f"group {name}: " + ", ".join(f"{n} {state}" for state, n in counts.items())
            )
        if finished.queue_empty:
            self._let_sleep()
            self._hooks.fire("queue_empty", {})
            self._context.console.bell("the queue is empty")
            told = done_words(ended, self._since_s)
            self._context.console.event("empty", more=f"the queue is empty: {told}; see: backprop report")
            self._since_s = self._context.clock.wall_s()


def _view(run: RunRecord, move: NextMove, state: State) -> dict[str, object]:
    return {
        "id": run.id,
        "name": run.name,
        "state": state.value,
        "reason": move.reason,
        "fault": move.fault.value if move.fault else None,
        "group": run.group_name,
        "cwd": run.spec.cwd,
        "argv": list(masked_words(run.spec.argv)),
        "segments": run.segment,
        "last_step": run.last_step,
        "last_loss": run.last_loss,
        "created_at_s": run.created_at_s,
    }


def end_unsatisfiable(context: Context) -> Finished:
    """Stop the runs whose dependencies can no longer be met; return the groups that this completed.

    Raises DatabaseBusy.
    """
    now_s = context.clock.wall_s()
    ended, finished = dependencies.end_unsatisfiable(context.database, now_s)
    outcomes: list[tuple[RunRecord, OutcomeFile]] = []
    for number, (run_id, why) in enumerate(ended):
        run = queries.run_by_id(context.database, run_id)
        if run is None:
            continue
        outcome = OutcomeFile(state=run.state.value, reason=why, segment=run.segment, ended_at_s=now_s)
        outcomes.append((run, outcome))
        if number < NAMED:
            context.console.event("stopped", run, why)
    if len(ended) > NAMED:
        context.console.event("stopped", more=f"{len(ended) - NAMED} more: their dependencies can't complete")
    with contextlib.suppress(OSError):
        batch_outcomes.write(context.home, outcomes)
    return finished
