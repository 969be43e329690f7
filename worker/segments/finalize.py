"""Segments have ended: what does that make of their runs? Facts gathered, judged, written together, told.

Ends that are found in one tick are written in one transaction, each as its own compare-and-set.
"""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backprop.scheduler.errors import BackpropError, LostRace
from backprop.scheduler.home import run_folder
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.outcome import NextMove, SegmentResult, next_move, with_advice
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.scheduler.store.writes.claims import AppliedMove
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.checkpoints.start_point import checkpoints_of
from backprop.worker.context import Context
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.segments.event_recorder import EventRecorder, ReadResult
from backprop.worker.segments.result import chain_of, result_of
from backprop.worker.supervisor import failpoint

Ended = Callable[[str, int, bool], None]
"""Told (run id, segment, whether processes survive it) of each end."""
Moved = Callable[[RunRecord, NextMove, AppliedMove], Sequence[Callable[[], None]]]
"""What else each end leads to once its run has moved, step by step."""


@dataclass(frozen=True)
class FinishedSegment:
    """A segment's end as it was judged. `run`: as it was read for that."""

    run: RunRecord
    ending: SegmentResult
    verdict: NextMove


class Finalizer:
    def __init__(
        self,
        context: Context,
        recorder: EventRecorder,
        checkpoints: CheckpointManager,
        ended: Ended,
        moved: Moved | None = None,
    ) -> None:
        self._context = context
        self._recorder = recorder
        self._checkpoints = checkpoints
        self._ended = ended
        self._moved = moved
        self._left: deque[tuple[RunRecord, Callable[[], None]]] = deque()

    def judge(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        exit: ExitRecord | None,  # noqa: A002
    ) -> FinishedSegment | None:
        """What the end of a live segment means; None while there is more to hear of it than fits into one look.
        Everything said is heard first: a checkpoint saved while no worker lived counts. Raises LostRace, OSError,
        DatabaseBusy."""
        database = self._context.database
        while (told := self._recorder.hear(run, segment, final=True, exit=exit)) is ReadResult.OVERTAKEN:
            segment = segment_of(self._context, run)
        if told is ReadResult.MORE:
            return None
        if told is ReadResult.STORED:
            run = queries.run_by_id(database, run.id) or run
            segment = segment_of(self._context, run)
        self._ended(run.id, run.segment, exit is not None and bool(exit.survivors))
        ending = result_of(
            run,
            segment,
            exit,
            self._context.executor.folder(run.id, run.segment),
            queries.checkpoints(database, run.id),
            functools.partial(self._recorder.paused_between_s, (run.id, run.segment)),
        )
        return self._judged(run, segment, ending)

    def write(self, ends: Sequence[FinishedSegment]) -> list[AppliedMove | Exception]:
        """Apply them in one transaction; what became of each: LostRace where somebody has settled it before or a stop
        was recorded meanwhile, another error where one cannot be written at all. Raises DatabaseBusy."""
        if not ends:
            return []  # most ticks: no transaction for nothing
        try:
            written = self._context.database.write(lambda: [self._written(one) for one in ends])
        except BackpropError:
            raise
        except Exception as error:
            # Whichever it was: the others are not to wait for it.
            return [error] if len(ends) == 1 else [self.write([one])[0] for one in ends]
        failpoint.at("settled")
        return written

    def follow(self, end: FinishedSegment, settled: AppliedMove) -> None:
        """Note what an end leads to, once it is in the database; `catch_up` does it."""
        run, verdict = end.run, end.verdict
        steps: list[Callable[[], None]] = [lambda: self._tell(end, settled)]
        if self._moved is not None:
            steps += self._moved(run, verdict, settled)
        self._left += [(run, step) for step in steps]

    def catch_up(self, guarded: Callable[[RunRecord, Callable[[], None]], object]) -> None:
        """Do what ends have led to. Each step is done once, and one that found the database busy first the next time.
        `guarded`: carries a step out, and keeps trouble with its run from the others. Raises DatabaseBusy."""
        while self._left:
            run, step = self._left.popleft()
            try:
                guarded(run, step)
            except BackpropError:
                self._left.appendleft((run, step))
                raise

    def _tell(self, end: FinishedSegment, settled: AppliedMove) -> None:
        run, verdict = end.run, end.verdict
        if settled.state in FINAL:
            self._write_outcome(run, settled, verdict.reason)
        if settled.state is State.COMPLETED:
            self._checkpoints.completed(run)
        what = "requeued" if settled.state is State.QUEUED else settled.state.value
        told = f"segment {run.segment}, {end.ending.running_s:.1f} s: {verdict.reason}"
        self._context.console.event(what, run, told)

    def could_not_start(self, run: RunRecord, ending: SegmentResult) -> None:
        """Settle a claimed segment whose supervisor could not even be started. Raises LostRace, DatabaseBusy."""
        segment = queries.segment(self._context.database, run.id, run.segment)
        if segment is None:
            return
        end = self._judged(run, segment, ending)
        (settled,) = self.write([end])
        if isinstance(settled, Exception):
            raise settled
        self._recorder.ended((run.id, run.segment))
        self.follow(end, settled)

    def _judged(self, run: RunRecord, segment: SegmentRecord, ending: SegmentResult) -> FinishedSegment:
        chain = chain_of(
            run, segment, ending, checkpoints_of(self._context.home, self._context.database, run)
        )
        failpoint.at("heard")
        return FinishedSegment(run, ending, with_advice(next_move(run.spec, ending, chain), run.id))

    def _written(self, end: FinishedSegment) -> AppliedMove | Exception:
        """Inside the transaction. A race that is lost has written nothing."""
        now_s = self._context.clock.wall_s()
        try:
            return claims.apply_result(self._context.database, end.run, end.verdict, end.ending, now_s)
        except LostRace as error:
            return error

    def _write_outcome(self, run: RunRecord, settled: AppliedMove, reason: str) -> None:
        """Into the run's folder, for a database that has to be put together again. Of one that completed, the segment's
        `exit.json` says as much, and that is synced."""
        # The time of the end, not of this: what was resumed since then must not look as if it had ended after that.
        outcome = OutcomeFile(
            state=settled.state.value, reason=reason, segment=run.segment, ended_at_s=settled.at_s
        )
        with contextlib.suppress(OSError):
            folder = self._context.home.run_folder(run.id)
            run_folder.write_outcome(folder, outcome, synced=settled.state is not State.COMPLETED)


def segment_of(context: Context, run: RunRecord) -> SegmentRecord:
    """The row of a live run's segment. Raises LostRace when it is gone, DatabaseBusy."""
    found = queries.segment(context.database, run.id, run.segment)
    if found is None:
        raise LostRace(f"segment {run.segment} of {run.id} is gone")
    return found
