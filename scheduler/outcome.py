"""A segment has ended: what does that mean for its run?

Pure: from what was asked, what happened and what the chain has done so far to one move of the state table, with
its reason in words. Three rules stand above the others:

- Intent wins over exit status. Once the stop signal was sent, a script's exit code means nothing: some exit 0,
  some 1, some 143. A run that had in fact finished resumes, exits 0 in seconds, and is completed then.
- Exit code 75 (EX_TEMPFAIL of sysexits.h) means "checkpointed, run me again".
- No endless loops. A segment is progress only if it left a checkpoint newer than its start. Where no checkpoint
  exists at all the chain ends at once, since a resume would begin at zero; otherwise two segments in a row
  without progress end it. Lost segments and crash retries are counted and capped.
"""

from dataclasses import dataclass, replace
from typing import Final

from backprop.scheduler.faults import WOULD_FAIL_AGAIN, Fault, fault_of
from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.spec import RunSpec

EX_TEMPFAIL: Final = 75
STALLED_CAP: Final = 2
LOST_CAP: Final = 3
BACKOFF_BASE_S: Final = 10.0
BACKOFF_CAP_S: Final = 600.0


@dataclass(frozen=True)
class SegmentResult:
    """How one segment ended.

    `asked`: what the leader had been signalled for before it exited; None if it exited by itself.
    `wanted`: what was recorded but perhaps never delivered. `exit_code` is None when a signal ended the leader
    or nobody saw it end. `lost`: no process is left and no exit record was written.
    `could_not_start`: why the leader never ran. `passing`: that reason is one that passes by itself (EAGAIN).
    `out_of_memory`: the line of its log that says so, when it ran out of GPU memory. `cut_cost_s`: running time between
    its newest good checkpoint and the signal that ended it; None where none was sent.
    """

    asked: Intent | None = None
    wanted: Intent | None = None
    exit_code: int | None = None
    signal_name: str | None = None
    lost: bool = False
    could_not_start: str | None = None
    passing: bool = False
    killed: bool = False
    last_line: str | None = None
    why_asked: str | None = None
    running_s: float = 0.0
    first_sign_s: float | None = None
    out_of_memory: str | None = None
    cut_cost_s: float | None = None


@dataclass(frozen=True)
class Chain:
    """What the run has done so far, this segment included. Times in seconds.

    `progressed`: this segment left a good checkpoint newer than its start. `resumable`: any good one is known.
    `advanced`: the highest step reported rose during this segment. `promised_mib`, `peak_mib`: VRAM per GPU that
    was reserved for it, and seen used by it.
    """

    segments: int
    total_s: float
    stalled: int
    retries_used: int
    lost: int
    progressed: bool
    resumable: bool
    advanced: bool = False
    promised_mib: int = 0
    peak_mib: int | None = None
    oom_retries: int = 0


@dataclass(frozen=True)
class NextMove:
    """One move, with the run's new counters. `outcome` names the segment's end; `delay_s`: not claimed before.
    `need_mib`: the VRAM to reserve from now on, when it has to be raised. `fault`: the kind of trouble."""

    event: Event
    outcome: str
    reason: str
    stalled: int = 0
    retries_used: int = 0
    lost: int = 0
    delay_s: float = 0.0
    need_mib: int | None = None
    fault: Fault | None = None


def next_move(spec: RunSpec, ending: SegmentResult, chain: Chain) -> NextMove:
    """Decide the move that a segment's end causes. Raises nothing."""
    if ending.lost:
        return _lost(ending, chain)
    if ending.could_not_start is not None:
        return _not_started(spec, ending, chain)
    if Intent.STOP in (ending.asked, ending.wanted) and not _finished_by_itself(ending):
        return NextMove(Event.STOPPED, "stopped", f"stopped by the user{_from_checkpoint(chain)}")
    if Intent.OUTRANKED in (ending.asked, ending.wanted) and not _finished_by_itself(ending):
        return NextMove(Event.STOPPED, "outranked", f"outranked: {ending.why_asked}{_from_checkpoint(chain)}")
    if Intent.NAN in (ending.asked, ending.wanted):
        told = f"{ending.why_asked}; look at its checkpoints before it is resumed"
        return NextMove(Event.FAILED, Fault.NAN, told, fault=Fault.NAN)
    if ending.asked is Intent.LIMIT:
        return NextMove(Event.FAILED, "over its limit", f"ended: {ending.why_asked}")
    if ending.asked is Intent.YIELD:
        return _yielded(ending, chain)
    if ending.asked is Intent.TIMEBOX:
        return _chained(spec, ending, chain, "timeboxed", ending.why_asked or "timebox reached")
    if ending.asked is Intent.STARTED_OVER:
        told = f"started over: {ending.why_asked}"
        return NextMove(Event.FAILED, Fault.STARTED_OVER, told, fault=Fault.STARTED_OVER)
    if ending.exit_code == 0:
        return NextMove(Event.COMPLETED, "completed", "exited 0")
    if ending.exit_code == EX_TEMPFAIL:
        return _chained(spec, ending, chain, "tempfail", "exited 75 (run me again)")
    if ending.out_of_memory is not None:
        return _out_of_memory(spec, ending, chain)
    return _failed(spec, ending, chain)


