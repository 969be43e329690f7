"""What have live segments said and saved, and should one of them end now because of it?"""

import functools
from enum import Enum
from typing import Final

from backprop.scheduler.lifecycle import Intent
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, progress
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.context import Context
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.segments.cadence import Cadence, ClockReading
from backprop.worker.segments.log_reader import LogReader
from backprop.worker.segments.tail import MAX_READ_BYTES

HEAR_EVERY_S: Final = 1.0
"""At most one transaction a second for a segment's events: a writer without pauses starves the others."""

FINAL_BYTES: Final = 16 * 1024 * 1024
UNREADABLE_S: Final = 30.0
"""After so long a file that cannot be read is left out: a run that never ends would hold its GPU, and its worker."""

SegmentKey = tuple[str, int]


class ReadResult(Enum):
    NOTHING = 1
    """Nothing that was worth a transaction."""
    STORED = 2
    MORE = 4
    """It has ended, and has said more than is to be read at once: a gigabyte takes a minute, in which nobody else would
    be looked after."""
    OVERTAKEN = 3
    """Somebody has stored since the row was read: nothing was, and the next call begins where the row stands then."""


class EventRecorder:
    """One a worker. Remembers each live segment until it is told that it has ended."""

    def __init__(self, context: Context, checkpoints: CheckpointManager) -> None:
        self._context = context
        self._checkpoints = checkpoints
        self._listeners: dict[SegmentKey, LogReader] = {}
        self._heard_s: dict[SegmentKey, float] = {}
        self._paces: dict[SegmentKey, Cadence] = {}
        self._unreadable_s: dict[SegmentKey, float] = {}

    def look(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Once a tick for each that lives. Raises DatabaseBusy."""
        key, clock = (run.id, run.segment), self._context.clock
        now = ClockReading(clock.wall_s(), clock.monotonic_s())
        if key not in self._paces:
            database = self._context.database
            earlier = [one for one in queries.segments(database, run.id) if one.number < run.segment]
            self._paces[key] = Cadence(run, segment, earlier, queries.checkpoints(database, run.id), now)
        self._paces[key].look(run.state, now)

    def hear(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        final: bool = False,
        exit: ExitRecord | None = None,  # noqa: A002
    ) -> ReadResult:
        """Store what it said and saved since the last time. `final`: it has ended, as `exit` says. Raises OSError,
        DatabaseBusy."""
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        due = final or now_s - self._heard_s.get(key, -HEAR_EVERY_S) >= HEAR_EVERY_S
        if not due and not self._near(run):
            return ReadResult.NOTHING
        self._heard_s[key] = now_s
        if final and key in self._paces:
            # It may have been paused since the last tick.
            self._paces[key].look(run.state, ClockReading(self._context.clock.wall_s(), now_s))
        listener = self._listener(run, segment)
        leave = now_s - self._unreadable_s.get(key, now_s) >= UNREADABLE_S
        more = False
        try:
            if final and not leave and listener.unread_bytes() > FINAL_BYTES:
                more, seen = True, ()
            elif final:
                seen = self._checkpoints.final_scan(run, segment, exit)
            else:
                seen = self._checkpoints.scan(run, segment, hurry=self._near(run))
            heard = listener.hear(final and not more, seen, FINAL_BYTES if more else MAX_READ_BYTES, leave)
            if not leave:
                self._unreadable_s.pop(key, None)
            elif final and listener.left_out:
                told = f"goes on without what cannot be read: {', '.join(listener.left_out)}"
                self._context.console.event("trouble", run, told)
            if heard is None:
                return ReadResult.MORE if more else ReadResult.NOTHING
            if not progress.record(self._context.database, run.id, run.segment, heard):
                self.forget(key)
                return ReadResult.OVERTAKEN
        except BaseException as error:
            if isinstance(error, OSError):
                self._unreadable_s.setdefault(key, now_s)
            # It has read on, and nothing is stored: whatever was in there is to be heard again.
            self._listeners.pop(key).close()
            self._checkpoints.forget(key)
            raise
        listener.stored(heard)
        self._follow(run, heard, final)
        return ReadResult.MORE if more else ReadResult.STORED

    def wish(self, run: RunRecord) -> tuple[Intent, str] | None:
        """Why it should be asked to end now rather than at its supervisor's timebox; None to let it run."""
        key = (run.id, run.segment)
        pace, listener = self._paces.get(key), self._listeners.get(key)
        if pace is None or listener is None:
            return None
        folder = functools.partial(self._context.executor.folder, run.id)
        return pace.wish(_announces(run, listener), listener.steps, folder)

    def paused_between_s(self, key: SegmentKey, from_s: float, to_s: float) -> float:
        """How much of a span of the wall clock a segment was paused, as far as was seen."""
        pace = self._paces.get(key)
        return pace.paused_between_s(from_s, to_s) if pace is not None else 0.0

    def forget(self, key: SegmentKey) -> None:
        """Listen to it anew, from where the row stands."""
        listener = self._listeners.pop(key, None)
        if listener is not None:
            listener.close()
        self._checkpoints.forget(key)
        self._heard_s.pop(key, None)

    def ended(self, key: SegmentKey) -> None:
        self.forget(key)
        self._paces.pop(key, None)
        self._unreadable_s.pop(key, None)

    def close(self) -> None:
        for key in list(self._listeners):
            self.forget(key)

    def _listener(self, run: RunRecord, segment: SegmentRecord) -> LogReader:
        key = (run.id, run.segment)
        listener = self._listeners.get(key)
        if listener is not None and not listener.stands_at(segment):
            # The row is another one: the database was put together anew under us.
            self._checkpoints.forget(key)
            listener.close()
            listener = None
        if listener is None:
            listener = LogReader(run, segment, self._context.executor.folder(*key))
            self._listeners[key] = listener
        return listener

    def _follow(self, run: RunRecord, heard: progress.SegmentReport, final: bool) -> None:
        """What was heard is stored."""
        console, key = self._context.console, (run.id, run.segment)
        if key in self._paces:
            self._paces[key].heard([*heard.checkpoints, *heard.spotted], self._context.clock.wall_s())
        if heard.nonfinite and run.spec.stop_on_nan and not final:
            step = f" at step {heard.last_step}" if heard.last_step is not None else ""
            claims.ask_to_end(self._context.database, run, Intent.NAN, f"its loss is NaN{step}")
        for saved in (*heard.checkpoints, *heard.spotted):
            if saved.refused:
                console.event("refused", run, f"checkpoint {saved.path}: {saved.refused}")
            else:
                console.debug("checkpoint", run, f"step {saved.step}: {saved.path}")

    def _near(self, run: RunRecord) -> bool:
        """Whether recorder of a save a second late would matter."""
        key = (run.id, run.segment)
        pace, listener = self._paces.get(key), self._listeners.get(key)
        return pace is not None and listener is not None and pace.is_near(_announces(run, listener))


def _announces(run: RunRecord, listener: LogReader) -> bool:
    """Whether it says itself when it has saved. Whose checkpoints are looked for may do so all the same."""
    return listener.announces or run.spec.plan is None or not run.spec.plan.globs
