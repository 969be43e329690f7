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

import math
from dataclasses import dataclass, replace
from typing import Final

from backprop.scheduler.faults import OF_THE_HOST, WOULD_FAIL_AGAIN, Fault, fault_of
from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.outcome.why_failed import why_failed
from backprop.scheduler.spec import RunSpec

EX_TEMPFAIL: Final = 75
STALLED_CAP: Final = 2
LOST_CAP: Final = 3
HOST_FAULT_CAP: Final = 5
LOOK_AGAIN_S: Final = 2.0
"""After a start that lacked a path or a port: by then it is looked at anew."""
BACKOFF_BASE_S: Final = 10.0
BACKOFF_CAP_S: Final = 600.0


@dataclass(frozen=True)
class Advice:
    """A command that the user can give about the run. `lead`, `effect`: the words before and after the command.

    `timebox_min`: a timebox to give with it, in minutes. `asks_gpu_memory`: it takes a GPU memory limit. `may_be_done`:
    how it exited 0, where that may have been the end of the run.
    """

    lead: str = ""
    effect: str = ""
    command: str = "resume"
    timebox_min: float | None = None
    asks_gpu_memory: bool = False
    may_be_done: str | None = None


_HOST_ADVICE: Final = {
    Fault.DISK_FULL: Advice(lead="; make room, or have it keep fewer files, then "),
    Fault.PORT_IN_USE: Advice(lead="; end what uses the port, or give the script another one, then "),
}


@dataclass(frozen=True)
class NextMove:
    """One move, with the run's new counters. `outcome`: how the segment ended.

    `delay_s`: seconds before which the run is not claimed again. `need_mib`: the VRAM per GPU to reserve from now on,
    where it has to be raised. `fault`: the kind of trouble. `advice`: what the user can do; `with_advice` words it.
    `host_faults`: as in `Chain`.
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
    host_faults: int = 0


def next_move(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    """Decide the move that a segment's end causes. Raises nothing."""
    move = _move(spec, result, chain)
    return replace(move, host_faults=move.host_faults or (0 if chain.progressed else chain.host_faults))


