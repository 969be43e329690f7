"""Decides what the end of a segment means for its run.

Pure: from what was asked, what happened and what the chain has done so far to one move of the state table, with its
reason in words. Three rules stand above the others:

- Intent wins over exit status. Once the stop signal was sent, a script's exit code means nothing: some exit 0, some 1,
  some 143. A run that had in fact finished resumes, exits 0 in seconds, and is completed then. The same holds for a
  script that `should_stop()` has told to stop. Exit 0 counts where its output shows the end as well; where its chain
  ends without that, its user is asked, and what waits for it to complete waits on.
- Exit code 75 (EX_TEMPFAIL of sysexits.h) means "checkpointed, run me again".
- No endless loops. A segment is progress only if it left a checkpoint newer than its start. Where no checkpoint exists
  at all the chain ends at once, since a resume would begin at zero; otherwise two segments in a row without progress
  end it. Lost segments, crash retries, and ends by a full disk or a taken port are counted and capped. A start that
  fails for a reason of the machine counts for nothing: it is tried again for as long as it takes.
"""

from typing import Final

import msgspec

from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.outcome import failures
from backprop.scheduler.outcome.chain_end import chain_end
from backprop.scheduler.outcome.group_budget import why_out
from backprop.scheduler.outcome.job_move import job_move
from backprop.scheduler.outcome.move import Advice, NextMove, ended
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.spec import RunSpec

EX_TEMPFAIL: Final = 75


def next_move(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    """Decide the move that a segment's end causes. Raises nothing."""
    move = _move(spec, result, chain)
    return msgspec.structs.replace(
        move, host_faults=move.host_faults or (0 if chain.progressed else chain.host_faults)
    )


def _move(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    if result.unreadable is not None:
        return failures.unreadable(result, chain)
    if (move := job_move(result, chain)) is not None:
        return move
    if result.wanted is Intent.STRANDED and result.asked in (None, Intent.STRANDED) and result.exit_code != 0:
        return _stranded(result, chain)
    if result.lost:
        return failures.lost(result, chain)
    if result.could_not_start is not None:
        return failures.not_started(spec, result, chain)
    if Intent.STOP in (result.asked, result.wanted) and not _finished_by_itself(result):
        return _stopped(SegmentOutcome.STOPPED, "stopped by the user", chain)
    if Intent.OUTRANKED in (result.asked, result.wanted) and not _finished_by_itself(result):
        return _stopped(SegmentOutcome.OUTRANKED, why_out(result.why_asked), chain)
    if Intent.NAN in (result.asked, result.wanted):
        return ended(SegmentOutcome.NAN, f"{result.why_asked}; check its checkpoints before you resume it")
    if result.asked is Intent.LIMIT:
        return failures.over_limit(result.why_asked)
    if result.shown_end is not None:
        how = f"finished: {result.shown_end}; {_exited_0(result)}"
        return NextMove(Event.COMPLETED, SegmentOutcome.COMPLETED, how)
    if result.hung:
        return failures.hung(spec, result, chain)
    if result.asked is Intent.YIELD:
        return _yielded(result, chain)
    if result.asked is Intent.TIMEBOX:
        return _chained(spec, result, chain, SegmentOutcome.TIMEBOXED)
    if result.asked is Intent.STARTED_OVER:
        return ended(SegmentOutcome.STARTED_OVER, f"started over: {result.why_asked}")
    if result.told:
        return _chained(spec, result, chain, SegmentOutcome.TIMEBOXED)
    if result.exit_code == 0:
        return NextMove(Event.COMPLETED, SegmentOutcome.COMPLETED, "exited 0")
    if result.exit_code == EX_TEMPFAIL:
        return _chained(spec, result, chain, SegmentOutcome.TEMPFAIL)
    if result.out_of_memory is not None:
        return failures.out_of_memory(spec, result, chain)
    return failures.failed(spec, result, chain)


def _finished_by_itself(result: SegmentResult) -> bool:
    """Return whether it exited 0 before any signal reached it, and not because `should_stop()` told it to. A stop that
    came later has nothing left to stop."""
    return result.asked is None and result.exit_code == 0 and not result.told


def _exited_0(result: SegmentResult) -> str:
    if result.told:
        return "exited 0 when should_stop() said so"
    return f"exited 0 {'after' if result.killed else 'within'} its grace"


def _stopped(outcome: SegmentOutcome, reason: str, chain: Chain) -> NextMove:
    advice = Advice(effect=" continues from its last checkpoint") if chain.resumable else None
    return NextMove(Event.STOPPED, outcome, reason, advice=advice)


def _stranded(result: SegmentResult, chain: Chain) -> NextMove:
    """Its VRAM did not come back: that is nobody's strike, and nothing starts over without its user's word."""
    stalled, lost = (0, 0) if chain.progressed else (chain.stalled, chain.lost)
    counters = (stalled, chain.retries_used, lost)
    why = f"its VRAM did not come back: {result.why_asked}"
    if chain.resumable:
        reason = f"{why}; resumes from its last checkpoint"
        return NextMove(Event.REQUEUED, SegmentOutcome.YIELDED, reason, *counters)
    reason = f"{why}; {chain.why_not_resumable}, so it would start from zero"
    advice = Advice(effect=" starts it again")
    return NextMove(Event.SET_ASIDE, SegmentOutcome.YIELDED, reason, *counters, advice=advice)


def _chained(spec: RunSpec, result: SegmentResult, chain: Chain, outcome: SegmentOutcome) -> NextMove:
    """The segment asked to be followed by another one, by its timebox's end or exit code 75."""
    timeboxed = outcome is SegmentOutcome.TIMEBOXED
    progressed = chain.progressed or (not timeboxed and chain.advanced)
    stalled = 0 if progressed else chain.stalled + 1
    if (stop := chain_end(spec, result, chain, stalled, timeboxed)) is not None:
        reason, advice = stop
        if timeboxed and result.exit_code == 0:
            advice = msgspec.structs.replace(advice, may_be_done=_exited_0(result))
        return NextMove(Event.TIMEBOXED, outcome, reason, stalled, chain.retries_used, advice=advice)
    what = (result.why_asked or "timebox reached") if timeboxed else "exited 75 (run me again)"
    if timeboxed and result.exit_code == 0:
        what += ", exit 0"
    if progressed:
        return NextMove(Event.REQUEUED, outcome, f"{what}; resumes from its newest checkpoint")
    start = (
        "resumes from an older checkpoint" if chain.resumable else f"starts again: {chain.why_not_resumable}"
    )
    longer = ", in a longer box" if timeboxed else ""
    reason = f"{what} without a new checkpoint; {start}{longer}"
    return NextMove(Event.REQUEUED, outcome, reason, stalled, chain.retries_used)


def _yielded(result: SegmentResult, chain: Chain) -> NextMove:
    why = result.why_asked or "asked to make room"
    start = (
        "resumes from its last checkpoint"
        if chain.resumable
        else f"will start from zero: {chain.why_not_resumable}"
    )
    # A yield is nobody's strike, nor does it wipe one out: a run that is lost again and again stays counted.
    stalled, lost = (0, 0) if chain.progressed else (chain.stalled, chain.lost)
    reason = f"paused for now: {why}; {start}"
    return NextMove(Event.REQUEUED, SegmentOutcome.YIELDED, reason, stalled, chain.retries_used, lost)
