"""Defines one move of a run after a segment, and words what its user can do about it."""

from typing import Final

import msgspec

from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome

SUSPENDED_BY_USER: Final = "suspended by the user; backprop unsuspend lets it go on"


class Advice(msgspec.Struct, frozen=True):
    """A command that the user can give about the run. `lead`, `effect`: the words before and after the command.

    `timebox_min`: a timebox to give with it, in minutes. `asks_gpu_memory`: it takes a GPU memory limit. `may_be_done`:
    how it exited 0, where that may have been the end of the run. `asks_resume_arg`: it takes the words that hand the
    script its checkpoint.
    """

    lead: str = ""
    effect: str = ""
    command: str = "resume"
    timebox_min: float | None = None
    asks_gpu_memory: bool = False
    may_be_done: str | None = None
    asks_resume_arg: bool = False


class NextMove(msgspec.Struct, frozen=True):
    """One move, with the run's new counters. `outcome`: how the segment ended.

    `delay_s`: seconds before which the run is not claimed again. `need_mib`: the VRAM per GPU to reserve from now on,
    where it has to be raised. `fault`: the kind of trouble. `advice`: what the user can do; `with_advice` words it.
    `host_faults`: as in `Chain`. `suspect`: the path of a checkpoint that no segment is to be given for now. `acquits`:
    those that were suspects are none any more. `kept`: its user has suspended the run, for good or until
    `kept_until_s` (Unix seconds), and so no segment follows before.
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
    suspect: str | None = None
    acquits: bool = False
    kept: bool = False
    kept_until_s: float | None = None


def held_off(move: NextMove, suspended: bool, until_s: float | None) -> NextMove:
    """Return what a move is for a run that its user wants `suspended`: what would go on waits, `until_s` or for its
    user."""
    if not suspended or move.event is not Event.REQUEUED:
        return move
    event = Event.REQUEUED if until_s is not None else Event.SET_ASIDE
    reason = f"{SUSPENDED_BY_USER}; {move.reason}"
    return msgspec.structs.replace(move, event=event, reason=reason, kept=True, kept_until_s=until_s)


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
    if advice.asks_resume_arg:
        command += " --resume-arg '--load {checkpoint}'"
    reason = f"{move.reason}{advice.lead or '; '}{command}{advice.effect}"
    if advice.may_be_done is not None:
        reason += f"; it {advice.may_be_done}: if it had finished, backprop resume --done {run_id}"
    return msgspec.structs.replace(move, reason=reason, advice=None)


def ended(outcome: SegmentOutcome, reason: str) -> NextMove:
    """Return the move of a run that has failed in a way of its own, with the fault that says which."""
    return NextMove(Event.FAILED, outcome, reason, fault=outcome.fault)