def named(verdict: NextMove, run_id: str) -> NextMove:
    """With the run's id in what it advises, so that it can be typed as it stands."""
    return replace(verdict, reason=verdict.reason.replace("backprop resume", f"backprop resume {run_id}"))


def backoff_s(attempt: int) -> float:
    """Seconds to wait before retry number `attempt` (1, 2, …): 10 s doubled each time, at most 10 minutes."""
    return min(BACKOFF_BASE_S * 2 ** (attempt - 1), BACKOFF_CAP_S)


def _finished_by_itself(ending: SegmentResult) -> bool:
    """It exited 0 before any signal reached it. A user's stop that came later has nothing left to stop."""
    return ending.asked is None and ending.exit_code == 0


def _chained(spec: RunSpec, ending: SegmentResult, chain: Chain, outcome: str, what: str) -> NextMove:
    progressed = chain.progressed or (outcome == "tempfail" and chain.advanced)
    stalled = 0 if progressed else chain.stalled + 1
    stop = _why_not_chained(spec, ending, chain, stalled, outcome)
    if stop:
        return NextMove(Event.TIMEBOXED, outcome, f"{what}; {stop}", stalled, chain.retries_used)
    if progressed:
        return NextMove(Event.REQUEUED, outcome, f"{what}; resumes from its newest checkpoint", 0)
    told = "resumes from an older checkpoint" if chain.resumable else "starts again: no checkpoint is known"
    return NextMove(
        Event.REQUEUED, outcome, f"{what} without a new checkpoint; {told}", stalled, chain.retries_used
    )


def _why_not_chained(
    spec: RunSpec, ending: SegmentResult, chain: Chain, stalled: int, outcome: str
) -> str | None:
    """Why the chain ends here, with what to do about it; None when it goes on."""
    if not spec.auto_resume:
        return "auto-resume is off; `backprop resume` continues it"
    if used_up := _used_up(spec, chain):
        return used_up
    if outcome == "timeboxed" and spec.plan is not None and spec.plan.resumes == "none":
        return f"it cannot resume ({spec.plan.why or 'by its recipe'}): {_longer(spec, ending)}"
    if outcome == "timeboxed" and not chain.resumable:
        return f"it saved no checkpoint, so a resume would begin at zero. {_advice(spec, ending)}"
    if stalled >= STALLED_CAP:
        return f"{stalled} segments in a row saved no new checkpoint. {_advice(spec, ending)}"
    return None


def _used_up(spec: RunSpec, chain: Chain) -> str | None:
    """Which bound of the chain is reached. Segments that yielded or were lost count, but never end it by that."""
    if spec.max_segments is not None and chain.segments >= spec.max_segments:
        return f"--max-segments {spec.max_segments} is used up; `backprop resume` grants as many again"
    if spec.max_total_s is not None and chain.total_s >= spec.max_total_s:
        return f"--max-total-minutes {spec.max_total_s / 60:g} is used up; `backprop resume` grants as many again"
    return None


def _advice(spec: RunSpec, ending: SegmentResult) -> str:
    began = (
        f"Its first output came after {ending.first_sign_s:.1f} s. "
        if ending.first_sign_s is not None
        else ""
    )
    killed = f"It had to be killed {spec.grace_s:g} s after the stop signal: try a longer --grace-seconds. "
    return (
        f"{began}{killed if ending.killed else ''}Let it save on SIG{spec.stop_signal} or more often and announce it"
        f" (docs/protocol.md), or {_longer(spec, ending)}"
    )


def _longer(spec: RunSpec, ending: SegmentResult) -> str:
    longer_s = max(2 * spec.timebox_s, 2 * (ending.first_sign_s or 0.0))
    return f"give it a longer box: backprop resume -m {longer_s / 60:g}"


def _yielded(ending: SegmentResult, chain: Chain) -> NextMove:
    why = ending.why_asked or "asked to make room"
    told = (
        "resumes from its last checkpoint"
        if chain.resumable
        else "will start from zero: it saved no checkpoint"
    )
    # A yield is nobody's strike, nor does it wipe one out: a run that is lost again and again stays counted.
    stalled, lost = (0, 0) if chain.progressed else (chain.stalled, chain.lost)
    return NextMove(Event.REQUEUED, "yielded", f"yielded: {why}; {told}", stalled, chain.retries_used, lost)


def _lost(ending: SegmentResult, chain: Chain) -> NextMove:
    lost = 1 if chain.progressed else chain.lost + 1
    if (over := _over_anyway(ending, "lost", "its processes were gone already")) is not None:
        return over
    if lost > LOST_CAP:
        why = f"lost {lost} times in a row (killed from outside, or the machine went down); not started again"
        return NextMove(Event.FAILED, "lost", why, lost=lost)
    told = (
        "resumes from its last checkpoint" if chain.resumable else "starts again: it had saved no checkpoint"
    )
    return NextMove(
        Event.REQUEUED,
        "lost",
        f"segment {chain.segments} was lost (killed from outside, or the machine went down); {told}",
        chain.stalled,
        chain.retries_used,
        lost,
    )


