"""Judges from two segments whether a script can be chained. Pure: `rehearsal` runs them."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from backprop.scheduler.governor.box_end import BoxRule
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments.resume_check import CLEARLY, NEAR

REPORTED: Final = "reported"


class Proof(StrEnum):
    CHAINABLE = "chainable"
    NOT_CHAINABLE = "not chainable"
    UNPROVEN = "unproven"
    RENEWED = "renewed"
    """Nothing resumes it, and it need not: at a timebox it is not ended."""
    BEST_ONLY = "from its best"
    """It resumes, and would go back to its best epoch each time."""


SHOWN: Final = {
    Proof.CHAINABLE: "OK, it resumes",
    Proof.NOT_CHAINABLE: "NOT OK",
    Proof.UNPROVEN: "unclear",
    Proof.RENEWED: "OK, it is not ended",
    Proof.BEST_ONLY: "only from its best",
}


class DrillSegment(msgspec.Struct, frozen=True, kw_only=True):
    """One segment of a drill. Times in seconds.

    `ready_s`: from its start to its first reported step, else to its first line. `save_s`: from the stop signal to its
    end; None when it was not asked to stop. `saved_when_asked`: after the signal, and the signal was not its end.
    `used`, `used_step`: the checkpoint it resumed from. `saved`: how many good checkpoints it saved, `saved_unasked`:
    before the signal; `saved_steps`: their steps, in order. `gaps_s`: between them. `steps`: by source, which is
    `REPORTED`, or what its plain output counts ("step", "epoch"). `asks_whether_to_stop`: it calls `should_stop()`, or
    a callback of ours does.
    """

    outcome: str
    reason: str
    ready_s: float | None = None
    save_s: float | None = None
    killed: bool = False
    cut_cost_s: float | None = None
    saved_when_asked: bool = False
    used: str | None = None
    used_step: int | None = None
    saved: int = 0
    saved_unasked: int = 0
    refused: tuple[str, ...] = ()
    saved_steps: tuple[int, ...] = ()
    gaps_s: tuple[float, ...] = ()
    steps: Mapping[str, StepTrace] = {}
    asks_whether_to_stop: bool = False


class DrillVerdict(msgspec.Struct, frozen=True):
    """`why`: one sentence. `advice`: what to do, one line each."""

    proof: Proof
    why: str
    advice: tuple[str, ...] = ()


SAVE_ADVICE: Final = "make it save on the stop signal, or more often, and announce it (docs/protocol.md)"
WHERE_ADVICE: Final = (
    "if it saves without announcing it: --checkpoint-glob PATTERN, or --recipe NAME (docs/recipes.md)"
)
LOAD_ADVICE: Final = (
    "make it load BACKPROP_RESUME_FROM, or name its option: --resume-arg '--resume {checkpoint}'"
)
BEST_ADVICE: Final = "save a last state beside it by the clock: a reboot then costs little"


def judge(
    parts: Sequence[DrillSegment],
    reason: str,
    broken: Sequence[str],
    seconds: float,
    rule: BoxRule = BoxRule.AUTO,
    at_best: str = "",
    guessed: bool = False,
) -> DrillVerdict:
    """Return what the segments prove.

    `reason`: that of the run's state. `broken`: see `rehearsal.Rehearsal`. `seconds`: the timebox of each segment.
    `rule`: what the end of a timebox is for such a run. `at_best`: what shows that its saves follow a metric; "" for
    nothing. `guessed`: as in `Plan`.
    """
    no = Proof.NOT_CHAINABLE
    over = Proof.RENEWED if guessed and rule is not BoxRule.END else no
    lives_on = Proof.NOT_CHAINABLE if rule is BoxRule.END else Proof.RENEWED
    if not parts:
        return DrillVerdict(no, f"it could not start: {reason}")
    first = parts[0]
    if first.outcome == SegmentOutcome.COMPLETED:
        why = f"it ended by itself within {seconds:g} s, so there was nothing to resume"
        return DrillVerdict(Proof.UNPROVEN, why, ("use a shorter --seconds to stop it earlier",))
    if first.outcome != SegmentOutcome.TIMEBOXED:
        return DrillVerdict(no, f"its first segment ended before its timebox: {first.reason}")
    if not first.saved:
        refused = f"; refused: {first.refused[0]}" if first.refused else ""
        longer = f"if its first checkpoint takes longer: --seconds {3 * seconds:g}"
        why = f"it saved no checkpoint{refused}"
        return DrillVerdict(lives_on, why, (SAVE_ADVICE, WHERE_ADVICE, longer))
    if len(parts) < 2:
        return DrillVerdict(lives_on, f"it was not resumed: {reason}", (LOAD_ADVICE,))
    second = parts[1]
    if second.outcome == SegmentOutcome.STARTED_OVER:
        shown = next(
            (evidence.text for evidence in _evidence(first, second) if evidence.started_over), second.reason
        )
        return DrillVerdict(over, shown, (LOAD_ADVICE,))
    if second.outcome not in (SegmentOutcome.TIMEBOXED, SegmentOutcome.COMPLETED):
        return DrillVerdict(no, f"the resumed segment failed: {second.reason}", (LOAD_ADVICE,))
    if broken:
        return DrillVerdict(
            no, f"a checkpoint is incomplete: {broken[0]}", ("save under another name, then rename",)
        )
    verdict = _judge_steps(first, second, over)
    if at_best and verdict.proof is Proof.CHAINABLE:
        why = f"it saves at its best alone ({at_best}), so a resume goes back to that; {verdict.why}"
        return DrillVerdict(Proof.BEST_ONLY, why, (BEST_ADVICE, *verdict.advice))
    return verdict


def _judge_steps(first: DrillSegment, second: DrillSegment, over: Proof) -> DrillVerdict:
    killed = first.killed or second.killed
    advice = (
        ("it did not stop in time and was killed: see --stop-signal and --grace-seconds",) if killed else ()
    )
    for evidence in _evidence(first, second):
        if evidence.started_over:
            return DrillVerdict(over, evidence.text, (LOAD_ADVICE,))
        if evidence.resumed:
            return DrillVerdict(Proof.CHAINABLE, evidence.text, advice)
    if second.outcome == SegmentOutcome.COMPLETED:
        return DrillVerdict(Proof.CHAINABLE, "it resumed and ran to its end", advice)
    why = "it may have resumed or not: neither its output nor its checkpoints show usable steps"
    return DrillVerdict(Proof.UNPROVEN, why, ('print {"step": N} regularly (docs/protocol.md)', *advice))


class _Evidence(msgspec.Struct, frozen=True):
    """`wording`: "saved at step {reached}, resumed at step {after}". `before`, `after`: the first step of the first and
    of the resumed segment. `reached`: the step of the checkpoint or, if unknown, the last step before the stop."""

    wording: str
    before: int
    after: int
    reached: int
    near: float = NEAR

    @property
    def started_over(self) -> bool:
        far = self.reached - self.after >= CLEARLY
        return far and self.after <= self.before + self.near * (self.reached - self.before)

    @property
    def resumed(self) -> bool:
        half = self.before + (self.reached - self.before) / 2
        return self.reached - self.before >= CLEARLY and self.after >= half

    @property
    def text(self) -> str:
        steps = self.wording.format(reached=self.reached, after=self.after)
        return f"it started over: {steps}" if self.started_over else steps


def _evidence(first: DrillSegment, second: DrillSegment) -> list[_Evidence]:
    """Return the evidence, the best first: reported steps, those of checkpoints, numbers in its ordinary output."""
    evidence: list[_Evidence] = []
    if len(first.saved_steps) and second.saved_steps and second.used_step is not None:
        new, used = second.saved_steps[0], second.used_step
        if list(first.saved_steps) == sorted(set(first.saved_steps)) and new != used:
            wording = "resumed from the checkpoint of step {reached}, next saved at step {after}"
            evidence.append(_Evidence(wording, new if new < used else 0, new, used))
    for word in sorted(first.steps, key=lambda word: -(first.steps[word].highest or 0)):
        before, after = first.steps[word], second.steps.get(word)
        if (
            before.first is None
            or before.highest is None
            or before.fell
            or after is None
            or after.first is None
            or after.fell
        ):
            continue
        used = second.used_step
        known = used is not None and word == REPORTED and before.first <= used <= before.highest
        reached = used if used is not None and known else before.highest
        if word == REPORTED:
            stopped = "saved" if known else "stopped"
            wording = f"{stopped} at step {{reached}}, resumed at step {{after}}"
        else:
            wording = f"its output stopped at {word} {{reached}} and resumed at {word} {{after}}"
        of_word = _Evidence(wording, before.first, after.first, reached, NEAR if known else 0.0)
        evidence.insert(0 if word == REPORTED else len(evidence), of_word)
    return evidence
