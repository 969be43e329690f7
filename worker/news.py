"""What follows from a segment's end, besides the run's own move? The rest of its group, hooks, and a bell."""

from typing import Final

from backprop.scheduler import groups
from backprop.scheduler.claims import Settled
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.outcome import Verdict
from backprop.scheduler.records import RunRecord
from backprop.scheduler.triage import WOULD_FAIL_AGAIN
from backprop.worker.context import Context
from backprop.worker.halving import Halving
from backprop.worker.hooks import Hooks
from backprop.worker.unmet import end_unmet

RINGS: Final = (State.COMPLETED, State.FAILED)


class News:
    """One a worker. Told of every end it settles."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._hooks = Hooks(context)
        self._halving = Halving(context)

    def settled(self, run: RunRecord, verdict: Verdict, settled: Settled) -> None:
        """Call after the end is in the database. Raises DatabaseBusy."""
        context = self._context
        if verdict.fault in WOULD_FAIL_AGAIN and settled.state is State.FAILED and run.segment == 1:
            held = groups.hold_rest(context.database, run, str(verdict.fault))
            if held:
                more = (
                    f"{held} more of group {run.group_name}: two ended at once with the same {verdict.fault}"
                )
                context.talk.say("held", more=more)
        if settled.state in FINAL:
            end_unmet(context)
        self._halving.look(run.group_name)
        if settled.state in FINAL:
            self._tell(run, verdict, settled)

    def pump(self) -> None:
        self._hooks.pump()

    def close(self) -> None:
        self._hooks.close()

    def _tell(self, run: RunRecord, verdict: Verdict, settled: Settled) -> None:
        talk = self._context.talk
        told = {"run": _view(run, verdict, settled.state), "group": run.group_name}
        self._hooks.fire(settled.state.value, told)
        if settled.group_finished:
            counts = groups.counts(self._context.database, run.group_name or "")
            self._hooks.fire("group_finished", {"group": run.group_name, "counts": counts})
            talk.ring(f"group {run.group_name}: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
        if settled.queue_empty:
            self._hooks.fire("queue_empty", {})
            talk.ring("the queue is empty")
        elif settled.state in RINGS and run.group_name is None:
            talk.ring(f"{run.name} {settled.state}")


def _view(run: RunRecord, verdict: Verdict, state: State) -> dict[str, object]:
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