def _over_anyway(ending: SegmentResult, outcome: str, how: str) -> NextMove | None:
    """What was wanted of the segment decides over its run, even if it came to its end in another way."""
    match ending.wanted:
        case Intent.STOP:
            return NextMove(Event.STOPPED, outcome, f"stopped by the user; {how}")
        case Intent.OUTRANKED:
            return NextMove(Event.STOPPED, "outranked", f"outranked: {ending.why_asked}; {how}")
        case Intent.NAN:
            told = f"{ending.why_asked}; {how}"
            return NextMove(Event.FAILED, Fault.NAN, told, fault=Fault.NAN)
        case Intent.STARTED_OVER:
            told = f"started over: {ending.why_asked}; {how}"
            return NextMove(Event.FAILED, Fault.STARTED_OVER, told, fault=Fault.STARTED_OVER)
        case Intent.LIMIT:
            return NextMove(Event.FAILED, "over its limit", f"ended: {ending.why_asked}; {how}")
        case _:
            return None


def _not_started(spec: RunSpec, ending: SegmentResult, chain: Chain) -> NextMove:
    why = f"could not be started: {ending.could_not_start}"
    if (over := _over_anyway(ending, "not started", f"it {why}")) is not None:
        return over
    if ending.passing and chain.lost < LOST_CAP:
        lost = chain.lost + 1
        return NextMove(
            Event.REQUEUED, "not started", why, chain.stalled, chain.retries_used, lost, backoff_s(lost)
        )
    return _failed(spec, ending, chain)


def _out_of_memory(spec: RunSpec, ending: SegmentResult, chain: Chain) -> NextMove:
    """Once more with a larger need. Not when it ran into the very limit its user set: that would happen again."""
    said = f"out of GPU memory: {ending.out_of_memory}"
    own_limit = spec.gpu_memory_limit is not None
    neighbours = chain.peak_mib is not None and chain.peak_mib < 0.9 * chain.promised_mib
    if chain.oom_retries or not chain.promised_mib or (own_limit and not neighbours):
        advice = "; raise its limit: backprop resume -g" if own_limit else ""
        return NextMove(
            Event.FAILED,
            Fault.GPU_MEMORY,
            said + advice,
            retries_used=chain.retries_used,
            fault=Fault.GPU_MEMORY,
        )
    need_mib = (
        chain.promised_mib if own_limit else max(chain.promised_mib * 3 // 2, (chain.peak_mib or 0) * 5 // 4)
    )
    told = "its last checkpoint" if chain.resumable else "the beginning"
    reason = f"{said}; once more from {told}, with {need_mib} MiB reserved"
    return NextMove(
        Event.REQUEUED,
        Fault.GPU_MEMORY,
        reason,
        chain.stalled,
        chain.retries_used,
        0,
        BACKOFF_BASE_S,
        need_mib,
        Fault.GPU_MEMORY,
    )


def _failed(spec: RunSpec, ending: SegmentResult, chain: Chain) -> NextMove:
    fault = fault_of(ending.exit_code, ending.last_line)
    why = f"{fault}: {_why_failed(ending)}" if fault else _why_failed(ending)
    outcome = "not started" if ending.could_not_start else "failed"
    end: str | None = None
    if chain.retries_used >= spec.retries:
        end = f" (after {chain.retries_used} retries)" if chain.retries_used else ""
    elif fault in WOULD_FAIL_AGAIN and not chain.resumable:
        end = "; not retried: it would fail the same way again"
    elif used_up := _used_up(spec, chain):
        end = f"; {used_up}"
    if end is not None:
        return NextMove(Event.FAILED, outcome, why + end, retries_used=chain.retries_used, fault=fault)
    attempt = chain.retries_used + 1
    told = "its last checkpoint" if chain.resumable else "the beginning"
    delay_s = backoff_s(attempt)
    reason = f"{why}; retry {attempt} of {spec.retries} from {told} in {delay_s:g} s"
    return NextMove(Event.REQUEUED, outcome, reason, chain.stalled, attempt, 0, delay_s, fault=fault)


def _why_failed(ending: SegmentResult) -> str:
    if ending.could_not_start is not None:
        return f"could not be started: {ending.could_not_start}"
    if ending.signal_name is not None:
        hint = " (out of memory? see the kernel log)" if ending.signal_name == "SIGKILL" else ""
        how = f"ended by {ending.signal_name}{hint}"
    elif ending.exit_code is None:
        how = "ended unseen: its supervisor was gone"
    else:
        how = f"exited {ending.exit_code}"
    return f"{how}: {ending.last_line}" if ending.last_line else how


def _from_checkpoint(chain: Chain) -> str:
    return "; `backprop resume` continues from its last checkpoint" if chain.resumable else ""
