"""Decides what becomes of a run whose segment failed, was lost, could not start, or ended in a way nobody can read."""

import re
from typing import Final

import msgspec

from backprop.scheduler.faults.kinds import OF_THE_HOST, WOULD_FAIL_AGAIN, Fault
from backprop.scheduler.faults.last_line import fault_of
from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.outcome import smoke
from backprop.scheduler.outcome.chain_end import limit_reached
from backprop.scheduler.outcome.group_budget import why_out
from backprop.scheduler.outcome.move import Advice, NextMove, ended
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.outcome.why_failed import why_failed
from backprop.scheduler.spec import RunSpec

LOST_CAP: Final = 3
HANG_CAP: Final = 2
"""So many hangs in a row without a new checkpoint are followed by another try, even where no retries are asked for."""
HOST_FAULT_CAP: Final = 5
FALLBACK_CAP: Final = 2
_WEIGHTS_ONLY: Final = re.compile(r"\bweights[_ ]only\b", re.IGNORECASE)
"""PyTorch 2.6 and newer refuses to load what is more than weights unless it is told to."""
_LOAD_ALL: Final = (
    "; load it with weights_only=False, or queue the run with --env TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
)
_NOT_ITS_CHECKPOINT: Final = WOULD_FAIL_AGAIN | {Fault.HOST_MEMORY}
_OF_THE_MACHINE: Final = re.compile(
    r"\b(?:CUDA|NCCL|cuDNN|CUBLAS|HIP)\b|Connection|HTTP|timed? ?out|Temporary failure|Permission denied|Broken pipe",
    re.IGNORECASE,
)
"""What may pass by itself: to give up the newest checkpoint for it would cost the work since the one before."""
LOOK_AGAIN_S: Final = 2.0
"""After a start that lacked a path or a port: by then it is looked at anew."""
BACKOFF_BASE_S: Final = 10.0
BACKOFF_CAP_S: Final = 600.0
_HOST_ADVICE: Final = {
    Fault.DISK_FULL: Advice(lead="; make room, or have it keep fewer files, then "),
    Fault.PORT_IN_USE: Advice(lead="; end what uses the port, or give the script another one, then "),
}


def unreadable(result: SegmentResult, chain: Chain) -> NextMove:
    """Neither lost nor ended: it may have finished, so it does not start again by itself."""
    how = f"how its segment ended cannot be read: {result.unreadable}"
    if (move := _intended(result, SegmentOutcome.LOST, how)) is not None:
        return move
    advice = Advice(lead="; once it can be, see whether it had finished; ", effect=" continues it")
    counters = (chain.stalled, chain.retries_used, chain.lost)
    return NextMove(Event.SET_ASIDE, SegmentOutcome.LOST, f"held: {how}", *counters, advice=advice)


def lost(result: SegmentResult, chain: Chain) -> NextMove:
    """Return what follows when a segment left no record of its end: a resume, or after LOST_CAP in a row a failure.

    A segment that was suspended counts as no strike."""
    # What was frozen did nothing that could have ended it: that is no strike.
    strike = 0 if result.suspended else 1
    lost = strike if chain.progressed else chain.lost + strike
    if (move := _intended(result, SegmentOutcome.LOST, "its processes were gone already")) is not None:
        return move
    how = f"{'while it was suspended ' * result.suspended}(killed, or the machine went down)"
    if lost > LOST_CAP:
        reason = f"disappeared {lost} times in a row {how}; giving up"
        return NextMove(Event.FAILED, SegmentOutcome.LOST, reason, lost=lost)
    start = (
        "resumes from its last checkpoint" if chain.resumable else f"starts again: {chain.why_not_resumable}"
    )
    reason = f"segment {chain.segments} disappeared {how}; {start}"
    return NextMove(Event.REQUEUED, SegmentOutcome.LOST, reason, chain.stalled, chain.retries_used, lost)


