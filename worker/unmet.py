"""Who waits for what can never come any more? Such runs end as stopped, and that is on disk like every end."""

import contextlib
from typing import Final

from backprop.scheduler import batches, dependencies, reads
from backprop.scheduler.finished import Finished
from backprop.scheduler.folders import OutcomeFile
from backprop.scheduler.records import RunRecord
from backprop.worker.context import Context

SAID: Final = 5


def end_unmet(context: Context) -> Finished:
    """Stop the runs whose dependencies can never be met; what these were the last of. Raises DatabaseBusy."""
    now_s = context.clock.wall_s()
    ended, finished = dependencies.end_impossible(context.database, now_s)
    outcomes: list[tuple[RunRecord, OutcomeFile]] = []
    for number, (run_id, why) in enumerate(ended):
        run = reads.run_by_id(context.database, run_id)
        if run is None:
            continue
        outcome = OutcomeFile(state=run.state.value, reason=why, segment=run.segment, ended_at_s=now_s)
        outcomes.append((run, outcome))
        if number < SAID:
            context.talk.say("stopped", run, why)
    if len(ended) > SAID:
        context.talk.say("stopped", more=f"{len(ended) - SAID} more that wait in vain")
    with contextlib.suppress(OSError):
        batches.write_outcomes(context.home, outcomes)
    return finished
