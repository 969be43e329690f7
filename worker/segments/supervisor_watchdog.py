"""Is a supervisor late in ending its segment? The worker is the second pair of eyes on the timebox.

Counts the running time it has itself seen, on the monotonic clock, so that neither a jump of the wall clock nor a
pause makes a segment look late; what ran before it looked is not counted. A supervisor that somebody stopped
(SIGSTOP) is told to run on and does the rest itself; one that still does nothing is replaced. Not one that records the
end of its leader: it may have to wait until a disk has room again, and nobody else knows what it would record.
"""

from typing import Final

from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord
from backprop.worker.context import Context

LINGER_S: Final = 5.0
MARGIN_S: Final = 5.0
"""On top of timebox, grace and the supervisor's own 5 s after it: how late it may be on a loaded machine."""
REPLACE_AFTER_S: Final = 10.0

SegmentKey = tuple[str, int]


class SupervisorWatchdog:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen_s: dict[SegmentKey, float] = {}
        self._looked_s: dict[SegmentKey, float] = {}
        self._roused: set[SegmentKey] = set()

    def look(self, run: RunRecord) -> None:
        """Once a tick for each live, supervised segment."""
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        before_s = self._looked_s.get(key, now_s)
        self._looked_s[key] = now_s
        if run.state is not State.RUNNING:
            return
        self._seen_s[key] = self._seen_s.get(key, 0.0) + now_s - before_s
        box_s = run.spec.timebox_s * (1 + run.spec.overrun_pct / 100)
        late_s = self._seen_s[key] - (box_s + run.spec.grace_s + LINGER_S + MARGIN_S)
        if late_s > REPLACE_AFTER_S and not self._context.executor.is_recording(*key):
            self._context.console.event(
                "overdue", run, f"segment {run.segment}: its supervisor does nothing: replaced"
            )
            self._context.executor.replace(*key)
            self.forget(key)
        elif late_s > 0 and key not in self._roused:
            self._roused.add(key)
            self._context.console.event(
                "overdue", run, f"segment {run.segment}: its supervisor is {late_s:.0f} s late"
            )
            self._context.executor.rouse(*key)

    def forget(self, key: SegmentKey) -> None:
        self._seen_s.pop(key, None)
        self._looked_s.pop(key, None)
        self._roused.discard(key)
