"""What becomes of the segments this worker owns: hear them, pass on what they are asked, have their ends settled."""

import traceback
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from backprop.scheduler.errors import BackpropError, LostRace
from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.outcome import SegmentResult
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.context import Context
from backprop.worker.executor.base import Life
from backprop.worker.segments.event_recorder import EventRecorder, SegmentKey
from backprop.worker.segments.finalize import Ended, Finalizer, FinishedSegment, Moved, segment_of
from backprop.worker.segments.supervisor_watchdog import SupervisorWatchdog

SUPERVISE_AGAIN_S: Final = 5.0
COMPLAIN_AGAIN_S: Final = 60.0

T = TypeVar("T")


class SegmentTracker:
    """Looks after live segments, one after the other; trouble with one run never stops the others."""

    def __init__(self, context: Context, ended: Ended, moved: Moved | None = None) -> None:
        self._context = context
        self._asked: set[SegmentKey] = set()
        self._supervised_s: dict[SegmentKey, float] = {}
        self._watchdog = SupervisorWatchdog(context)
        self._complaints: dict[str, tuple[str, float]] = {}
        self.checkpoints = CheckpointManager(context)
        self._recorder = EventRecorder(context, self.checkpoints)
        self._finalizer = Finalizer(context, self._recorder, self.checkpoints, ended, moved)

    def track(self) -> int:
        """One look at every live run of this worker. Returns how many still live. Raises DatabaseBusy."""
        self._finalizer.catch_up(self.guarded)
        self.checkpoints.report()
        runs, ends = self.live(), list[FinishedSegment]()
        for run in runs:
            end = self.guarded(run, lambda run=run: self._tend_one(run))
            if end is not None:
                ends.append(end)
        return len(runs) - self._settle(ends)

    def live(self) -> list[RunRecord]:
        """The live runs this worker owns."""
        everybody = queries.live_runs(self._context.database)
        return [run for run in everybody if run.worker == self._context.worker]

    def yield_all(self, why: str) -> int:
        """Ask every live segment to checkpoint and make room; how many were asked."""
        runs = self.live()
        for run in runs:
            claims.ask_to_end(self._context.database, run, Intent.YIELD, why)
        return len(runs)

    def kill_all(self) -> None:
        for run in self.live():
            self._context.executor.kill(run.id, run.segment)

    def could_not_start(self, run: RunRecord, ending: SegmentResult) -> None:
        """Settle a claimed segment whose supervisor could not even be started. Raises LostRace, DatabaseBusy."""
        self._finalizer.could_not_start(run, ending)
        self._finalizer.catch_up(self.guarded)

    def close(self) -> None:
        self._recorder.close()
        self.checkpoints.close()

    def _tend_one(self, run: RunRecord) -> FinishedSegment | None:
        """Its end, when that has come."""
        life, exit_record = self._context.executor.poll(run.id, run.segment)
        segment = segment_of(self._context, run)
        if life in (Life.ENDED, Life.LOST):
            return self._finalizer.judge(run, segment, exit_record)
        if life is Life.UNSUPERVISED:
            self._supervise(run)
        else:
            self._watchdog.look(run)
        self._recorder.look(run, segment)
        if run.intent is not None:
            self._ask(run)
        self._recorder.hear(run, segment)
        if run.intent is None and run.state is State.RUNNING:
            self._end_early(run)
        return None

    def _settle(self, ends: list[FinishedSegment]) -> int:
        """How many have been settled."""
        done = 0
        for end, settled in zip(ends, self._finalizer.write(ends), strict=True):
            if isinstance(settled, Exception):
                self.guarded(end.run, lambda error=settled: _raise(error))
                continue
            done += 1
            key = (end.run.id, end.run.segment)
            self._forget(key)
            self._recorder.ended(key)
            self._finalizer.follow(end, settled)
        self._finalizer.catch_up(self.guarded)
        return done

    def guarded(self, run: RunRecord, look: Callable[[], T]) -> T | None:
        """What `look` comes to; None when it fails, which concerns this run alone. Raises DatabaseBusy."""
        try:
            return look()
        except LostRace:
            # Moved under our eyes, by the user's stop say; the next look sees it as it is now.
            self._forget((run.id, run.segment))
        except BackpropError:
            raise
        except Exception:
            self._complain(run, traceback.format_exc(limit=-3).replace("\n", " | "))
        return None

    def _complain(self, run: RunRecord, what: str) -> None:
        """Say it, but not with every tick."""
        said, said_s = self._complaints.get(run.id, ("", 0.0))
        now_s = self._context.clock.monotonic_s()
        if said != what or now_s - said_s > COMPLAIN_AGAIN_S:
            self._complaints[run.id] = (what, now_s)
            self._context.console.event("trouble", run, what)

    def _ask(self, run: RunRecord) -> None:
        key = (run.id, run.segment)
        if key not in self._asked:
            self._asked.add(key)
            self._context.executor.ask(*key)
            self._context.console.event(
                "stopping", run, f"segment {run.segment}: {run.intent_why or 'asked by the user'}"
            )

    def _end_early(self, run: RunRecord) -> None:
        """Ask it to end where that is better than to wait for its supervisor's timebox."""
        wish = self._recorder.wish(run)
        if wish is not None and claims.ask_to_end(self._context.database, run, *wish):
            self._ask(msgspec.structs.replace(run, intent=wish[0], intent_why=wish[1]))

    def _supervise(self, run: RunRecord) -> None:
        key, now_s = (run.id, run.segment), self._context.clock.monotonic_s()
        if now_s - self._supervised_s.get(key, -SUPERVISE_AGAIN_S) >= SUPERVISE_AGAIN_S:
            self._supervised_s[key] = now_s
            self._asked.discard(key)
            self._context.console.event(
                "adopted", run, f"segment {run.segment} lives on without a supervisor: a new one"
            )
            self._context.executor.supervise(*key)

    def _forget(self, key: SegmentKey) -> None:
        self._recorder.forget(key)
        self._supervised_s.pop(key, None)
        self._watchdog.forget(key)
        self._asked.discard(key)


def _raise(error: Exception) -> None:
    raise error
