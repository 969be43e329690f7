"""Tracks the running time and the saves of a live segment, to end it at the right moment and to price its end.

It decides nothing itself: `timebox` and `resume_check` do.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments import resume_check, timebox
from backprop.worker.segments.ends.chain import begun_in_chain
from backprop.worker.segments.resume_check import EarlierSegments
from backprop.worker.user_files import within

ANSWER_S: Final = 2.0
"""How long the run's directory may take to answer. Of what does not, nothing is concluded."""


class ClockReading(msgspec.Struct, frozen=True):
    """One reading of both clocks, seconds."""

    wall_s: float
    monotonic_s: float


class Cadence:
    """Follows one segment: its running time, its saves, and whether it continued where the last one ended.

    `segment`: as it was when this worker first observed it. `earlier`: the run's segments before it, oldest first.
    `saved`: the run's checkpoints, newest first. `age_s`: how long ago it started. Pauses before `now` are not known
    and count as running time.
    """

    def __init__(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        earlier: Sequence[SegmentRecord],
        saved: Sequence[CheckpointRecord],
        age_s: float,
        now: ClockReading,
    ) -> None:
        self._run, self._segment, self.earlier = run, segment, earlier
        oldest_first = list(reversed(saved))
        self.known = [
            record for record in oldest_first if record.segment < segment.number and record.refused is None
        ]
        used = (record for record in reversed(self.known) if record.path == segment.checkpoint_used)
        self._used = next(used, None)
        self.elapsed_s = age_s
        self._observed_s = now.monotonic_s
        self._pauses: list[tuple[float, float]] = []
        self.saves_s: list[float] = []
        self._new_steps: list[int] = []
        self._histories: dict[bool, timebox.SaveHistory] = {}
        announced = [other for other in earlier if other.step_unit is None]
        first_steps = [other.first_step for other in announced if other.first_step is not None]
        self._origin = min(first_steps, default=None)
        self._before: EarlierSegments | None = None
        self._resumed_well = self._used is None or any(
            other.outcome is SegmentOutcome.STARTED_OVER for other in earlier
        )
        self.note_saves([record for record in oldest_first if record.segment == segment.number], now.wall_s)

    def observe(self, state: State, now: ClockReading) -> None:
        """Count the time since the last observation as running or paused. Call once per tick."""
        passed_s, self._observed_s = now.monotonic_s - self._observed_s, now.monotonic_s
        if state in (State.PAUSED, State.SUSPENDED):
            self._pauses.append((now.wall_s - passed_s, now.wall_s))
        else:
            self.elapsed_s += passed_s

    def is_new(self, record: CheckpointRecord) -> bool:
        """Return whether a checkpoint of the segment goes beyond what it resumed from."""
        used_step = self._used.step if self._used is not None else None
        return record.step is None or used_step is None or record.step > used_step

    def note_saves(self, saved: Sequence[CheckpointRecord], wall_s: float) -> None:
        """Count what it has saved since the last call. `saved`: oldest first. `wall_s`: now, Unix seconds."""
        for record in saved:
            if record.refused is not None:
                continue
            if self.is_new(record):
                age_s = max(wall_s - timebox.landed_s(record), 0.0)
                self.saves_s.append(max(self.elapsed_s - age_s, 0.0))
            if record.step is not None:
                self._new_steps.append(record.step)

    def paused_between_s(self, from_s: float, to_s: float) -> float:
        """Return how much of a span of the wall clock (Unix seconds) it was paused, as far as was observed."""
        return sum(max(min(end_s, to_s) - max(begin_s, from_s), 0.0) for begin_s, end_s in self._pauses)

    def latest_end_s(self) -> float:
        """Return how long its supervisor lets it run, in seconds of running time."""
        return timebox.latest_end_s(self._run, self.history(announces=False))

    def is_near(self, announces: bool, box: timebox.Box) -> bool:
        """Return whether to read closely: a save that lands now may be the one to end at. `box`: the one in force."""
        return (box.cuts and self._goes_on()) and timebox.is_near(
            self.history(announces), box, self.saves_s, self.elapsed_s
        )

    def early_end(
        self, announces: bool, steps: StepTrace, folder: Callable[[int], Path], box: timebox.Box
    ) -> tuple[Intent, str] | None:
        """Return why it should be asked to end now; None to let it run.

        `announces`: it has announced a save itself. `folder`: of an earlier segment, by number; it is read when the
        steps look as if they began again. `box`: the one in force. What has made its last step is left to end by
        itself: a Hugging Face Trainer that goes on from there makes a step too many.
        """
        over = self.why_started_over(steps, folder)
        if over is not None:
            return Intent.STARTED_OVER, f"{over}, {resume_check.advice(self._run.spec, self._run.id)}"
        if steps.is_at_end:
            return None
        late = box.overruns and self._run.spec.overrun_pct > 0
        why = timebox.why_over(box.ends_s, self.saves_s, self.elapsed_s) if late else None
        if why is None and box.cuts and self._goes_on():
            why = timebox.why_cut(self.history(announces), box, self.saves_s, self.elapsed_s)
        return (Intent.TIMEBOX, why) if why is not None else None

    def box_s(self, announces: bool) -> float:
        """Return how long a timebox of this segment is."""
        return timebox.box_s(self._run, self.history(announces))

    def _goes_on(self) -> bool:
        """Return whether another segment follows; in the last one nothing would be gained by an early end."""
        spec, done = self._run.spec, begun_in_chain(self._run, self._segment.number, self.earlier)
        bounded = spec.max_segments is not None and done >= spec.max_segments
        left_s = spec.max_total_s - self._run.chain_total_s if spec.max_total_s is not None else None
        used_up = left_s is not None and left_s <= spec.timebox_s
        return spec.auto_resume and not spec.cannot_resume and not bounded and not used_up

    def history(self, announces: bool) -> timebox.SaveHistory:
        """Return how the script is known to save, by its earlier segments."""
        if announces not in self._histories:
            self._histories[announces] = timebox.save_history(
                self._run.spec, self.earlier, self.known, announces
            )
        return self._histories[announces]

    def why_started_over(self, steps: StepTrace, folder: Callable[[int], Path]) -> str | None:
        """Return what shows that the segment began at zero, though it was given a checkpoint; None while nothing does.
        `folder`: as in `early_end`."""
        if steps.unit is not None:
            return self._why_output_began_again(steps)
        nothing = steps.first is None and (self._origin is not None or not self._new_steps)
        if self._resumed_well or nothing or self._used is None:
            return None
        if self._before is None:
            self._before = self._look_back(self._used, steps, folder)
        why = resume_check.why_over(self._before, steps, self._new_steps)
        # What its first step does not show, no later one will.
        self._resumed_well = why is None and resume_check.is_fine(self._before, steps)
        return why

    def _why_output_began_again(self, steps: StepTrace) -> str | None:
        """As `why_started_over`, by the epochs in its plain output: those of one and the same training, and since
        none of them fell in any segment, a counter of the whole of it."""
        used, same = self._used, [other for other in self.earlier if other.step_unit == steps.unit]
        if self._resumed_well or used is None or steps.first is None:
            return None
        totals = {other.step_total for other in same}
        firsts = [other.first_step for other in same if other.first_step is not None]
        known = used.segment in {other.number for other in same} and totals == {steps.total}
        counts = steps.unit == "epoch" or (self._run.spec.plan is not None and self._run.spec.plan.guessed)
        if not known or not counts or any(other.step_fell for other in same):
            return None
        before = EarlierSegments(origin=min(firsts, default=None), resumed_step=used.seen_step, passed=True)
        why = resume_check.why_over(before, steps, ())
        self._resumed_well = why is None and resume_check.is_fine(before, steps)
        return why

    def _look_back(
        self, used: CheckpointRecord, steps: StepTrace, folder: Callable[[int], Path]
    ) -> EarlierSegments:
        before = EarlierSegments(
            origin=self._origin,
            resumed_step=used.step,
            saved_steps=tuple(record.step for record in self.known if record.step is not None),
        )
        if before.origin is None or resume_check.is_fine(before, steps, self._segment.steps_from):
            return before
        reports: list[resume_check.ReportedSteps] = []
        wanted = {self.earlier[0].number, self.earlier[-1].number, used.segment}
        for number in sorted(wanted):
            with contextlib.suppress(OSError):
                read_back = partial(resume_check.read_back, folder(number), Path(self._run.spec.cwd))
                reports.append(within(ANSWER_S, read_back))
        used_at = [report.step_at[used.path] for report in reports if used.path in report.step_at]
        return msgspec.structs.replace(
            before,
            resumed_step=used.step if used.step is not None or not used_at else used_at[-1],
            fell=any(report.steps.fell for report in reports) or len(reports) < len(wanted),
            passed=any(report.passed for report in reports),
        )
