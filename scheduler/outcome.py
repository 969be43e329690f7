"""Decides what the end of a segment means for its run.

Pure: from what was asked, what happened and what the chain has done so far to one move of the state table, with its
reason in words. Three rules stand above the others:

- Intent wins over exit status. Once the stop signal was sent, a script's exit code means nothing: some exit 0, some 1,
  some 143. A run that had in fact finished resumes, exits 0 in seconds, and is completed then.
- Exit code 75 (EX_TEMPFAIL of sysexits.h) means "checkpointed, run me again".
- No endless loops. A segment is progress only if it left a checkpoint newer than its start. Where no checkpoint exists
  at all the chain ends at once, since a resume would begin at zero; otherwise two segments in a row without progress
  end it. Lost segments and crash retries are counted and capped.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from backprop.scheduler.faults import WOULD_FAIL_AGAIN, Fault, fault_of
from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.spec import RunSpec

EX_TEMPFAIL: Final = 75
STALLED_CAP: Final = 2
LOST_CAP: Final = 3
BACKOFF_BASE_S: Final = 10.0
BACKOFF_CAP_S: Final = 600.0
_EXCEPTION_NAME = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (?=\S)")


class SegmentOutcome(StrEnum):
    """How a segment ended. The values are stored, and shown as `outcome`."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMEBOXED = "timeboxed"
    TEMPFAIL = "tempfail"
    STOPPED = "stopped"
    YIELDED = "yielded"
    OUTRANKED = "outranked"
    OVER_LIMIT = "over its limit"
    NAN = "NaN loss"
    STARTED_OVER = "started over"
    GPU_MEMORY = "out of GPU memory"
    NOT_STARTED = "not started"
    LOST = "lost"
    RECOVERED = "recovered"
    """Its end is known from its folder only: the database had forgotten it."""

    @property
    def trained(self) -> bool:
        """Whether the run was able to train in the segment."""
        return self not in (SegmentOutcome.LOST, SegmentOutcome.NOT_STARTED)

    @property
    def fault(self) -> Fault | None:
        """The fault that the outcome implies; None if it implies none."""
        match self:
            case SegmentOutcome.NAN:
                return Fault.NAN
            case SegmentOutcome.STARTED_OVER:
                return Fault.STARTED_OVER
            case SegmentOutcome.GPU_MEMORY:
                return Fault.GPU_MEMORY
            case _:
                return None


@dataclass(frozen=True)
class SegmentResult:
    """How one segment ended.

    `asked`: what the leader had been signalled for before it exited; None if it exited by itself.
    `wanted`: what was recorded but perhaps never delivered. `exit_code` is None when a signal ended the leader
    or nobody saw it end. `lost`: no process is left and no exit record was written.
    `could_not_start`: why the leader never ran. `passing`: that reason is one that passes by itself (EAGAIN).
    `out_of_memory`: the line of its log that reports that GPU memory ran out. `cut_cost_s`: running time between
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
    `advanced`: the highest reported step rose during this segment. `promised_mib`, `peak_mib`: VRAM per GPU that
    was reserved for the run, and seen used by it.
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
class Advice:
    """A command that the user can give about the run. `lead`, `effect`: the words before and after the command.

    `timebox_min`: a timebox to give with it, in minutes. `asks_gpu_memory`: it takes a GPU memory limit.
    """

    lead: str = ""
    effect: str = ""
    command: str = "resume"
    timebox_min: float | None = None
    asks_gpu_memory: bool = False


@dataclass(frozen=True)
class NextMove:
    """One move, with the run's new counters. `outcome`: how the segment ended.

    `delay_s`: seconds before which the run is not claimed again. `need_mib`: the VRAM per GPU to reserve from now on,
    where it has to be raised. `fault`: the kind of trouble. `advice`: what the user can do; `with_advice` words it.
    """

    event: Event
    outcome: SegmentOutcome
    reason: str
    stalled: int = 0
    retries_used: int = 0
    lost: int = 0
    delay_s: float = 0.0
    need_mib: int | None = None
    fault: Fault | None = None
    advice: Advice | None = None


def next_move(spec: RunSpec, ending: SegmentResult, chain: Chain) -> NextMove:
    """Decide the move that a segment's end causes. Raises nothing."""
    if ending.lost:
        return _lost(ending, chain)
    if ending.could_not_start is not None:
        return _not_started(spec, ending, chain)
    if Intent.STOP in (ending.asked, ending.wanted) and not _finished_by_itself(ending):
        return _stopped(SegmentOutcome.STOPPED, "stopped by the user", chain)
    if Intent.OUTRANKED in (ending.asked, ending.wanted) and not _finished_by_itself(ending):
        return _stopped(SegmentOutcome.OUTRANKED, f"outranked: {ending.why_asked}", chain)
    if Intent.NAN in (ending.asked, ending.wanted):
        return _ended(SegmentOutcome.NAN, f"{ending.why_asked}; check its checkpoints before you resume it")
    if ending.asked is Intent.LIMIT:
        return _ended(SegmentOutcome.OVER_LIMIT, f"over its limit: {ending.why_asked}")
    if ending.asked is Intent.YIELD:
        return _yielded(ending, chain)
    if ending.asked is Intent.TIMEBOX:
        return _chained(spec, ending, chain, SegmentOutcome.TIMEBOXED)
    if ending.asked is Intent.STARTED_OVER:
        return _ended(SegmentOutcome.STARTED_OVER, f"started over: {ending.why_asked}")
    if ending.exit_code == 0:
        return NextMove(Event.COMPLETED, SegmentOutcome.COMPLETED, "exited 0")
    if ending.exit_code == EX_TEMPFAIL:
        return _chained(spec, ending, chain, SegmentOutcome.TEMPFAIL)
    if ending.out_of_memory is not None:
        return _out_of_memory(spec, ending, chain)
    return _failed(spec, ending, chain)


