"""Knows the boxes of one live segment from the first word of its supervisor on, and what its reader has shown of it.

`keeper` decides at their ends. A supervisor of an earlier version, or a run whose boxes all end it, has none.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.governor.box_end import FRESH_S, BoxCause, BoxRule, Known, rule_of
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.writes import claims
from backprop.worker.checkpoints.backups import backups_of
from backprop.worker.context import Context
from backprop.worker.executor import box_files, segment_files
from backprop.worker.segments import timebox
from backprop.worker.segments.boxes.facts import SeenSaves, Wanted, facts_of, once_saved
from backprop.worker.segments.boxes.keeper import NOT_SEEN, BoxKeeper, Look
from backprop.worker.segments.boxes.suspender import Suspender
from backprop.worker.segments.cadence import Cadence
from backprop.worker.segments.log_reader import LogReader

KEEP_EVERY_S: Final = 1.0
"""A box is decided on at most this often; one of less than 20 s more often."""


class Surroundings(msgspec.Struct, frozen=True):
    """What the end of a box depends on beside the run. `wanted`: by a waiting run, its place. `out_of_hours`: runs may
    not start now. `gpu_was_busy`: one of some GPUs did something since a moment. `suspender`: suspends it where that is
    decided."""

    wanted: Wanted | None
    out_of_hours: bool
    gpu_was_busy: Callable[[Sequence[str], float], bool]
    suspender: Suspender


class SegmentBoxes:
    """`is_met`: it is known whether its supervisor obeys what is decided on boxes."""

    def __init__(self, context: Context, run_id: str, number: int) -> None:
        self._context = context
        self._key = (run_id, number)
        self._keeper: BoxKeeper | None = None
        self.is_met = False
        self._kept_s = -math.inf
        self._heeds = self._takes = self._stood_back = False
        self._from_zero: str | None = None
        self._copied: CheckpointRecord | None = None

    @property
    def are_decided(self) -> bool:
        """Whether the ends of its boxes are decided upon."""
        return self._keeper is not None

    @property
    def asking_since_s(self) -> float | None:
        """Since when its supervisor is to end the segment, in seconds of running time; None while it may go on."""
        return self._keeper.asking_since_s if self._keeper is not None else None

    def meet_supervisor(self, run: RunRecord, cadence: Cadence) -> None:
        """Find out whether the segment's supervisor obeys what is decided on boxes, once it has introduced itself."""
        folder = self._context.executor.folder(*self._key)
        with contextlib.suppress(OSError):
            processes, order = segment_files.read_processes(folder), segment_files.read_order(folder)
            if processes is None or order is None:
                return
            if rule_of(run.spec) is BoxRule.AUTO and processes.box_format == box_files.FORMAT:
                self._keeper = BoxKeeper(self._context, run, cadence.earlier, order.timebox_s)
            self.is_met = True

    def in_force(self, run: RunRecord, length_s: float) -> timebox.Box:
        """Return the box in force. `length_s`: where its end ends the segment. Until its supervisor is known, it does
        not end early."""
        if self._keeper is not None:
            return self._keeper.in_force(run)
        return timebox.Box(0.0, length_s, cuts=self.is_met, overruns=True)

    def goes_on_from_zero(
        self, run: RunRecord, cadence: Cadence, reader: LogReader, folder: Callable[[int], Path]
    ) -> bool:
        """Return whether it has started over, by an option that was only guessed: then it is not ended for that, and
        counts as one that can't resume. Said once. Raises DatabaseBusy."""
        guessed = run.spec.plan is not None and run.spec.plan.guessed
        if self._keeper is None or not guessed:
            return False
        if self._from_zero is None and (why := cadence.why_started_over(reader.steps, folder)) is not None:
            self._from_zero = f"it started over: {why}; it goes on from there, and is not ended at a timebox"
            self._context.console.event("started over", run, f"segment {run.segment}: {self._from_zero}")
            claims.explain(self._context.database, run, self._from_zero)
        return self._from_zero is not None

    def why_not_end(self, run: RunRecord, elapsed_s: float, cause: BoxCause) -> str | None:
        """Return why ending it now would lose work that nobody asked to lose; None where that is safe, or the end of a
        box would end it in any case."""
        if elapsed_s <= FRESH_S:
            return None
        if self._keeper is not None:
            return self._keeper.why_not_end(run, cause)
        return None if self.is_met or rule_of(run.spec) is BoxRule.END else NOT_SEEN

    def keep(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        cadence: Cadence,
        reader: LogReader,
        saves: Callable[[], tuple[CheckpointRecord | None, bool]],
        around: Surroundings,
    ) -> bool:
        """Decide on the box in force, as far as that is up to this worker; return whether another one has begun. Call
        once per tick. `saves`: returns the newest own checkpoint, and whether it is saving. Raises OSError,
        DatabaseBusy."""
        keeper, clock = self._keeper, self._context.clock
        now_s = clock.monotonic_s()
        if keeper is None or now_s - self._kept_s < min(KEEP_EVERY_S, run.spec.timebox_s / 20):
            return False
        self._kept_s = now_s
        seen = self._seen(run, reader, *saves())
        facts = facts_of(run, segment, cadence, seen, clock.wall_s(), around.wanted, around.out_of_hours)
        once = once_saved(run, segment, cadence, seen)
        if self._from_zero is not None:
            facts = msgspec.structs.replace(facts, resumes=Known.NO, unsaved_s=cadence.elapsed_s)
            once = Known.NO
        reported = (reader.steps.first, run.last_step, seen.newest)
        box = keeper.box
        keeper.keep(
            run, Look(cadence.elapsed_s, facts, once, reported), _senses(self._context, run, segment, around)
        )
        return keeper.box > box

    def _seen(
        self, run: RunRecord, reader: LogReader, newest: CheckpointRecord | None, is_writing: bool
    ) -> SeenSaves:
        folder = self._context.executor.folder(*self._key)
        self._heeds = self._heeds or segment_files.heeds_stop(folder)
        self._takes = self._takes or segment_files.takes_checkpoint(folder)
        self._stood_back = self._stood_back or segment_files.stood_back(folder)
        return SeenSaves(
            steps=reader.steps,
            newest=newest,
            has_copy=self._has_copy(run, newest),
            is_writing=is_writing,
            announces=reader.announces or run.spec.plan is None,
            takes=self._takes,
            heeds=self._heeds,
            stood_back=self._stood_back,
        )

    def _has_copy(self, run: RunRecord, newest: CheckpointRecord | None) -> bool:
        """Return whether a checkpoint is safe from the next save: a copy was made of one that is overwritten."""
        if newest is None or run.spec.plan is None or not run.spec.plan.in_place:
            return newest is not None
        if self._copied != newest:
            kept = backups_of(self._context.home.run_folder(run.id))
            self._copied = newest if any(backup.holds(newest) for backup in kept) else None
        return self._copied == newest


class _Senses(msgspec.Struct, frozen=True):
    pids: Callable[[], frozenset[int]]
    gpu_was_busy: Callable[[float], bool]
    why_not_suspend: Callable[[], str | None]
    why_vram_stays: Callable[[], str | None]
    suspend: Callable[[str], None]


def _senses(context: Context, run: RunRecord, segment: SegmentRecord, around: Surroundings) -> _Senses:
    wanted, suspender = around.wanted, around.suspender
    why_not = functools.partial(
        suspender.why_not,
        run,
        segment,
        newcomer=wanted is not None and not around.out_of_hours,
        swaps=wanted is not None and wanted.swaps,
    )
    return _Senses(
        functools.partial(context.executor.pids, run.id, run.segment),
        functools.partial(around.gpu_was_busy, segment.gpu_uuids),
        why_not,
        functools.partial(suspender.candidates.why_vram_stays, run, segment),
        functools.partial(suspender.begin, run, segment),
    )
