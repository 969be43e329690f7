"""Notices a supervisor that is late in ending its segment. The worker is the second pair of eyes on the timebox.

Counts the running time that it has itself observed, on the monotonic clock, so that neither a jump of the wall clock
nor a pause makes a segment look late; time before the first observation is not counted. A supervisor that somebody
stopped (SIGSTOP) is told to run on and does the rest itself. One that still does nothing is replaced, unless it is
recording the end of its leader: it may have to wait until a disk has room again, and nobody else knows what it would
record.
"""

from typing import Final

from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord
from backprop.worker.context import Context

LINGER_S: Final = 5.0
MARGIN_S: Final = 5.0
"""On top of timebox, grace and the supervisor's own 5 s after it: how late it may be on a loaded machine."""
REPLACE_AFTER_S: Final = 10.0


class SupervisorWatchdog:
    """Watches the supervisor of one segment."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reset()

    def check(self, run: RunRecord, end_s: float | None) -> None:
        """Call once per tick while the segment has a supervisor. `end_s`: when that is to end it, in seconds of running
        time; None while it may go on."""
        now_s = self._context.clock.monotonic_s()
        before_s = self._checked_s if self._checked_s is not None else now_s
        self._checked_s = now_s
        if run.state is not State.RUNNING:
            return
        self._observed_s += now_s - before_s
        if end_s is None:
            return
        late_s = self._observed_s - (end_s + run.spec.grace_s + LINGER_S + MARGIN_S)
        executor, key = self._context.executor, (run.id, run.segment)
        if late_s > REPLACE_AFTER_S and not executor.is_recording(*key):
            executor.replace(*key)
            self._context.console.event(
                "overdue", run, f"segment {run.segment}: supervisor was unresponsive, replaced"
            )
            self._reset()
        elif late_s > 0 and not self._roused:
            executor.rouse(*key)
            self._roused = True
            self._context.console.event(
                "overdue", run, f"segment {run.segment}: its supervisor is {late_s:.0f} s late"
            )

    def _reset(self) -> None:
        self._observed_s = 0.0
        self._checked_s: float | None = None
        self._roused = False
