"""What does a drill prove? From what two segments showed: whether a script can be chained, and at what price.

Pure: the rehearsal itself is `cli/rehearsal.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from backprop.scheduler.lifecycle import Intent
from backprop.worker.segments.resume_check import CLEARLY, NEAR, StepTrace

BOXES_MIN: Final = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720)
USUAL_BOX_MIN: Final = 10
FINE_SHARE: Final = 0.05
"""Of the time, lost to restarts: what a recommended timebox stays below."""


REPORTED: Final = "reported"


class Proof(StrEnum):
    CHAINABLE = "chainable"
    NOT_CHAINABLE = "not chainable"
    UNPROVEN = "unproven"


@dataclass(frozen=True, kw_only=True)
class DrillSegment:
    """One segment of a drill. Seconds since its start. `ready_s`: to its first reported step, else to its first line.

    `steps`: by what told them: "reported", or a word of its ordinary output ("step", "epoch"), or "bar". `save_s`:
    from the stop signal to its end; None where it was not asked. `saved_steps`: of its good checkpoints, in order.
    """

    outcome: str
    reason: str
    ready_s: float | None = None
    save_s: float | None = None
    killed: bool = False
    cut_cost_s: float | None = None
    used: str | None = None
    used_step: int | None = None
    saved: int = 0
    refused: tuple[str, ...] = ()
    saved_steps: tuple[int, ...] = ()
    gaps_s: tuple[float, ...] = ()
    steps: Mapping[str, StepTrace] = field(default_factory=dict[str, StepTrace])


@dataclass(frozen=True)
class DrillVerdict:
    """`why`: one sentence. `advice`: what to do, one line each."""

    proof: Proof
    why: str
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a segment costs beside its work, seconds. `gap_s`: between saves, None unknown."""

    ready_s: float
    save_s: float
    saves_when_asked: bool
    gap_s: float | None


SAVE_ADVICE: Final = "let it save when it gets the stop signal, or more often, and say so (docs/protocol.md)"
WHERE_ADVICE: Final = (
    "if it saves and says nothing: --checkpoint-glob PATTERN, or --recipe NAME (docs/recipes.md)"
)
LOAD_ADVICE: Final = (
    "let it load BACKPROP_RESUME_FROM, or say how it is told: --resume-arg '--resume {checkpoint}'"
)


def judge(parts: Sequence[DrillSegment], reason: str, broken: Sequence[str], seconds: float) -> DrillVerdict:
    """What the segments prove. `reason`: of the run's state now. `broken`: newer checkpoints that are not whole, with
    why. `seconds`: the box of each segment."""
    no = Proof.NOT_CHAINABLE
    if not parts:
        return DrillVerdict(no, f"it could not be started: {reason}")
    first = parts[0]
    if first.outcome == "completed":
        told = f"it ended by itself within {seconds:g} s, so nothing had to be resumed"
        return DrillVerdict(Proof.UNPROVEN, told, ("a shorter --seconds stops it earlier",))
    if first.outcome != "timeboxed":
        return DrillVerdict(no, f"its first segment ended otherwise than by its timebox: {first.reason}")
    if not first.saved:
        refused = f"; refused: {first.refused[0]}" if first.refused else ""
        longer = f"if it needs longer for its first one: --seconds {3 * seconds:g}"
        return DrillVerdict(no, f"it saved no checkpoint{refused}", (SAVE_ADVICE, WHERE_ADVICE, longer))
    if len(parts) < 2:
        return DrillVerdict(no, f"it was not resumed: {reason}", (SAVE_ADVICE,))
    second = parts[1]
    if second.outcome == Intent.STARTED_OVER:
        shown = next((one.words for one in _evidence(first, second) if one.began_again), second.reason)
        return DrillVerdict(no, shown, (LOAD_ADVICE,))
    if second.outcome not in ("timeboxed", "completed"):
        return DrillVerdict(no, f"the resumed segment failed: {second.reason}", (LOAD_ADVICE,))
    if broken:
        return DrillVerdict(
            no, f"a checkpoint is not whole: {broken[0]}", ("save under another name, then rename",)
        )
    return _went_on(first, second)


