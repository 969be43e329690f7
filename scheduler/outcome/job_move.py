"""Decides what the end of a cluster's job means for its run, where the cluster had a part in it.

Pure. What never began is no strike. What the cluster ended for its own reasons is none either, and goes on; what a
person cancelled there stays stopped, since whoever typed that did not want it back in a second.
"""

from typing import Final

from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.outcome.job_end import JobEnd, JobEndKind
from backprop.scheduler.outcome.move import Advice, NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult

NEVER_BEGAN_CAP: Final = 5
"""So many jobs in a row that end before they begin set a run aside."""
WAIT_S: Final = 30.0


def job_move(result: SegmentResult, chain: Chain) -> NextMove | None:
    """Return the move that a job's end leads to; None where the segment's own end says all."""
    job = result.job
    if job is None:
        return None
    if job.kind in (JobEndKind.NEVER_BEGAN, JobEndKind.WITHDRAWN, JobEndKind.REFUSED):
        return _never_began(result, chain, job)
    if not (result.by_engine or result.lost or job.kind is JobEndKind.OUT_OF_MEMORY):
        return None
    if job.kind is JobEndKind.OUT_OF_MEMORY and result.exit_code != 0:
        return None  # a failure, with a reason of its own: see `words_of_failure`
    if result.wanted in (Intent.STOP, Intent.OUTRANKED):
        return None
    if job.kind is JobEndKind.CANCELLED:
        advice = Advice(effect=" continues it") if chain.resumable else None
        why = f"{job.name} was cancelled in the cluster"
        return NextMove(Event.STOPPED, SegmentOutcome.STOPPED, why, advice=advice)
    if job.kind is JobEndKind.PREEMPTED or result.by_engine:
        return _yielded(chain, job)
    return None


def _never_began(result: SegmentResult, chain: Chain, job: JobEnd) -> NextMove:
    counters = (chain.stalled, chain.retries_used, chain.lost)
    if result.wanted in (Intent.STOP, Intent.OUTRANKED):
        advice = Advice(effect=" continues from its last checkpoint") if chain.resumable else None
        why = "stopped by the user before its job began"
        return NextMove(Event.STOPPED, SegmentOutcome.NOT_STARTED, why, advice=advice)
    if job.kind is JobEndKind.REFUSED:
        why = f"the cluster refuses it: {job.words}; edit it, then release it"
        return NextMove(Event.SET_ASIDE, SegmentOutcome.NOT_STARTED, why, *counters)
    if result.wanted is not None or job.kind is JobEndKind.WITHDRAWN:
        why = f"withdrawn: {result.why_asked or job.words}"
        return NextMove(Event.REQUEUED, SegmentOutcome.NOT_STARTED, why, *counters)
    if chain.unstarted + 1 >= NEVER_BEGAN_CAP:
        why = f"its jobs end before they begin: {job.words}; release it once that is mended"
        return NextMove(Event.SET_ASIDE, SegmentOutcome.NOT_STARTED, why, *counters)
    delay_s = WAIT_S if chain.unstarted else 0.0
    return NextMove(Event.REQUEUED, SegmentOutcome.NOT_STARTED, job.words, *counters, delay_s)


def _yielded(chain: Chain, job: JobEnd) -> NextMove:
    """It goes on: the cluster took its place, its time or its node away."""
    stalled, lost = (0, 0) if chain.progressed else (chain.stalled, chain.lost)
    words = job.words if job.kind is JobEndKind.PREEMPTED else "ended by the cluster"
    start = (
        "resumes from its last checkpoint" if chain.resumable else f"starts again: {chain.why_not_resumable}"
    )
    reason = f"yielded: {words} ({job.name}); {start}"
    return NextMove(Event.REQUEUED, SegmentOutcome.YIELDED, reason, stalled, chain.retries_used, lost)