def _move(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    if result.unreadable is not None:
        return _unreadable(result, chain)
    if result.lost:
        return _lost(result, chain)
    if result.could_not_start is not None:
        return _not_started(spec, result, chain)
    if Intent.STOP in (result.asked, result.wanted) and not _finished_by_itself(result):
        return _stopped(SegmentOutcome.STOPPED, "stopped by the user", chain)
    if Intent.OUTRANKED in (result.asked, result.wanted) and not _finished_by_itself(result):
        return _stopped(SegmentOutcome.OUTRANKED, f"outranked: {result.why_asked}", chain)
    if Intent.NAN in (result.asked, result.wanted):
        return _ended(SegmentOutcome.NAN, f"{result.why_asked}; check its checkpoints before you resume it")
    if result.asked is Intent.LIMIT:
        return _ended(SegmentOutcome.OVER_LIMIT, f"over its limit: {result.why_asked}")
    if result.shown_end is not None:
        how = f"finished: {result.shown_end}; {_exited_0(result)}"
        return NextMove(Event.COMPLETED, SegmentOutcome.COMPLETED, how)
    if result.asked is Intent.YIELD:
        return _yielded(result, chain)
    if result.asked is Intent.TIMEBOX:
        return _chained(spec, result, chain, SegmentOutcome.TIMEBOXED)
    if result.asked is Intent.STARTED_OVER:
        return _ended(SegmentOutcome.STARTED_OVER, f"started over: {result.why_asked}")
    if result.told:
        return _chained(spec, result, chain, SegmentOutcome.TIMEBOXED)
    if result.exit_code == 0:
        return NextMove(Event.COMPLETED, SegmentOutcome.COMPLETED, "exited 0")
    if result.exit_code == EX_TEMPFAIL:
        return _chained(spec, result, chain, SegmentOutcome.TEMPFAIL)
    if result.out_of_memory is not None:
        return _out_of_memory(spec, result, chain)
    return _failed(spec, result, chain)


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
    reason = f"{move.reason}{advice.lead or '; '}{command}{advice.effect}"
    if advice.may_be_done is not None:
        reason += f"; it {advice.may_be_done}: if it had finished, backprop resume --done {run_id}"
    return replace(move, reason=reason, advice=None)


def backoff_s(attempt: int) -> float:
    """Return the seconds before retry number `attempt` (1, 2, …): 10 s doubled each time, at most 10 minutes."""
    return min(BACKOFF_BASE_S * 2 ** (attempt - 1), BACKOFF_CAP_S)


def _finished_by_itself(result: SegmentResult) -> bool:
    """Return whether it exited 0 before any signal reached it, and not because `should_stop()` told it to. A stop that
    came later has nothing left to stop."""
    return result.asked is None and result.exit_code == 0 and not result.told


def _exited_0(result: SegmentResult) -> str:
    if result.told:
        return "exited 0 when should_stop() said so"
    return f"exited 0 {'after' if result.killed else 'within'} its grace"


def _ended(outcome: SegmentOutcome, reason: str) -> NextMove:
    return NextMove(Event.FAILED, outcome, reason, fault=outcome.fault)


def _stopped(outcome: SegmentOutcome, reason: str, chain: Chain) -> NextMove:
    advice = Advice(effect=" continues from its last checkpoint") if chain.resumable else None
    return NextMove(Event.STOPPED, outcome, reason, advice=advice)


def _chained(spec: RunSpec, result: SegmentResult, chain: Chain, outcome: SegmentOutcome) -> NextMove:
    """The segment asked to be followed by another one, by its timebox's end or exit code 75."""
    timeboxed = outcome is SegmentOutcome.TIMEBOXED
    progressed = chain.progressed or (not timeboxed and chain.advanced)
    stalled = 0 if progressed else chain.stalled + 1
    if (stop := _chain_end(spec, result, chain, stalled, timeboxed)) is not None:
        reason, advice = stop
        if timeboxed and result.exit_code == 0:
            advice = replace(advice, may_be_done=_exited_0(result))
        return NextMove(Event.TIMEBOXED, outcome, reason, stalled, chain.retries_used, advice=advice)
    what = (result.why_asked or "timebox reached") if timeboxed else "exited 75 (run me again)"
    if timeboxed and result.exit_code == 0:
        what += ", exit 0"
    if progressed:
        return NextMove(Event.REQUEUED, outcome, f"{what}; resumes from its newest checkpoint")
    start = "resumes from an older checkpoint" if chain.resumable else "starts again: no checkpoint is known"
    reason = f"{what} without a new checkpoint; {start}"
    return NextMove(Event.REQUEUED, outcome, reason, stalled, chain.retries_used)


def _chain_end(
    spec: RunSpec, result: SegmentResult, chain: Chain, stalled: int, timeboxed: bool
) -> tuple[str, Advice] | None:
    """Return why the chain ends here, with what to do about it; None when it goes on."""
    what = "stopped after its timebox" if timeboxed else "asked to run again (exit code 75)"
    if not spec.auto_resume:
        how = result.why_asked if timeboxed and result.why_asked else what
        return f"{how}; auto-resume is off", Advice(lead=": ", effect=" continues it")
    if (limit := _limit_reached(spec, chain)) is not None:
        return limit
    if timeboxed and spec.plan is not None and spec.plan.resumes == "none":
        why = spec.plan.why or "by its recipe"
        return f"{what}: it cannot resume ({why})", _longer(spec, result, "; allow more time: ")
    if timeboxed and not chain.resumable:
        reason = f"{what}: no checkpoint found, so it would restart from zero.{_details(spec, result)}"
        return reason, _save_or_longer(spec, result)
    if stalled >= STALLED_CAP:
        reason = f"no progress: {stalled} segments in a row saved no new checkpoint.{_details(spec, result)}"
        return reason, _save_or_longer(spec, result)
    return None


def _limit_reached(spec: RunSpec, chain: Chain) -> tuple[str, Advice] | None:
    """Return which limit of the chain is reached. Yielded and lost segments count, but never end the chain by it."""
    if (most := spec.max_segments) is not None and chain.segments >= most:
        return f"reached --max-segments {most}", Advice(effect=f" allows {most} more")
    if spec.max_total_s is not None and chain.total_s >= spec.max_total_s:
        minutes = f"{spec.max_total_s / 60:g}"
        return f"reached --max-total-minutes {minutes}", Advice(effect=f" allows {minutes} more")
    return None


def _details(spec: RunSpec, result: SegmentResult) -> str:
    """Return what was observed that tells which advice to take."""
    details = ""
    if result.first_sign_s is not None:
        details += f" Its first output came after {result.first_sign_s:.1f} s."
    if result.killed:
        details += (
            f" It was killed {spec.grace_s:g} s after the stop signal; allow more with --grace-seconds."
        )
    return details


def _save_or_longer(spec: RunSpec, result: SegmentResult) -> Advice:
    signal = "Ctrl-C (SIGINT)" if spec.stop_signal == "INT" else f"SIG{spec.stop_signal}"
    return _longer(spec, result, f" Make it save on {signal}, or allow more time: ")


def _longer(spec: RunSpec, result: SegmentResult, lead: str) -> Advice:
    longer_s = max(2 * spec.timebox_s, 2 * (result.first_sign_s or 0.0))
    return Advice(lead=lead, timebox_min=_as_typed(longer_s / 60))


def _as_typed(minutes: float) -> float:
    """Round a timebox up to a number that a person would type: 0.160009 to 0.2, 7.3 to 7.5, 133 to 135."""
    if minutes < 1:
        step = 10.0 ** math.floor(math.log10(max(minutes, 1e-6)))
    else:
        step = 0.5 if minutes < 10 else 1.0 if minutes < 60 else 5.0
    return round(math.ceil(minutes / step - 1e-6) * step, 9)


def _yielded(result: SegmentResult, chain: Chain) -> NextMove:
    why = result.why_asked or "asked to make room"
    start = (
        "resumes from its last checkpoint"
        if chain.resumable
        else "will start from zero: it saved no checkpoint"
    )
    # A yield is nobody's strike, nor does it wipe one out: a run that is lost again and again stays counted.
    stalled, lost = (0, 0) if chain.progressed else (chain.stalled, chain.lost)
    reason = f"paused for now: {why}; {start}"
    return NextMove(Event.REQUEUED, SegmentOutcome.YIELDED, reason, stalled, chain.retries_used, lost)


def _unreadable(result: SegmentResult, chain: Chain) -> NextMove:
    """Neither lost nor ended: it may have finished, so it does not start again by itself."""
    how = f"how its segment ended cannot be read: {result.unreadable}"
    if (move := _intended(result, SegmentOutcome.LOST, how)) is not None:
        return move
    advice = Advice(lead="; once it can be, see whether it had finished; ", effect=" continues it")
    counters = (chain.stalled, chain.retries_used, chain.lost)
    return NextMove(Event.SET_ASIDE, SegmentOutcome.LOST, f"held: {how}", *counters, advice=advice)


def _lost(result: SegmentResult, chain: Chain) -> NextMove:
    lost = 1 if chain.progressed else chain.lost + 1
    if (move := _intended(result, SegmentOutcome.LOST, "its processes were gone already")) is not None:
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


def _intended(result: SegmentResult, outcome: SegmentOutcome, how: str) -> NextMove | None:
    """Return the move that was wanted of the segment: it decides over its run, even if it ended in another way."""
    why = f"{result.why_asked}; {how}"
    match result.wanted:
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


def _not_started(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    why = f"could not be started: {result.could_not_start}"
    if (move := _intended(result, SegmentOutcome.NOT_STARTED, f"it {why}")) is not None:
        return move
    if result.missing:
        counters = (chain.stalled, chain.retries_used, chain.lost)
        return NextMove(Event.REQUEUED, SegmentOutcome.NOT_STARTED, why, *counters, LOOK_AGAIN_S)
    if result.passing:
        counters = (chain.stalled, chain.retries_used, chain.lost)
        # At first none: the worker itself waits before it starts anything. Then others are to have their turn.
        delay_s = backoff_s(chain.unstarted) if chain.unstarted else 0.0
        return NextMove(Event.REQUEUED, SegmentOutcome.NOT_STARTED, why, *counters, delay_s)
    return _failed(spec, result, chain)


def _out_of_memory(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    """Once more with a larger need. Not when it ran into the very limit its user set: that would happen again."""
    outcome, what = SegmentOutcome.GPU_MEMORY, f"out of GPU memory: {result.out_of_memory}"
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


def _failed(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    fault = _fault(result)
    if (
        fault is not None
        and fault in OF_THE_HOST
        and (move := _tried_again(result, chain, fault)) is not None
    ):
        return move
    outcome = SegmentOutcome.NOT_STARTED if result.could_not_start else SegmentOutcome.FAILED
    failed = NextMove(
        Event.FAILED,
        outcome,
        why_failed(result, fault),
        retries_used=chain.retries_used,
        fault=fault,
        advice=_HOST_ADVICE.get(fault) if fault is not None else None,
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


def _fault(result: SegmentResult) -> Fault | None:
    if result.could_not_start is None and result.signal_name is None:
        if result.disk_full:
            return Fault.DISK_FULL
        if result.port_in_use is not None:
            return Fault.PORT_IN_USE
    return fault_of(result.exit_code, result.last_line)


def _tried_again(result: SegmentResult, chain: Chain, fault: Fault) -> NextMove | None:
    """Return the move of a run that met the host's trouble; None once it has done so too often.

    A port may be held by another run of ours for as long as that lives: beside others there is no end of tries.
    """
    is_port = fault is Fault.PORT_IN_USE
    tries = 1 if chain.progressed else chain.host_faults + 1
    if tries > HOST_FAULT_CAP and not (is_port and chain.others_live):
        return None
    delay_s = backoff_s(tries + 2)
    if is_port:
        delay_s = backoff_s(tries - 1) if tries > 1 else LOOK_AGAIN_S
    until = "once the port is free" if is_port else "once there is room"
    reason = f"{why_failed(result, fault)}; again from {_start_of(chain)} {until}, in {delay_s:g} s or later"
    counters = (chain.stalled, chain.retries_used, chain.lost)
    move = NextMove(Event.REQUEUED, SegmentOutcome.FAILED, reason, *counters, delay_s, fault=fault)
    return replace(move, host_faults=tries)


def _start_of(chain: Chain) -> str:
    return "its last checkpoint" if chain.resumable else "the beginning"