def _went_on(first: DrillSegment, second: DrillSegment) -> DrillVerdict:
    killed = first.killed or second.killed
    advice = (
        ("it had to be killed when asked to stop: see --stop-signal and --grace-seconds",) if killed else ()
    )
    for one in _evidence(first, second):
        if one.began_again:
            return DrillVerdict(Proof.NOT_CHAINABLE, one.words, (LOAD_ADVICE,))
        if one.went_on:
            return DrillVerdict(Proof.CHAINABLE, one.words, advice)
    if second.outcome == "completed":
        return DrillVerdict(Proof.CHAINABLE, "resumed, it ran to its end", advice)
    told = "whether it went on cannot be told: it says no step, and its checkpoints carry none"
    return DrillVerdict(Proof.UNPROVEN, told, ('print {"step": N} now and then (docs/protocol.md)', *advice))


@dataclass(frozen=True)
class _Evidence:
    """`told`: what says so. `before`, `after`: the first step of the first and of the resumed segment; `reached`: that
    of its checkpoint, or where that is not known, the last one before."""

    told: str
    before: int
    after: int
    reached: int
    near: float = NEAR

    @property
    def began_again(self) -> bool:
        far = self.reached - self.after >= CLEARLY
        return far and self.after <= self.before + self.near * (self.reached - self.before)

    @property
    def went_on(self) -> bool:
        half = self.before + (self.reached - self.before) / 2
        return self.reached - self.before >= CLEARLY and self.after >= half

    @property
    def words(self) -> str:
        how = "began again" if self.began_again else "went on"
        return f"it {how}: {self.told} {self.after} when resumed, and had reached {self.reached} before"


def _evidence(first: DrillSegment, second: DrillSegment) -> list[_Evidence]:
    """The best first: reported steps, those of checkpoints, numbers in its ordinary output."""
    found: list[_Evidence] = []
    if len(first.saved_steps) and second.saved_steps and second.used_step is not None:
        new, used = second.saved_steps[0], second.used_step
        if list(first.saved_steps) == sorted(set(first.saved_steps)) and new != used:
            found.append(_Evidence("it saved step", new if new < used else 0, new, used))
    for word in sorted(first.steps, key=lambda word: -(first.steps[word].highest or 0)):
        one, two = first.steps[word], second.steps.get(word)
        if (
            one.first is None
            or one.highest is None
            or one.fell
            or two is None
            or two.first is None
            or two.fell
        ):
            continue
        used = second.used_step
        told = used is not None and word == REPORTED and one.first <= used <= one.highest
        reached = used if used is not None and told else one.highest
        what = "it reported step" if word == REPORTED else f"its output says {word}"
        evidence = _Evidence(what, one.first, two.first, reached, NEAR if told else 0.0)
        found.insert(0 if word == REPORTED else len(found), evidence)
    return found


def lost_share(costs: Costs, box_s: float) -> float:
    """Share of a segment's time that brings nothing: start-up, save, and for a script that cannot be asked what the box
    holds beyond its last save. 1 when no save fits."""
    if costs.saves_when_asked or costs.gap_s is None:
        spent_s = costs.ready_s + costs.save_s
        return min(spent_s / max(box_s + costs.save_s, spent_s), 1.0) if spent_s else 0.0
    saves = int(max(box_s - costs.ready_s, 0.0) // costs.gap_s) if costs.gap_s else 0
    work_s = saves * costs.gap_s
    # Past half of the box it is ended right after the last save that fits; before, it runs to the end.
    ended_s = max(costs.ready_s + work_s, box_s / 2) if saves else box_s
    ended_s = box_s if ended_s > costs.ready_s + work_s else ended_s
    return 1 - work_s / (ended_s + costs.save_s) if ended_s + costs.save_s else 0.0


def recommended_min(costs: Costs) -> tuple[int, int]:
    """(the timebox to use, the shortest that is fine), minutes. Never below the usual one without need."""
    shares = {box: lost_share(costs, box * 60) for box in BOXES_MIN}
    fine = [box for box, share in shares.items() if share <= FINE_SHARE]
    least = fine[0] if fine else min(BOXES_MIN, key=lambda box: (round(shares[box], 3), box))
    return next((box for box in fine if box >= USUAL_BOX_MIN), least), least