def with_advice(move: NextMove, run_id: str) -> NextMove:
    """Put the move's advice into its reason, as a command that can be typed as it stands."""
    advice = move.advice
    if advice is None:
        return move
    command = f"backprop {advice.command} {run_id}"
    if advice.timebox_min is not None:
        command += f" -m {advice.timebox_min:g}"
    if advice.asks_gpu_memory:
        command += " -g GB"
    return replace(move, reason=f"{move.reason}{advice.lead or '; '}{command}{advice.effect}", advice=None)


def backoff_s(attempt: int) -> float:
    """Return the seconds before retry number `attempt` (1, 2, …): 10 s doubled each time, at most 10 minutes."""
    return min(BACKOFF_BASE_S * 2 ** (attempt - 1), BACKOFF_CAP_S)


def _finished_by_itself(ending: SegmentResult) -> bool:
    """Return whether it exited 0 before any signal reached it. A stop that came later has nothing left to stop."""
    return ending.asked is None and ending.exit_code == 0


def _ended(outcome: SegmentOutcome, reason: str) -> NextMove:
    return NextMove(Event.FAILED, outcome, reason, fault=outcome.fault)


def _stopped(outcome: SegmentOutcome, reason: str, chain: Chain) -> NextMove:
    advice = Advice(effect=" continues from its last checkpoint") if chain.resumable else None
    return NextMove(Event.STOPPED, outcome, reason, advice=advice)


def _chained(spec: RunSpec, ending: SegmentResult, chain: Chain, outcome: SegmentOutcome) -> NextMove:
    """The segment asked to be followed by another one, by its timebox's end or exit code 75."""
    timeboxed = outcome is SegmentOutcome.TIMEBOXED
    progressed = chain.progressed or (not timeboxed and chain.advanced)
    stalled = 0 if progressed else chain.stalled + 1
    if (stop := _chain_end(spec, ending, chain, stalled, timeboxed)) is not None:
        reason, advice = stop
        return NextMove(Event.TIMEBOXED, outcome, reason, stalled, chain.retries_used, advice=advice)
    what = (ending.why_asked or "timebox reached") if timeboxed else "exited 75 (run me again)"
    if progressed:
        return NextMove(Event.REQUEUED, outcome, f"{what}; resumes from its newest checkpoint")
    start = "resumes from an older checkpoint" if chain.resumable else "starts again: no checkpoint is known"
    reason = f"{what} without a new checkpoint; {start}"
    return NextMove(Event.REQUEUED, outcome, reason, stalled, chain.retries_used)


