"""Tracks the segments this worker owns: reads what they report, passes on what is asked of them, finds their ends."""

import contextlib
import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor.box_end import BoxCause
from backprop.scheduler.lifecycle import HAS_PROCESSES, Intent, State
from backprop.scheduler.outcome.job_end import JobEnd
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.context import Context
from backprop.worker.executor.base import EndUnreadable, Life
from backprop.worker.executor.breaker import Breaker
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.machine.monitor import RuntimeMonitor
from backprop.worker.machine.reader import MachineReadings
from backprop.worker.reactions.reactions import Reactions
from backprop.worker.segments.boxes.facts import Wanted
from backprop.worker.segments.boxes.segment_boxes import Surroundings
from backprop.worker.segments.boxes.suspender import Suspender
from backprop.worker.segments.finalize import Finalizer, FinishedSegment, segment_of
from backprop.worker.segments.isolation import Isolation
from backprop.worker.segments.jobs.attending import ClusterJobs
from backprop.worker.segments.live import LiveSegment, SegmentKey
from backprop.worker.user_files import NOT_YET, place_of

LEAVE_S: Final = 10.0
"""After this long without an answer it is said, and a worker that is to stop leaves the run to the next one."""

T = TypeVar("T")


class SegmentTracker:
    """Looks after live segments, one after the other; trouble with one run never stops the others."""

    def __init__(
        self,
        context: Context,
        monitor: RuntimeMonitor,
        reactions: Reactions,
        snapshot: MachineReadings,
    ) -> None:
        self._context = context
        self._isolation = Isolation(context)
        self._segments: dict[SegmentKey, LiveSegment] = {}
        self._silent_since_s: dict[SegmentKey, float] = {}
        self._monitor, self._reactions = monitor, reactions
        monitor.why_not_end = self._why_not_end
        monitor.suspend = self._suspend
        self.suspender = Suspender(
            context, snapshot, monitor.read_state, lambda run: self._live(run).why_not_leave(run)
        )
        self.out_of_hours = False
        """Runs may not start now, by the active hours."""
        self.wanted: Mapping[str, Wanted] = {}
        """Of the live runs those whose places could be used by waiting ones, by id."""
        self.checkpoints = CheckpointManager(context)
        self.breaker = Breaker(context.clock)
        self._finalizer = Finalizer(
            context, self.checkpoints, self._isolation, monitor, reactions, self.breaker
        )
        self._jobs = ClusterJobs(context, self._live, self._finish)

    def read_events(self) -> tuple[int, list[FinishedSegment]]:
        """Attend to every live run once. Return how many are to end or to go on, which are all but those that stay
        suspended, and those that have ended, for `finalize_ended`.

        Raises DatabaseBusy.
        """
        self._finalizer.react()
        self.checkpoints.report()
        runs, ended = self.live(), list[FinishedSegment]()
        self._jobs.begin_tick(runs)
        self._drop_settled({(run.id, run.segment) for run in runs})
        for run in runs:
            finished = self.attempt(run, lambda run=run: self._attend(run))
            if finished is not None:
                ended.append(finished)
        over = {finished.run.id for finished in ended}
        return sum(_counts(run) or run.id in over for run in runs), ended

    def unanswered(self) -> int:
        """Return how many live runs have long ended, and wait for the user's files to answer."""
        now_s = self._context.clock.monotonic_s()
        return sum(now_s - since_s >= LEAVE_S for since_s in self._silent_since_s.values())

    def finalize_ended(self, ended: Sequence[FinishedSegment]) -> int:
        """Apply ends to their runs; return how many were applied. Raises DatabaseBusy."""
        applied = 0
        for finished, result in zip(ended, self._finalizer.apply(ended), strict=True):
            key = (finished.run.id, finished.run.segment)
            if isinstance(result, LostRace):
                self._restart(key)
            elif isinstance(result, Exception):
                self._isolation.complain(finished.run, result)
            else:
                applied += 1
                self._silent_since_s.pop(key, None)
                self._segments.pop(key).close()
                self._finalizer.follow_up(finished, result)
        self._finalizer.react()
        return applied

    def live(self) -> list[RunRecord]:
        """Return the live runs this worker owns."""
        everybody = queries.live_runs(self._context.database)
        self.checkpoints.overseer.follow(everybody)
        return [run for run in everybody if run.worker == self._context.worker]

    def watched(self) -> list[RunRecord]:
        """Return those of them that may be paused or killed: none on a cluster, and none whose VRAM is being moved."""
        return [run for run in self.live() if run.cluster is None and not self.suspender.is_moving(run)]

    def yield_all(self, why: str) -> tuple[int, int]:
        """Ask every live segment to checkpoint and make room that loses nothing by it; return how many were asked, and
        how many are left alone, each with its supervisor."""
        asked, runs = 0, self.live()
        for run in filter(_counts, runs):
            if run.cluster is not None:
                continue  # its job needs no worker
            why_not = None if run.intent is not None else self._why_not_end(run, BoxCause.WORKER_STOP)
            if why_not is None:
                claims.ask_to_end(self._context.database, run, Intent.YIELD, why)
                asked += 1
            else:
                self._context.console.event("left", run, f"segment {run.segment} goes on: {why_not}")
        return asked, sum(map(_counts, runs)) - asked

    def being_left(self) -> int:
        """Return how many live runs nobody has asked to end."""
        left = filter(_counts, self.live())
        return sum(run.intent is None or run.cluster is not None for run in left)

    def _why_not_end(self, run: RunRecord, cause: BoxCause) -> str | None:
        return self._live(run).why_not_end(run, cause)

    def _suspend(self, run: RunRecord, why: str) -> bool:
        """Have a run suspended that is to make room; return whether that is under way."""
        with contextlib.suppress(OSError):
            segment = segment_of(self._context, run)
            if self.suspender.why_not(run, segment, newcomer=False, swaps=False) is None:
                self.suspender.begin(run, segment, why)
        return run.id in self.suspender.leaving

    def kill_all(self) -> None:
        """End every live segment now, but for the suspended ones: those wait for the next worker."""
        for run in filter(_counts, self.watched()):
            self.attempt(run, lambda run=run: self._context.executor.kill(run.id, run.segment))

    def could_not_start(self, run: RunRecord, result: SegmentResult) -> None:
        """Finalize a claimed segment whose supervisor could not be started. Raises LostRace, DatabaseBusy."""
        self._finalizer.could_not_start(run, result)
        self._finalizer.react()

    def attempt(self, run: RunRecord, action: Callable[[], T]) -> T | None:
        """As `Isolation.attempt`. Where the run has moved meanwhile, its live segment begins anew."""

        def guarded() -> T:
            try:
                return action()
            except LostRace:
                self._restart((run.id, run.segment))
                raise

        return self._isolation.attempt(run, guarded)

    def close(self) -> None:
        for segment in self._segments.values():
            segment.close()
        self.checkpoints.close()

    def _attend(self, run: RunRecord) -> FinishedSegment | None:
        """Attend to one live run; return its end once that has come."""
        if run.cluster is not None:
            return self._jobs.attend(run)
        live, exit_record = self._live(run), None
        try:
            life, exit_record = self._context.executor.poll(run.id, run.segment)
            segment = segment_of(self._context, run)
            if life in (Life.ENDED, Life.LOST):
                return self._finish(live, run, segment, exit_record)
        except EndUnreadable as error:
            if not live.patience.is_over(error):
                raise
            return self._finalizer.give_up(live, run, exit_record, error)
        live.patience.forget()
        if life is Life.UNSUPERVISED:
            live.supervise(run)
        live.observe(run, segment)
        if life is not Life.UNSUPERVISED:
            live.check_supervisor(run)
        if run.intent is not None and not self.suspender.is_moving(run):
            live.ask(run)
        live.read_events(run, segment)
        if life is not Life.UNSUPERVISED:  # then some of its processes may be out of sight
            live.check_hang(run, segment, self.suspender.is_moving(run), self._monitor.gpu_idle)
        was_leaving = run.id in self.suspender.leaving
        with contextlib.suppress(OSError):
            self.suspender.attend(run, segment)
        if run.state is State.SUSPENDED or (was_leaving and run.id not in self.suspender.leaving):
            return None  # in the second case the row is another one since
        if self.suspender.is_moving(run):
            return None  # it could not save
        with contextlib.suppress(OSError):
            # What cannot be decided in writing is not decided: the segment goes on.
            around = Surroundings(
                self.wanted.get(run.id), self.out_of_hours, self._monitor.gpu_was_busy, self.suspender
            )
            if live.keep_box(run, segment, around):
                self._reactions.renewed(run)
        if run.intent is None and run.state is State.RUNNING:
            self._end_early(run, live)
        return None

    def _finish(
        self,
        live: LiveSegment,
        run: RunRecord,
        segment: SegmentRecord,
        exit: ExitRecord | None,  # noqa: A002
        job: JobEnd | None = None,
    ) -> FinishedSegment | None:
        """As `Finalizer.finish`, None also while the user's files do not answer. Raises EndUnreadable for a file that
        the end cannot be understood without."""
        try:
            finished = self._finalizer.finish(live, run, segment, exit, job)
        except OSError as error:
            raise EndUnreadable(error.errno, error.strerror, error.filename) from error
        if finished is not NOT_YET:
            self._silent_since_s.pop(live.key, None)
            return finished
        now_s = self._context.clock.monotonic_s()
        since_s = self._silent_since_s.setdefault(live.key, now_s)
        if now_s - since_s < LEAVE_S:
            return None
        place = place_of(run.spec, self._context.files)
        raise EndUnreadable(errno.ETIMEDOUT, "it does not answer", place)

    def _end_early(self, run: RunRecord, live: LiveSegment) -> None:
        """Ask it to end where that is better than to wait for its supervisor's timebox."""
        end = live.early_end(run)
        if end is not None and claims.ask_to_end(self._context.database, run, *end):
            live.ask(msgspec.structs.replace(run, intent=end[0], intent_why=end[1]))

    def _live(self, run: RunRecord) -> LiveSegment:
        key = (run.id, run.segment)
        if key not in self._segments:
            self._segments[key] = LiveSegment(self._context, self.checkpoints, key)
        return self._segments[key]

    def _drop_settled(self, live: set[SegmentKey]) -> None:
        """Forget segments that another worker has settled while this one did not tick."""
        self.suspender.forget(live)
        for key in [key for key in self._segments if key not in live]:
            run = queries.run_by_id(self._context.database, key[0])
            gone = run is None or run.segment != key[1] or run.state not in HAS_PROCESSES
            # A suspended run may go on under another worker, which counts its times from then on.
            if gone or (run is not None and run.worker != self._context.worker):
                self._segments.pop(key).close()

    def _restart(self, key: SegmentKey) -> None:
        if key in self._segments:
            self._segments[key].restart()


def _counts(run: RunRecord) -> bool:
    """Return whether a worker waits for this run, and ends it: not for one that stays suspended."""
    return run.state is not State.SUSPENDED or run.intent is not None
