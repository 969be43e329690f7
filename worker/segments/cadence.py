"""What does a worker remember of a live segment, to end it at the right moment and to say what its end has cost?

One object a segment. It decides nothing itself: `align` and `startover` do.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.outcome import SegmentOutcome
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.worker.segments import resume_check, timebox
from backprop.worker.segments.resume_check import EarlierSegments, StepTrace


@dataclass(frozen=True)
class ClockReading:
    """One reading of both clocks, seconds."""

    wall_s: float
    monotonic_s: float


class Cadence:
    """Follows one segment: its running time, its saves, and whether it took up where the last one ended.

    `segment`: as it was when this worker first looked. `earlier`: the run's segments before, oldest first. `saved`:
    the run's checkpoints, newest first. Pauses before this moment are not known and count as running time.
    """

    def __init__(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        earlier: Sequence[SegmentRecord],
        saved: Sequence[CheckpointRecord],
        now: ClockReading,
    ) -> None:
        self._run, self._segment, self._earlier = run, segment, earlier
        self._known = [one for one in reversed(saved) if one.segment < segment.number and one.refused is None]
        self._used = next((one for one in reversed(self._known) if one.path == segment.checkpoint_used), None)
        self._elapsed_s = max(now.wall_s - segment.started_at_s, 0.0)
        self._looked_s = now.monotonic_s
        self._pauses: list[tuple[float, float]] = []
        self._saves_s: list[float] = []
        self._new_steps: list[int] = []
        self._habits: dict[bool, timebox.SaveHistory] = {}
        self._origin = min((one.first_step for one in earlier if one.first_step is not None), default=None)
        self._before: EarlierSegments | None = None
        self._resumed_well = self._used is None or any(
            one.outcome is SegmentOutcome.STARTED_OVER for one in earlier
        )
        self.heard([one for one in reversed(saved) if one.segment == segment.number], now.wall_s)

    def look(self, state: State, now: ClockReading) -> None:
        """Once a tick."""
        passed_s, self._looked_s = now.monotonic_s - self._looked_s, now.monotonic_s
        if state is State.PAUSED:
            self._pauses.append((now.wall_s - passed_s, now.wall_s))
        else:
            self._elapsed_s += passed_s

    def heard(self, saved: Sequence[CheckpointRecord], wall_s: float) -> None:
        """What it has saved since, oldest first."""
        for one in (one for one in saved if one.refused is None):
            if (
                one.step is None
                or self._used is None
                or self._used.step is None
                or one.step > self._used.step
            ):
                self._saves_s.append(max(self._elapsed_s - max(wall_s - timebox.landed_s(one), 0.0), 0.0))
            if one.step is not None:
                self._new_steps.append(one.step)

    def paused_between_s(self, from_s: float, to_s: float) -> float:
        """How much of a span of the wall clock it was paused, as far as was seen."""
        return sum(max(min(end_s, to_s) - max(begin_s, from_s), 0.0) for begin_s, end_s in self._pauses)

    def is_near(self, announces: bool) -> bool:
        """Whether to listen closely: a save that lands now may be the one to end at."""
        return self._goes_on() and timebox.is_near(
            self._habit(announces), timebox.timebox_s(self._run), self._saves_s, self._elapsed_s
        )

    def wish(
        self, announces: bool, steps: StepTrace, folder: Callable[[int], Path]
    ) -> tuple[Intent, str] | None:
        """Why it should be asked to end now; None to let it run. `announces`: it has said itself that it saved.
        `folder`: of an earlier segment, by number. Reads there when its steps look as if they began again."""
        over = self._why_over(steps, folder)
        if over is not None:
            return Intent.STARTED_OVER, f"{over}, {resume_check.advice(self._run.spec, self._run.id)}"
        timebox_s = timebox.timebox_s(self._run)
        late = self._run.spec.overrun_pct > 0
        why = timebox.why_over(timebox_s, self._saves_s, self._elapsed_s) if late else None
        if why is None and self._goes_on():
            why = timebox.why_cut(self._habit(announces), timebox_s, self._saves_s, self._elapsed_s)
        return (Intent.TIMEBOX, why) if why is not None else None

    def _goes_on(self) -> bool:
        """Whether another segment follows. In the last one nothing would be gained."""
        spec, done = self._run.spec, self._segment.number - self._run.chain_start
        bounded = spec.max_segments is not None and done >= spec.max_segments
        left_s = spec.max_total_s - self._run.chain_total_s if spec.max_total_s is not None else None
        used_up = left_s is not None and left_s <= spec.timebox_s
        resumes = spec.plan is None or spec.plan.resumes != "none"
        return spec.auto_resume and resumes and not bounded and not used_up

    def _habit(self, announces: bool) -> timebox.SaveHistory:
        if announces not in self._habits:
            self._habits[announces] = timebox.save_history(
                self._run.spec, self._earlier, self._known, announces
            )
        return self._habits[announces]

    def _why_over(self, steps: StepTrace, folder: Callable[[int], Path]) -> str | None:
        nothing = steps.first is None and (self._origin is not None or not self._new_steps)
        if self._resumed_well or nothing or self._used is None:
            return None
        if self._before is None:
            self._before = self._look_back(self._used, steps, folder)
        why = resume_check.why_over(self._before, steps, self._new_steps)
        # What its first step does not show, no later one will.
        self._resumed_well = why is None and resume_check.is_fine(self._before, steps)
        return why

    def _look_back(
        self, used: CheckpointRecord, steps: StepTrace, folder: Callable[[int], Path]
    ) -> EarlierSegments:
        before = EarlierSegments(
            origin=self._origin,
            resumed_step=used.step,
            saved_steps=tuple(one.step for one in self._known if one.step is not None),
        )
        if before.origin is None or resume_check.is_fine(before, steps, self._segment.steps_from):
            return before
        told: list[resume_check.ReportedSteps] = []
        wanted = {self._earlier[0].number, self._earlier[-1].number, used.segment}
        for number in sorted(wanted):
            with contextlib.suppress(OSError):
                told.append(resume_check.read_back(folder(number), Path(self._run.spec.cwd)))
        told_at = [one.step_at[used.path] for one in told if used.path in one.step_at]
        return replace(
            before,
            resumed_step=used.step if used.step is not None or not told_at else told_at[-1],
            fell=any(one.steps.fell for one in told) or len(told) < len(wanted),
            passed=any(one.passed for one in told),
        )