def _chain_end(
    spec: RunSpec, ending: SegmentResult, chain: Chain, stalled: int, timeboxed: bool
) -> tuple[str, Advice] | None:
    """Return why the chain ends here, with what to do about it; None when it goes on."""
    what = "stopped after its timebox" if timeboxed else "asked to run again (exit code 75)"
    if not spec.auto_resume:
        how = ending.why_asked if timeboxed and ending.why_asked else what
        return f"{how}; auto-resume is off", Advice(lead=": ", effect=" continues it")
    if (limit := _limit_reached(spec, chain)) is not None:
        return limit
    if timeboxed and spec.plan is not None and spec.plan.resumes == "none":
        why = spec.plan.why or "by its recipe"
        return f"{what}: it cannot resume ({why})", _longer(spec, ending, "; allow more time: ")
    if timeboxed and not chain.resumable:
        reason = f"{what}: no checkpoint found, so it would restart from zero.{_details(spec, ending)}"
        return reason, _save_or_longer(spec, ending)
    if stalled >= STALLED_CAP:
        reason = f"no progress: {stalled} segments in a row saved no new checkpoint.{_details(spec, ending)}"
        return reason, _save_or_longer(spec, ending)
    return None


def _limit_reached(spec: RunSpec, chain: Chain) -> tuple[str, Advice] | None:
    """Return which limit of the chain is reached. Yielded and lost segments count, but never end the chain by it."""
    if (most := spec.max_segments) is not None and chain.segments >= most:
        return f"reached --max-segments {most}", Advice(effect=f" allows {most} more")
    if spec.max_total_s is not None and chain.total_s >= spec.max_total_s:
        minutes = f"{spec.max_total_s / 60:g}"
        return f"reached --max-total-minutes {minutes}", Advice(effect=f" allows {minutes} more")
    return None


def _details(spec: RunSpec, ending: SegmentResult) -> str:
    """Return what was observed that tells which advice to take."""
    details = ""
    if ending.first_sign_s is not None:
        details += f" Its first output came after {ending.first_sign_s:.1f} s."
    if ending.killed:
        details += (
            f" It was killed {spec.grace_s:g} s after the stop signal; allow more with --grace-seconds."
        )
    return details


def _save_or_longer(spec: RunSpec, ending: SegmentResult) -> Advice:
    signal = "Ctrl-C (SIGINT)" if spec.stop_signal == "INT" else f"SIG{spec.stop_signal}"
    return _longer(spec, ending, f" Make it save on {signal}, or allow more time: ")


def _longer(spec: RunSpec, ending: SegmentResult, lead: str) -> Advice:
    longer_s = max(2 * spec.timebox_s, 2 * (ending.first_sign_s or 0.0))
    return Advice(lead=lead, timebox_min=longer_s / 60)


def _yielded(ending: SegmentResult, chain: Chain) -> NextMove:
    why = ending.why_asked or "asked to make room"
    start = (
        "resumes from its last checkpoint"
        if chain.resumable
        else "will start from zero: it saved no checkpoint"
    )
    # A yield is nobody's strike, nor does it wipe one out: a run that is lost again and again stays counted.
    stalled, lost = (0, 0) if chain.progressed else (chain.stalled, chain.lost)
    reason = f"paused for now: {why}; {start}"
    return NextMove(Event.REQUEUED, SegmentOutcome.YIELDED, reason, stalled, chain.retries_used, lost)


def _lost(ending: SegmentResult, chain: Chain) -> NextMove:
    lost = 1 if chain.progressed else chain.lost + 1
    if (move := _intended(ending, SegmentOutcome.LOST, "its processes were gone already")) is not None:
        return move
    how = "(killed, or the machine went down)"
    if lost > LOST_CAP:
        reason = f"disappeared {lost} times in a row {how}; giving up"
        return NextMove(Event.FAILED, SegmentOutcome.LOST, reason, lost=lost)
    start = (
        "resumes from its last checkpoint" if chain.resumable else "starts again: it had saved no checkpoint"
    )
    reason = f"segment {chain.segments} disappeared {how}; {start}"
    return NextMove(Event.REQUEUED, SegmentOutcome.LOST, reason, chain.stalled, chain.retries_used, lost)


def _intended(ending: SegmentResult, outcome: SegmentOutcome, how: str) -> NextMove | None:
    """Return the move that was wanted of the segment: it decides over its run, even if it ended in another way."""
    why = f"{ending.why_asked}; {how}"
    match ending.wanted:
        case Intent.STOP:
            return NextMove(Event.STOPPED, outcome, f"stopped by the user; {how}")
        case Intent.OUTRANKED:
            return NextMove(Event.STOPPED, SegmentOutcome.OUTRANKED, f"outranked: {why}")
        case Intent.NAN:
            return _ended(SegmentOutcome.NAN, why)
        case Intent.STARTED_OVER:
            return _ended(SegmentOutcome.STARTED_OVER, f"started over: {why}")
        case Intent.LIMIT:
            return _ended(SegmentOutcome.OVER_LIMIT, f"over its limit: {why}")
        case _:
            return None


