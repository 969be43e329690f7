"""What follows from a segment's end, besides the run's own move? The rest of its group, hooks, and a bell.

Who waits for what can never come any more? Such runs end as stopped, and that is on disk like every end.
"""

import contextlib
from collections.abc import Callable
from typing import Final

from backprop.scheduler.faults import WOULD_FAIL_AGAIN
from backprop.scheduler.home import batch_outcomes
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.outcome import NextMove
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store import dependencies, groups
from backprop.scheduler.store.groups import Finished
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes.claims import AppliedMove
from backprop.worker.context import Context
from backprop.worker.reactions.halving import Halving
from backprop.worker.reactions.hooks import Hooks

Step = Callable[[], None]
RINGS: Final = (State.COMPLETED, State.FAILED)


class Reactions:
    """One a worker. Told of every end it settles."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._hooks = Hooks(context)
        self._halving = Halving(context)

    def steps(self, run: RunRecord, verdict: NextMove, settled: AppliedMove) -> list[Step]:
        """What is to be done once the end is in the database, each once. Raise DatabaseBusy: then that one has to be
        done again."""
        over = settled.state in FINAL
        steps: list[Step] = [lambda: self._tell(run, verdict, settled)] if over else []
        if verdict.fault in WOULD_FAIL_AGAIN and settled.state is State.FAILED and run.segment == 1:
            steps.append(lambda: self._hold_rest(run, str(verdict.fault)))
        if over:
            steps.append(self.end_unmet)
        steps.append(lambda: self._halving.look(run.group_name))
        if over:
            steps.append(lambda: self._over(settled.finished))
        return steps

    def end_unmet(self) -> None:
        """End what waits in vain. Raises DatabaseBusy."""
        self._over(end_unsatisfiable(self._context))

    def pump(self) -> None:
        self._hooks.pump()

    def close(self) -> None:
        self._hooks.close()

    def _hold_rest(self, run: RunRecord, fault: str) -> None:
        held = groups.hold_rest(self._context.database, run, fault)
        if held:
            more = f"{held} more of group {run.group_name}: two ended at once with the same {fault}"
            self._context.console.event("held", more=more)

    def _tell(self, run: RunRecord, verdict: NextMove, settled: AppliedMove) -> None:
        told = {"run": _view(run, verdict, settled.state), "group": run.group_name}
        self._hooks.fire(settled.state.value, told)
        if settled.state in RINGS and run.group_name is None and not settled.finished.queue_empty:
            self._context.console.bell(f"{run.name} {settled.state}")

    def _over(self, finished: Finished) -> None:
        # All is read before anything is told: a step that is done again is not to tell twice.
        counted = [(name, groups.counts(self._context.database, name)) for name in finished.groups]
        for name, counts in counted:
            self._hooks.fire("group_finished", {"group": name, "counts": counts})
            self._context.console.bell(
                f"group {name}: " + ", ".join(f"{n} {state}" for state, n in counts.items())
            )
        if finished.queue_empty:
            self._hooks.fire("queue_empty", {})
            self._context.console.bell("the queue is empty")


def _view(run: RunRecord, verdict: NextMove, state: State) -> dict[str, object]:
    return {
        "id": run.id,
        "name": run.name,
        "state": state.value,
        "reason": verdict.reason,
        "fault": verdict.fault.value if verdict.fault else None,
        "group": run.group_name,
        "cwd": run.spec.cwd,
        "argv": list(run.spec.argv),
        "segments": run.segment,
        "last_step": run.last_step,
        "last_loss": run.last_loss,
        "created_at_s": run.created_at_s,
    }


SAID: Final = 5


def end_unsatisfiable(context: Context) -> Finished:
    """Stop the runs whose dependencies can never be met; what these were the last of. Raises DatabaseBusy."""
    now_s = context.clock.wall_s()
    ended, finished = dependencies.end_unsatisfiable(context.database, now_s)
    outcomes: list[tuple[RunRecord, OutcomeFile]] = []
    for number, (run_id, why) in enumerate(ended):
        run = queries.run_by_id(context.database, run_id)
        if run is None:
            continue
        outcome = OutcomeFile(state=run.state.value, reason=why, segment=run.segment, ended_at_s=now_s)
        outcomes.append((run, outcome))
        if number < SAID:
            context.console.event("stopped", run, why)
    if len(ended) > SAID:
        context.console.event("stopped", more=f"{len(ended) - SAID} more that wait in vain")
    with contextlib.suppress(OSError):
        batch_outcomes.write(context.home, outcomes)
    return finished
