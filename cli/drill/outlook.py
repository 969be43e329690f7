"""Says how a drilled script will go on in the night: at a timebox, at a resume, after a reboot. Pure.

What happens at a timebox is decided by the table that decides it in the night, from what the drill has shown.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from backprop.cli.drill.costs import Costs
from backprop.cli.drill.verdict import DrillSegment, DrillVerdict, Proof
from backprop.scheduler.governor.box_end import (
    BoxFacts,
    BoxRule,
    Choice,
    Known,
    decide_box,
    is_dear,
    why_dear,
)
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome

AtBox = Literal["ends", "ends after a save", "ends for good", "goes on", "none"]

_SAID: Final[dict[AtBox, str]] = {
    "ends": "it is asked to save, ended, and queued again",
    "ends after a save": "it is ended right after a save, and queued again",
    "ends for good": "it is ended once, to see whether it resumes; as it does not, the run ends there",
    "goes on": "it is not ended, so nothing is lost: the same process goes on",
    "none": "it has none",
}


class Outlook(msgspec.Struct, frozen=True):
    """`at_timebox`: what its end will be; `timebox`, `resume`, `reboot`: in words. `resumed_from`: the checkpoint that
    the proof was made with."""

    at_timebox: AtBox
    timebox: str
    resume: str
    reboot: str
    resumed_from: str | None = None


def outlook(
    verdict: DrillVerdict,
    segments: Sequence[DrillSegment],
    costs: Costs | None,
    rule: BoxRule = BoxRule.AUTO,
    box_s: float = 600.0,
) -> Outlook | None:
    """Return how the script will go on; None where it did not come to its first timebox. `rule`, `box_s`: of a run
    that is queued with the same settings."""
    if not segments or segments[0].outcome != SegmentOutcome.TIMEBOXED:
        return None
    resumes = verdict.proof in (Proof.CHAINABLE, Proof.BEST_ONLY)
    used = next((one.used for one in reversed(segments) if one.used is not None), None) if resumes else None
    at_timebox, timebox = _at_timebox(verdict, segments, costs, rule, box_s)
    resume = f"proven, from {used}" if used is not None else _unproven(verdict, segments)
    if verdict.proof is Proof.BEST_ONLY:
        resume += ", which is its best epoch"
    return Outlook(at_timebox, timebox, resume, _reboot(verdict, segments, costs), used)


def _at_timebox(
    verdict: DrillVerdict,
    segments: Sequence[DrillSegment],
    costs: Costs | None,
    rule: BoxRule,
    box_s: float,
) -> tuple[AtBox, str]:
    if rule is BoxRule.NONE:
        return "none", _SAID["none"]
    if rule is BoxRule.END:
        return "ends", f"{_SAID['ends']}, whatever is lost"
    if verdict.proof is Proof.NOT_CHAINABLE:
        return "ends for good", _SAID["ends for good"]
    if verdict.proof is Proof.UNPROVEN:
        text = "a save of its own may be the end of its first one, to see whether it resumes; else it goes on"
        return "goes on", text
    facts = BoxFacts(
        resumes=Known.PROVEN if verdict.proof in (Proof.CHAINABLE, Proof.BEST_ONLY) else Known.NO,
        has_saved=True,
        restart_s=costs.ready_s if costs is not None else None,
        box_s=box_s,
        turn_s=box_s,
        waited_for=True,
    )
    if facts.resumes is Known.NO or (only_when_asked(segments) and not _asks_itself(segments)):
        why = (
            "; --at-timebox end ends it, as it saves when asked alone"
            if facts.resumes is not Known.NO
            else ""
        )
        return "goes on", f"{_SAID['goes on']}{why}"
    unasked = costs is not None and not costs.saves_when_asked
    way: AtBox = "ends after a save" if unasked else "ends"
    if not is_dear(facts):
        return way, _SAID[way]
    if decide_box(facts).choice is Choice.ASK:
        return way, f"{_SAID[way]} where others wait; else it goes on: {why_dear(facts)}"
    return way, f"{_SAID[way]} where others wait, after {decide_box(facts).why}; else it goes on"


def only_when_asked(segments: Sequence[DrillSegment]) -> bool:
    """Return whether all that was saved came after the stop signal."""
    return any(one.saved for one in segments) and not any(one.saved_unasked for one in segments)


def _asks_itself(segments: Sequence[DrillSegment]) -> bool:
    return any(one.asks_whether_to_stop for one in segments)


def _unproven(verdict: DrillVerdict, segments: Sequence[DrillSegment]) -> str:
    if verdict.proof is Proof.UNPROVEN:
        return "not proven, and not refuted"
    if not any(one.saved for one in segments):
        return "not proven: there was no checkpoint to resume from"
    return "not proven: nothing that it saved was taken up"


def _reboot(verdict: DrillVerdict, segments: Sequence[DrillSegment], costs: Costs | None) -> str:
    if verdict.proof is Proof.BEST_ONLY:
        return "it costs all work since its best epoch, and a restart"
    if verdict.proof is Proof.UNPROVEN:
        return "it costs the work since its last save where it resumes, else all of it"
    if verdict.proof is not Proof.CHAINABLE:
        return "it costs all its work: the run would begin at zero"
    if only_when_asked(segments):
        return "it costs all work since its last end: it saves nothing unasked"
    gap_s = costs.gap_s if costs is not None else None
    since = f"up to {_seconds(gap_s)} of work" if gap_s else "the work since its last save"
    return f"it costs {since}, and a restart{f' of {_seconds(costs.ready_s)}' if costs is not None else ''}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