def hung(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    """Once more from its last checkpoint. A hang counts as a retry; from zero it starts only where retries are left."""
    used = 0 if chain.progressed else chain.retries_used
    goes_on = chain.resumable and spec.auto_resume
    tries = max(spec.retries, HANG_CAP) if goes_on else spec.retries
    failed = ended(SegmentOutcome.HUNG, result.why_asked or "hung")
    advice = Advice(
        lead="; its stacks may be in its log (backprop logs); --no-watchdog lets it be; ",
        effect=" tries again",
    )
    failed = msgspec.structs.replace(failed, retries_used=used, advice=advice)
    if used >= tries:
        if used:
            end = f"; {used + 1} times in a row without a new checkpoint"
        else:
            end = "" if chain.resumable else f"; {chain.why_not_resumable}"
        return msgspec.structs.replace(failed, reason=failed.reason + end)
    if (limit := limit_reached(spec, chain)) is not None:
        return msgspec.structs.replace(failed, reason=f"{failed.reason}; {limit[0]}", advice=limit[1])
    delay_s = backoff_s(used + 1)
    reason = f"{failed.reason}; again from {_start_of(chain)} in {delay_s:g} s ({used + 1} of {tries})"
    stalled = 0 if chain.progressed else chain.stalled
    return NextMove(
        Event.REQUEUED, SegmentOutcome.HUNG, reason, stalled, used + 1, delay_s=delay_s, fault=failed.fault
    )


def not_started(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    """Return what follows when the segment could not start: a wait for what is missing or passes, else a failure."""
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
    return failed(spec, result, chain)


def out_of_memory(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    """Once more with a larger need. Not when it ran into the very limit its user set: that would happen again."""
    outcome, what = SegmentOutcome.GPU_MEMORY, f"out of GPU memory: {result.out_of_memory}"
    own_limit = spec.gpu_memory_limit is not None
    neighbours = chain.peak_mib is not None and chain.peak_mib < 0.9 * chain.promised_mib
    if chain.oom_retries or not chain.promised_mib or (own_limit and not neighbours):
        advice = Advice(lead="; raise its limit: ", asks_gpu_memory=True) if own_limit else None
        return msgspec.structs.replace(ended(outcome, what), retries_used=chain.retries_used, advice=advice)
    need_mib = (
        chain.promised_mib if own_limit else max(chain.promised_mib * 3 // 2, (chain.peak_mib or 0) * 5 // 4)
    )
    reason = f"{what}; once more from {_start_of(chain)}, with {need_mib} MiB reserved"
    counters = (chain.stalled, chain.retries_used, 0)
    return NextMove(Event.REQUEUED, outcome, reason, *counters, BACKOFF_BASE_S, need_mib, fault=outcome.fault)


def failed(spec: RunSpec, result: SegmentResult, chain: Chain) -> NextMove:
    """Return what follows from a failure of the script: another checkpoint, a retry with its delay, or the end.

    What is the host's fault costs no retry. The reason names the fault, and why there is no retry."""
    fault = _fault(result)
    if (
        fault is not None
        and fault in OF_THE_HOST
        and (move := _tried_again(result, chain, fault)) is not None
    ):
        return move
    if (move := _fallen_back(result, chain, fault)) is not None:
        return move
    outcome = SegmentOutcome.NOT_STARTED if result.could_not_start else SegmentOutcome.FAILED
    failed = NextMove(
        Event.FAILED,
        outcome,
        why_failed(result, fault),
        retries_used=chain.retries_used,
        fault=fault,
        advice=_HOST_ADVICE.get(fault) if fault is not None else None,
        acquits=chain.fell_back > 0,
    )
    if _is_refused_load(result):
        failed = msgspec.structs.replace(failed, reason=failed.reason + _LOAD_ALL)
    if chain.fell_back:
        failed = msgspec.structs.replace(failed, reason=f"{failed.reason}; so it did with another checkpoint")
    if spec.smoke and not chain.has_begun:
        return msgspec.structs.replace(failed, reason=f"{smoke.HEAD}: before its first step, {failed.reason}")
    if chain.retries_used >= spec.retries:
        end = f" (after {chain.retries_used} retries)" if chain.retries_used else ""
        return msgspec.structs.replace(failed, reason=failed.reason + end)
    if fault in WOULD_FAIL_AGAIN and not chain.resumable:
        return msgspec.structs.replace(
            failed, reason=f"{failed.reason}; not retried: it would fail the same way again"
        )
    if (limit := limit_reached(spec, chain)) is not None:
        return msgspec.structs.replace(failed, reason=f"{failed.reason}; {limit[0]}", advice=limit[1])
    attempt = chain.retries_used + 1
    delay_s = backoff_s(attempt)
    retry = f"retry {attempt} of {spec.retries} from {_start_of(chain)} in {delay_s:g} s"
    counters = (chain.stalled, attempt, 0)
    move = NextMove(
        Event.REQUEUED, outcome, f"{failed.reason}; {retry}", *counters, delay_s=delay_s, fault=fault
    )
    return msgspec.structs.replace(move, acquits=failed.acquits)


def over_limit(why: str | None) -> NextMove:
    """Return the move of a run that was ended for a limit, of the machine or of the time for its first step."""
    reason = smoke.why_over_limit(why)
    return ended(SegmentOutcome.FAILED if smoke.is_failure(reason) else SegmentOutcome.OVER_LIMIT, reason)


def backoff_s(attempt: int) -> float:
    """Return the seconds before retry number `attempt` (1, 2, …): 10 s doubled each time, at most 10 minutes."""
    return min(BACKOFF_BASE_S * 2 ** (attempt - 1), BACKOFF_CAP_S)


def _intended(result: SegmentResult, outcome: SegmentOutcome, how: str) -> NextMove | None:
    """Return the move that was wanted of the segment: it decides over its run, even if it ended in another way."""
    why = f"{result.why_asked}; {how}"
    match result.wanted:
        case Intent.STOP:
            return NextMove(Event.STOPPED, outcome, f"stopped by the user; {how}")
        case Intent.OUTRANKED:
            return NextMove(Event.STOPPED, SegmentOutcome.OUTRANKED, why_out(why))
        case Intent.NAN:
            return ended(SegmentOutcome.NAN, why)
        case Intent.STARTED_OVER:
            return ended(SegmentOutcome.STARTED_OVER, f"started over: {why}")
        case Intent.LIMIT:
            return over_limit(why)
        case _:
            return None


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
    return msgspec.structs.replace(move, host_faults=tries)


def _fallen_back(result: SegmentResult, chain: Chain, fault: Fault | None) -> NextMove | None:
    """Return the move of a run that failed at once with a checkpoint and has another; None for any other.

    That costs no retry. Once the others fail alike, the checkpoint is not the reason.
    """
    if chain.fallback is None or chain.fell_back >= FALLBACK_CAP or fault in _NOT_ITS_CHECKPOINT:
        return None
    if result.could_not_start is not None or result.signal_name == "SIGKILL" or _is_refused_load(result):
        return None
    if _OF_THE_MACHINE.search(result.last_line or ""):
        return None
    suspect, other = chain.fallback
    reason = f"{why_failed(result, fault)}; at once, with {suspect}; tries {other} instead"
    counters = (chain.stalled, chain.retries_used, 0)
    move = NextMove(Event.REQUEUED, SegmentOutcome.FAILED, reason, *counters, LOOK_AGAIN_S, fault=fault)
    return msgspec.structs.replace(move, suspect=suspect)


def _is_refused_load(result: SegmentResult) -> bool:
    return result.last_line is not None and _WEIGHTS_ONLY.search(result.last_line) is not None


def _start_of(chain: Chain) -> str:
    return "its last checkpoint" if chain.resumable else "the beginning"
