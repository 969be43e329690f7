"""Takes the samples of which reports of the night are made: the machine, and why the head of the queue does not start.

A change of the reasons is recorded soon, the rest every half minute. Where nothing reads the machine, because nothing
runs and nothing may start, the reasons alone are recorded every five minutes. A sample is one synced write.
"""

from collections.abc import Callable, Sequence
from typing import Final

from backprop.scheduler.governor.model import Denial
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.records import ClockChange, Refusal
from backprop.scheduler.store import samples
from backprop.worker.clock import JUMP_S
from backprop.worker.context import Context

RESTING_EVERY_S: Final = 300.0
LEAST_APART_S: Final = 5.0
THIN_EVERY_S: Final = 3600.0
STOPPING: Final = Refusal("stopping", "the worker had been told to stop")


class Sampler:
    """`recent`: returns the last reading of the machine, None if nobody has read it lately."""

    def __init__(self, context: Context, recent: Callable[[], Snapshot | None]) -> None:
        self._context = context
        self._recent = recent
        self._taken_s: float | None = None
        self._thinned_s: float | None = None
        self._rules: frozenset[tuple[str, int | None]] = frozenset()
        self._distance_s: float | None = None
        self._slept_s = 0.0

    def sample(self, denials: Sequence[Denial], *, stopping: bool) -> None:
        """Record what is due. `denials`: why the head of the queue does not start; none where there is no head.
        `stopping`: the worker starts nothing more. Call it once per tick. Raises DatabaseBusy."""
        self._note_clock()
        context, now_s = self._context, self._context.clock.monotonic_s()
        snapshot = self._recent()
        refusals = [Refusal(one.rule.value, one.sentence(), one.gpu_index) for one in denials]
        if stopping:
            refusals = [STOPPING]
        rules = frozenset((one.rule, one.gpu_index) for one in refusals)
        passed_s = None if self._taken_s is None else now_s - self._taken_s
        due = passed_s is None or passed_s >= (samples.EVERY_S if snapshot else RESTING_EVERY_S)
        news = rules != self._rules and (passed_s is None or passed_s >= LEAST_APART_S)
        if not due and not news:
            return
        limits_c = self._limits_c(snapshot) if snapshot is not None else {}
        wall_s = context.clock.wall_s()
        samples.keep(context.database, snapshot, wall_s, refusals, limits_c, at_once=news)
        self._taken_s, self._rules = now_s, rules
        if self._thinned_s is None or now_s - self._thinned_s >= THIN_EVERY_S:
            self._thinned_s = now_s
            samples.thin(context.database, wall_s)

    def _limits_c(self, snapshot: Snapshot) -> dict[str, int]:
        limit_c = self._context.settings.gpu_max_temp_c
        return {
            gpu.uuid: limit_c if gpu.slowdown_c is None else min(limit_c, gpu.slowdown_c)
            for gpu in snapshot.gpus
        }

    def _note_clock(self) -> None:
        """Record that the wall clock was set, or that the machine slept."""
        clock = self._context.clock
        monotonic_s, wall_s, boot_s = clock.monotonic_s(), clock.wall_s(), clock.boot_s()
        distance_s, slept_s = wall_s - monotonic_s, boot_s - monotonic_s
        if self._distance_s is not None:
            by_s, now_slept_s = distance_s - self._distance_s, slept_s - self._slept_s
            asleep_s = now_slept_s if now_slept_s > JUMP_S else 0.0
            if max(abs(by_s), asleep_s) > JUMP_S:
                change = ClockChange(wall_s, by_s, asleep_s)
                samples.note_clock_change(self._context.database, change)
        self._distance_s, self._slept_s = distance_s, slept_s