def _not_started(spec: RunSpec, ending: SegmentResult, chain: Chain) -> NextMove:
    why = f"could not be started: {ending.could_not_start}"
    if (move := _intended(ending, SegmentOutcome.NOT_STARTED, f"it {why}")) is not None:
        return move
    if ending.passing and chain.lost < LOST_CAP:
        lost = chain.lost + 1
        counters = (chain.stalled, chain.retries_used, lost)
        return NextMove(Event.REQUEUED, SegmentOutcome.NOT_STARTED, why, *counters, backoff_s(lost))
    return _failed(spec, ending, chain)


def _out_of_memory(spec: RunSpec, ending: SegmentResult, chain: Chain) -> NextMove:
    """Once more with a larger need. Not when it ran into the very limit its user set: that would happen again."""
    outcome, what = SegmentOutcome.GPU_MEMORY, f"out of GPU memory: {ending.out_of_memory}"
    own_limit = spec.gpu_memory_limit is not None
    neighbours = chain.peak_mib is not None and chain.peak_mib < 0.9 * chain.promised_mib
    if chain.oom_retries or not chain.promised_mib or (own_limit and not neighbours):
        advice = Advice(lead="; raise its limit: ", asks_gpu_memory=True) if own_limit else None
        return replace(_ended(outcome, what), retries_used=chain.retries_used, advice=advice)
    need_mib = (
        chain.promised_mib if own_limit else max(chain.promised_mib * 3 // 2, (chain.peak_mib or 0) * 5 // 4)
    )
    reason = f"{what}; once more from {_start_of(chain)}, with {need_mib} MiB reserved"
    counters = (chain.stalled, chain.retries_used, 0)
    return NextMove(Event.REQUEUED, outcome, reason, *counters, BACKOFF_BASE_S, need_mib, fault=outcome.fault)


def _failed(spec: RunSpec, ending: SegmentResult, chain: Chain) -> NextMove:
    fault = fault_of(ending.exit_code, ending.last_line)
    outcome = SegmentOutcome.NOT_STARTED if ending.could_not_start else SegmentOutcome.FAILED
    failed = NextMove(
        Event.FAILED, outcome, _why_failed(ending, fault), retries_used=chain.retries_used, fault=fault
    )
    if chain.retries_used >= spec.retries:
        end = f" (after {chain.retries_used} retries)" if chain.retries_used else ""
        return replace(failed, reason=failed.reason + end)
    if fault in WOULD_FAIL_AGAIN and not chain.resumable:
        return replace(failed, reason=f"{failed.reason}; not retried: it would fail the same way again")
    if (limit := _limit_reached(spec, chain)) is not None:
        return replace(failed, reason=f"{failed.reason}; {limit[0]}", advice=limit[1])
    attempt = chain.retries_used + 1
    delay_s = backoff_s(attempt)
    retry = f"retry {attempt} of {spec.retries} from {_start_of(chain)} in {delay_s:g} s"
    counters = (chain.stalled, attempt, 0)
    return NextMove(
        Event.REQUEUED, outcome, f"{failed.reason}; {retry}", *counters, delay_s=delay_s, fault=fault
    )


def _why_failed(ending: SegmentResult, fault: Fault | None) -> str:
    """Return what happened. A known fault comes first, then the line that shows it, without its exception's name."""
    if ending.could_not_start is not None:
        return f"could not be started: {ending.could_not_start}"
    if ending.signal_name is not None:
        hint = " (out of memory? see the kernel log)" if ending.signal_name == "SIGKILL" else ""
        how = f"ended by {ending.signal_name}{hint}"
    elif ending.exit_code is None:
        how = "ended unseen: its supervisor was gone"
    elif fault is not None and ending.last_line:
        return f"{fault}: {_EXCEPTION_NAME.sub('', ending.last_line)} (exit code {ending.exit_code})"
    else:
        how = f"exited {ending.exit_code}"
    kind = f"{fault}: " if fault is not None else ""
    return f"{kind}{how}: {ending.last_line}" if ending.last_line else f"{kind}{how}"


def _start_of(chain: Chain) -> str:
    return "its last checkpoint" if chain.resumable else "the beginning"
