"""Decides what the end of a segment makes of its run, and applies it.

Ends that are found in one tick are written in one transaction, each as its own compare-and-set. What follows from them
(the folder's outcome, hooks, the rest of a group) is done afterwards, each step once.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from backprop.scheduler.errors import BackpropError, LostRace
from backprop.scheduler.faults.last_line import port_in
from backprop.scheduler.governor.box_end import minutes
from backprop.scheduler.home import run_folder
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.outcome.job_end import JobEnd
from backprop.scheduler.outcome.move import NextMove, held_off, with_advice
from backprop.scheduler.outcome.next_move import EX_TEMPFAIL, next_move
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.scheduler.store.writes.claims import AppliedMove
from backprop.worker.checkpoints.fallback import failed_at_once, fallback
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.checkpoints.seen.noted import note
from backprop.worker.checkpoints.start_point import RunRows, checkpoints_of, rows_of
from backprop.worker.context import Context
from backprop.worker.environment.ports import PortNote, write_note
from backprop.worker.environment.presence import noted_mounts
from backprop.worker.executor.breaker import Breaker
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.machine.monitor import RuntimeMonitor
from backprop.worker.reactions.reactions import Reactions
from backprop.worker.segments.ends.chain import chain_of, chain_unseen
from backprop.worker.segments.ends.result import result_of, unreadable_end
from backprop.worker.segments.isolation import Isolation
from backprop.worker.segments.live import LiveSegment, ReadResult
from backprop.worker.supervisor import claim, failpoint
from backprop.worker.user_files import NOT_YET, NotYet, place_of


class FinishedSegment(msgspec.Struct, frozen=True):
    """A segment's end and the move it leads to. `run`: as it was read for that. `started_by`: the worker that started
    it."""

    run: RunRecord
    result: SegmentResult
    next_move: NextMove
    started_by: str


LONG_S: Final = 120.0
"""A longer time is told in minutes."""
Beside = tuple[tuple[str, int], ...]
"""Run id and segment of each."""


class Finalizer:
    """One per worker: keeps the steps that are still to be done."""

    def __init__(
        self,
        context: Context,
        checkpoints: CheckpointManager,
        isolation: Isolation,
        monitor: RuntimeMonitor,
        reactions: Reactions,
        breaker: Breaker,
    ) -> None:
        self._context = context
        self._breaker = breaker
        self._checkpoints = checkpoints
        self._isolation = isolation
        self._monitor = monitor
        self._reactions = reactions
        self._steps: deque[tuple[RunRecord, Callable[[], None]]] = deque()

    def finish(
        self,
        live: LiveSegment,
        run: RunRecord,
        segment: SegmentRecord,
        exit: ExitRecord | None,  # noqa: A002
        job: JobEnd | None = None,
    ) -> FinishedSegment | NotYet | None:
        """Return the move that the end of a live segment leads to; None while it left more output than is read at once
        or its checkpoint is being copied, NOT_YET while the user's files do not answer.

        `job`: how it ended as a job of a cluster. All of its output is read first: a checkpoint saved while no worker
        lived counts. Raises LostRace, OSError, DatabaseBusy.
        """
        database, files, key = self._context.database, self._context.files, ("judge", *live.key)
        if not files.is_asked(key):
            while (read := live.read_events(run, segment, final=True, exit=exit)) is ReadResult.OVERTAKEN:
                segment = segment_of(self._context, run)
            if read is ReadResult.MORE:
                return None
            if read is ReadResult.WAITING:
                return NOT_YET
            if read is ReadResult.STORED:
                run = queries.run_by_id(database, run.id) or run
                segment = segment_of(self._context, run)
            self._monitor.ended(run.id, run.segment, exit is not None and bool(exit.survivors))
        if self._checkpoints.is_copying(run):
            return None  # of a file that another run writes too, the copy alone counts
        folder, rows = self._context.executor.folder(run.id, run.segment), rows_of(database, run)
        beside = self._live_beside(run)
        with contextlib.suppress(OSError):
            note(folder, run.segment, rows.saved)

        def judge() -> FinishedSegment:
            result = result_of(run, segment, exit, folder, rows.saved, live.paused_between_s)
            if job is not None:
                result = msgspec.structs.replace(
                    result, job=job, by_engine=exit is not None and exit.ended_by == claim.ENGINE
                )
            return self._finished(run, segment, result, rows, beside)

        return files.ask(key, judge, place_of(run.spec, files))

    def give_up(
        self,
        live: LiveSegment,
        run: RunRecord,
        exit: ExitRecord | None,  # noqa: A002
        error: OSError,
    ) -> FinishedSegment:
        """Return the move that sets a run aside whose segment is over, and whose end can't be read: nothing of it runs,
        so its slot and its VRAM are free. What can be read of its output is read. Raises LostRace, DatabaseBusy.
        """
        segment = segment_of(self._context, run)
        with contextlib.suppress(OSError):
            if live.read_events(run, segment, final=True, exit=exit) is ReadResult.STORED:
                run = queries.run_by_id(self._context.database, run.id) or run
        self._monitor.ended(run.id, run.segment, exit is not None and bool(exit.survivors))
        result = unreadable_end(run, segment, exit, error)
        move = next_move(run.spec, result, chain_unseen(run, segment, result))
        return _judged(run, result, move, segment)

    def apply(self, ended: Sequence[FinishedSegment]) -> list[AppliedMove | Exception]:
        """Apply ends in one transaction and return what became of each.

        That is LostRace where somebody has applied it before or a stop was recorded meanwhile, another error where it
        cannot be written at all. Raises DatabaseBusy.
        """
        if not ended:
            return []  # most ticks: no transaction for nothing
        try:
            applied = self._context.database.write(lambda: [self._apply_one(finished) for finished in ended])
        except BackpropError:
            raise
        except Exception as error:
            # Whichever it was: the others are not to wait for it.
            return [error] if len(ended) == 1 else [self.apply([finished])[0] for finished in ended]
        failpoint.at("settled")
        return applied

    def follow_up(self, finished: FinishedSegment, applied: AppliedMove) -> None:
        """Note what follows from an end, once that is in the database; `react` does it."""
        run = finished.run
        self._tell_breaker(finished)
        steps = [
            lambda: self._announce(finished, applied),
            *self._reactions.steps(run, finished.next_move, applied),
        ]
        self._steps += [(run, step) for step in steps]

    def react(self) -> None:
        """Do what ends have led to, each step once. One that meets a busy database is done first the next time.

        Raises DatabaseBusy.
        """
        while self._steps:
            run, step = self._steps.popleft()
            try:
                self._isolation.attempt(run, step)
            except BackpropError:
                self._steps.appendleft((run, step))
                raise

    def could_not_start(self, run: RunRecord, result: SegmentResult) -> None:
        """Finalize a claimed segment whose supervisor could not be started. Raises LostRace, DatabaseBusy."""
        segment = queries.segment(self._context.database, run.id, run.segment)
        if segment is None:
            return
        files, rows = self._context.files, rows_of(self._context.database, run)
        key = ("not started", run.id, run.segment)
        finished = files.ask(key, lambda: self._finished(run, segment, result, rows, ()), run.spec.cwd)
        if finished is NOT_YET:
            files.forget(key)
            move = next_move(run.spec, result, chain_unseen(run, segment, result))
            finished = _judged(run, result, move, segment)
        (applied,) = self.apply([finished])
        if isinstance(applied, Exception):
            raise applied
        self.follow_up(finished, applied)

    def _finished(
        self, run: RunRecord, segment: SegmentRecord, result: SegmentResult, rows: RunRows, beside: Beside
    ) -> FinishedSegment:
        """Look at the run's checkpoints, in a thread. `beside`: the other live runs."""
        home = self._context.home
        saved, mounts = checkpoints_of(home, run, rows), noted_mounts(home.run_folder(run.id))
        earlier = [other for other in rows.segments if other.number < segment.number]
        if result.port_in_use is not None:
            self._note_port(run, result.port_in_use, beside)
        others_live = result.port_in_use is not None and bool(beside)
        at_once = _failed_at_once(segment, result, rows, earlier)
        other = fallback(home, run, rows, segment.checkpoint_used) if at_once else None
        chain = chain_of(run, segment, result, saved, earlier, mounts, others_live, at_once, other)
        failpoint.at("heard")
        return _judged(run, result, next_move(run.spec, result, chain), segment)

    def _note_port(self, run: RunRecord, line: str, beside: Beside) -> None:
        """Note which port a run has found taken, and which runs are live, of which one may have taken it."""
        context = self._context
        note = PortNote(
            port=port_in(line), segment=run.segment, beside=beside, noted_s=context.clock.wall_s()
        )
        write_note(context.home.run_folder(run.id), note)

    def _live_beside(self, run: RunRecord) -> Beside:
        live = queries.live_runs(self._context.database)
        return tuple((other.id, other.segment) for other in live if other.id != run.id)

    def _tell_breaker(self, finished: FinishedSegment) -> None:
        run, result = finished.run, finished.result
        if result.could_not_start is None or not result.passing:
            self._breaker.began((run.id, run.segment))
        elif finished.started_by == self._context.worker:
            # Another worker that died between claim and start says nothing about this machine.
            self._breaker.failed(f"{run.name} ({run.id}): {result.could_not_start}")

    def _apply_one(self, finished: FinishedSegment) -> AppliedMove | Exception:
        """Inside the transaction. A race that is lost has written nothing."""
        database, now_s = self._context.database, self._context.clock.wall_s()
        try:
            applied = claims.apply_result(database, finished.run, finished.next_move, finished.result, now_s)
        except LostRace as error:
            return error
        failpoint.at("settling")
        return applied

    def _announce(self, finished: FinishedSegment, applied: AppliedMove) -> None:
        run, reason = finished.run, finished.next_move.reason
        if applied.state in FINAL:
            self._write_outcome(run, applied, reason)
        self._checkpoints.rotate(run)
        if applied.state is State.COMPLETED:
            self._checkpoints.completed(run)
        event = "requeued" if applied.state is State.QUEUED else applied.state.value
        ran_s = finished.result.running_s
        told = [f"segment {run.segment}", f"{ran_s:.1f} s" if ran_s < LONG_S else minutes(ran_s)]
        told += [f"step {run.last_step:,}"] if run.last_step is not None else []
        told += [f"loss {run.last_loss:.4g}"] if run.last_loss is not None else []
        more = f"{', '.join(told)}: {reason}"
        self._context.console.event(event, run, more)

    def _write_outcome(self, run: RunRecord, applied: AppliedMove, reason: str) -> None:
        """Into the run's folder, for a database that has to be put together again. Of one that completed, the segment's
        `exit.json` says as much, and that is synced."""
        # The time of the end, not of this: what was resumed since then must not look as if it had ended after that.
        outcome = OutcomeFile(
            state=applied.state.value, reason=reason, segment=run.segment, ended_at_s=applied.at_s
        )
        with contextlib.suppress(OSError):
            folder = self._context.home.run_folder(run.id)
            run_folder.write_outcome(folder, outcome, synced=applied.state is not State.COMPLETED)


def _judged(run: RunRecord, result: SegmentResult, move: NextMove, segment: SegmentRecord) -> FinishedSegment:
    move = with_advice(held_off(move, run.suspension is not None, run.thaw_at_s), run.id)
    return FinishedSegment(run, result, move, segment.worker)


def segment_of(context: Context, run: RunRecord) -> SegmentRecord:
    """Return the row of a live run's segment. Raises LostRace when it is gone, DatabaseBusy."""
    segment = queries.segment(context.database, run.id, run.segment)
    if segment is None:
        raise LostRace(f"segment {run.segment} of {run.id} is gone")
    return segment


def _failed_at_once(
    segment: SegmentRecord, result: SegmentResult, rows: RunRows, earlier: Sequence[SegmentRecord]
) -> bool:
    """Return whether the segment ended by itself, and badly, before it did anything with its checkpoint."""
    failed = result.asked is None and not result.lost and result.exit_code not in (0, EX_TEMPFAIL)
    began = result.could_not_start is None
    return failed and began and failed_at_once(segment, result.running_s, rows.saved, earlier)
