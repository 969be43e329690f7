"""Detects a resumed segment that started over: the whole night would be spent on the same hour.

An alarm ends the run, so it is raised only where nothing else explains what is observed:

- The segment was given a checkpoint of an earlier one, and its step is known.
- The very first step it reports lies where the run's first one lay, and well before the checkpoint's.
- Steps never went back within a segment: those that begin again with each epoch say nothing. And they are known to go
  on past a save; where each segment so far has ended at one, this segment first has to pass it.

Of steps that stand in its plain output alone, only epochs tell, with the same total or none in all segments: `Epoch
1/24` behind `Epoch 24/24`. Any other counter may begin again with each epoch or each start.

Without reported steps: its first checkpoint carries the step of the run's first one, well before the one resumed from.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.spec import RunSpec
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments import events
from backprop.worker.segments.tail import Tail

NEAR: Final = 0.05
"""Of the way from the first step to the checkpoint's: as near to the beginning counts as the beginning."""
CLEARLY: Final = 2
"""The checkpoint's step lies this much beyond the first one reported. One proves nothing: a checkpoint counts the steps
done, while a script may print the step it is about to do."""
SCAN_BYTES: Final = 4 << 20
"""Read of the beginning and of the end of a long log. Steps that go back with each epoch do so in either part."""


class EarlierSegments(msgspec.Struct, frozen=True, kw_only=True):
    """What the run's segments before this one have shown.

    `origin`: the first step ever reported. `resumed_step`: that of the checkpoint this one was given. `fell`: steps
    went back within a segment. `passed`: in a segment steps went on after a save. `saved_steps`: of their
    checkpoints, in the order of saving.
    """

    origin: int | None
    resumed_step: int | None
    fell: bool = False
    passed: bool = False
    saved_steps: tuple[int, ...] = ()


def is_fine(before: EarlierSegments, steps: StepTrace, reached: int | None = None) -> bool:
    """Return whether its first step shows that it resumed, or that nothing can be concluded.

    `reached`: the run's last step before it began, used where the checkpoint's is not known.
    """
    resumed = before.resumed_step if before.resumed_step is not None else reached
    if resumed is None or before.fell or steps.fell:
        return True
    if before.origin is None or steps.first is None:
        return False
    near = steps.first <= before.origin + NEAR * (resumed - before.origin)
    return not near or resumed - steps.first < CLEARLY


def why_over(before: EarlierSegments, steps: StepTrace, new_saved: Sequence[int]) -> str | None:
    """Return what shows that a resumed segment started over; None while nothing does.

    `new_saved`: the steps of the checkpoints it has saved, in order.
    """
    resumed = before.resumed_step
    if resumed is None or is_fine(before, steps):
        return None
    if before.origin is not None:
        passes_saves = before.passed or (steps.highest is not None and steps.highest > resumed)
        if steps.first is None or not passes_saves:
            return None
        what = steps.unit or "step"
        return (
            f"its {what}s began again at {steps.first}, though it was given a checkpoint of {what} {resumed}"
        )
    saved = before.saved_steps
    if not new_saved or len(saved) < CLEARLY or any(step >= following for step, following in pairwise(saved)):
        return None
    if new_saved[0] > saved[0] or resumed - new_saved[0] < CLEARLY:
        return None
    return f"it saved step {new_saved[0]} again, though it was given a checkpoint of step {resumed}"


def advice(spec: RunSpec, run_id: str) -> str:
    """Return what to do about a run that started over."""
    passed_as = f", and passed as {spec.resume_arg}" if spec.resume_arg not in ("auto", "none") else ""
    return (
        f"so it did not take it up. The path is in BACKPROP_RESUME_FROM{passed_as}: let the script load it, or queue it"
        " with the --resume-arg that"
        f" it takes (docs/protocol.md); if it counts steps differently: backprop resume {run_id}"
    )


class ReportedSteps(msgspec.Struct):
    """What one segment's events report: its steps, whether they went on after a save, and the last step reported
    before each announced path."""

    steps: StepTrace
    passed: bool
    step_at: dict[str, int]


def read_back(folder: Path, cwd: Path) -> ReportedSteps:
    """Read the events of a segment that has ended; of long files their beginning and their end. Raises OSError,
    also where its log is gone or compressed: what cannot be read proves nothing."""
    (folder / "log").stat()
    reported = ReportedSteps(StepTrace(), False, {})
    for path in (folder / "events.jsonl", folder / "log"):
        steps, at_save = StepTrace(), None
        for event in _events_in(path):
            if isinstance(event, events.ProgressEvent) and event.step is not None:
                steps.take(event.step)
                reported.passed = reported.passed or (at_save is not None and event.step > at_save)
            elif isinstance(event, events.CheckpointEvent) and steps.last is not None:
                at_save = steps.last
                reported.step_at[os.path.realpath(cwd / event.path)] = steps.last
        if steps.first is not None:
            steps.fell = steps.fell or reported.steps.fell
            reported.steps = steps
    return reported


def _events_in(path: Path) -> Iterator[object]:
    size = path.stat().st_size if path.exists() else 0
    parts = [(0, SCAN_BYTES), (size - SCAN_BYTES, size)] if size > 2 * SCAN_BYTES else [(0, size)]
    for begin, end in parts:
        with Tail(path, begin) as tail:
            while tail.offset < end:
                yield from map(events.parse, tail.read())
                if tail.at_end:
                    break
