"""Reads what a segment reports, from its log and its events file, on from the stored offsets."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.records import EVENT, LOG, CheckpointRecord, MetricRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.writes.progress import SegmentReport
from backprop.worker.checkpoints import validation
from backprop.worker.checkpoints.roots import is_inside, linked_folders, roots_for
from backprop.worker.checkpoints.seen.attribution import How
from backprop.worker.checkpoints.seen.baseline import Beginning, beginning_of
from backprop.worker.environment.presence import missing, noted_mounts, unmounted
from backprop.worker.progress.metric_rules import usable_rules
from backprop.worker.progress.numbers import PlainNumbers, PlainReader
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments import events
from backprop.worker.segments.plain_output import PlainOutput
from backprop.worker.segments.tail import MAX_READ_BYTES, Tail

QUIET_STORE_S: Final = 10.0
"""Offsets that moved past ordinary output alone are stored this seldom: reading it again would change nothing."""
PLAIN_STORE_S: Final = 5.0
"""Numbers of plain output alone are stored this seldom, as often as a metric is kept."""
KEPT_LOOKS: Final = 64
CHECKPOINTS_PER_READ: Final = 8
"""Of a script that announces faster than it is read, the last few checkpoints are taken: a resume needs no more."""


class _Batch(msgspec.Struct):
    steps: StepTrace
    step: int | None = None
    loss: float | None = None
    announced: dict[str, events.CheckpointEvent] = {}
    saving_s: float = 0.0
    bad: int = 0
    nonfinite: bool = False
    news: bool = False
    values: dict[str, tuple[int | None, float]] = {}
    """The last value of each name, with the step it was reported at."""
    read: dict[str, tuple[int | None, float]] = {}
    """The same, of plain output."""
    step_source: str = EVENT
    loss_source: str = EVENT

    def take(self, line: bytes) -> None:
        match events.parse(line):
            case events.CheckpointEvent() as event:
                self.announced.pop(event.path, None)
                self.announced[event.path] = event
                self.saving_s += event.seconds
                self.step = event.step if event.step is not None else self.step
                self.news = True
            case events.ProgressEvent() as event:
                self.step = event.step if event.step is not None else self.step
                if event.step is not None:
                    self.steps.take(event.step)
                self.loss = event.loss if event.loss is not None else self.loss
                self.measure(event.metrics if event.loss is None else event.metrics | {"loss": event.loss})
                self.nonfinite = self.nonfinite or event.nonfinite
                self.news = True
            case events.BadEvent():
                self.bad += 1
                self.news = True
            case None:
                pass

    def take_plain(self, numbers: PlainNumbers, steps: StepTrace | None, with_values: bool) -> None:
        """Add what plain output says. `steps`: None where steps are announced. `with_values`: neither is the loss, nor
        are metrics."""
        if steps is not None and numbers.stepped and steps.last is not None:
            self.step, self.step_source = steps.last, LOG
            self.news = True
        if not with_values:
            return
        if numbers.loss is not None:
            self.loss, self.loss_source = numbers.loss, LOG
        self.read = numbers.values
        self.news = self.news or bool(numbers.values)

    def measure(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name in self.values or len(self.values) < events.MAX_METRICS:
                self.values[name] = (self.step, value)


class LogReader:
    """Follows one segment. `read` is idempotent across workers: the store takes each span of bytes once.

    `left_out`: files that could not be read, with why. `announces`: it has announced a save since this reader began.

    What is announced beats what the plain output says: of a run that has ever announced a step no other one counts, and
    the same holds of its loss and metrics.
    """

    def __init__(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        folder: Path,
        places: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """`places`: returns where its processes are at work, and which folders its environment names."""
        self._places = places
        self._spec = run.spec
        self._folder, self._run_folder = folder, folder.parent
        self._run_id, self._number = run.id, segment.number
        self._cwd = Path(run.spec.cwd)
        self._started_s = segment.started_at_s
        self._first_output_s = segment.first_output_s
        self._given = segment
        self._first_step_s = segment.first_step_s
        self._announced = StepTrace(first=segment.first_step if segment.step_unit is None else None)
        self._steps_announced = run.last_step is not None and run.step_source != LOG
        self._values_announced = run.last_loss is not None and run.loss_source != LOG
        self.announces = False
        self.left_out: list[str] = []
        self._log = Tail(folder / "log", segment.log_offset, events.may_hold_any)
        self._events = Tail(folder / "events.jsonl", segment.events_offset)
        reader = PlainReader(usable_rules(self._spec.metric_regex))
        self._plain = PlainOutput(self._log, reader, segment.log_offset)
        self._pending = PlainNumbers()
        self._looks: deque[tuple[float, int]] = deque(maxlen=KEPT_LOOKS)
        self._stored = (segment.log_offset, segment.events_offset)
        self._stored_at_s = time.monotonic()

    def read(
        self,
        final: bool = False,
        spotted: Sequence[CheckpointRecord] = (),
        max_bytes: int = MAX_READ_BYTES,
        leave: bool = False,
    ) -> SegmentReport | None:
        """Return what was reported since the last stored read; None when there is nothing worth a transaction.

        `final`: nothing can write any more: read to the end, and take a last line without its newline. `spotted`:
        checkpoints found on disk meanwhile, to be stored with the rest. `max_bytes`: to be read of each file, unless
        `final`. `leave`: go on without a file that cannot be read. Raises OSError when a file exists and cannot be
        read.
        """
        batch = _Batch(self._announced)
        began_s = time.time()
        for tail in (self._events, self._log):
            try:
                self._read_file(tail, batch, final, max_bytes)
                if tail is self._log:
                    self._pending.add(self._plain.look(final))
            except OSError as error:
                if not leave or error.errno in validation.OUT_OF_RESOURCES:
                    raise
                self.left_out.append(f"{tail.path} ({error.strerror})")
        self.announces = self.announces or bool(batch.announced)
        self._steps_announced = self._steps_announced or batch.step is not None
        self._values_announced = self._values_announced or bool(batch.values)
        first_s = self._first_sign()
        stored_s = time.monotonic() - self._stored_at_s
        if final or batch.news or spotted or first_s is not None or stored_s >= PLAIN_STORE_S:
            trace = None if self._steps_announced else self._plain.trace
            batch.take_plain(self._pending, trace, not self._values_announced)
        moved = (self._log.offset, self._events.offset) != self._stored
        quiet = not batch.news and first_s is None
        waits = quiet and not final and stored_s < QUIET_STORE_S
        spotted = [self._with_seen_step(record) for record in spotted]
        steps = self.steps
        first_step_s = self._first_step(steps)
        if steps.unit is not None and steps.last is not None:
            # What was read had been printed by then.
            self._looks.append((began_s, steps.last))
        if not spotted and not batch.news and (not moved or waits):
            return None
        return SegmentReport(
            log_from=self._stored[0],
            log_to=self._log.offset,
            events_from=self._stored[1],
            events_to=self._events.offset,
            last_step=batch.step,
            last_loss=batch.loss,
            checkpoints=self._validated(list(batch.announced.values())[-CHECKPOINTS_PER_READ:]),
            saving_s=batch.saving_s,
            bad_events=batch.bad,
            nonfinite=batch.nonfinite,
            first_output_s=first_s,
            first_step=steps.first,
            first_step_s=first_step_s,
            step_source=batch.step_source,
            loss_source=batch.loss_source,
            step_unit=steps.unit,
            step_total=steps.total,
            step_fell=None if steps.unit is None else steps.fell,
            spotted=spotted,
            metrics=self._metrics(batch),
        )

    @property
    def steps(self) -> StepTrace:
        """The steps it has reported since this reader began, and the first of all: announced, else of its output."""
        trace = None if self._steps_announced else self._plain.trace
        if trace is None:
            return self._announced
        if trace.unit != self._given.step_unit:
            return trace
        first = self._given.first_step if self._given.first_step is not None else trace.first
        return msgspec.structs.replace(trace, first=first, fell=trace.fell or bool(self._given.step_fell))

    def unread_bytes(self) -> int:
        """Return how much of both files has not been read. Raises OSError when one exists and cannot be read."""
        return self._log.unread_bytes() + self._events.unread_bytes()

    def stands_at(self, segment: SegmentRecord) -> bool:
        """Return whether the row stands where this reader has stored up to. Where it does not, what was read is not in
        it."""
        return self._stored == (segment.log_offset, segment.events_offset)

    def mark_stored(self, report: SegmentReport) -> None:
        """Note that `report` is in the database."""
        self._stored = (report.log_to, report.events_to)
        self._stored_at_s = time.monotonic()
        self._pending = PlainNumbers()
        self._first_output_s = self._first_output_s or report.first_output_s
        self._first_step_s = self._first_step_s or report.first_step_s

    def close(self) -> None:
        self._log.close()
        self._events.close()

    @cached_property
    def _roots(self) -> tuple[Path, ...]:
        """Where it may save. Looked for once it announces that it has: many runs never do."""
        extra = [Path(root) for root in self._spec.checkpoint_roots]
        given = Path(self._spec.resume_from) if self._spec.resume_from else None
        return roots_for(self._cwd, self._spec.argv, given, extra)

    def _read_file(self, tail: Tail, batch: _Batch, final: bool, max_bytes: int) -> None:
        left = math.inf if final else max_bytes
        while left > 0:
            for line in tail.read(int(min(left, MAX_READ_BYTES))):
                batch.take(line)
            if tail.at_end:
                if final:
                    batch.take(tail.rest())
                return
            left -= MAX_READ_BYTES

    def _with_seen_step(self, record: CheckpointRecord) -> CheckpointRecord:
        """Note how far its output had come before a checkpoint was written."""
        before = [step for at_s, step in self._looks if at_s < record.mtime_ns / 1e9]
        return msgspec.structs.replace(record, seen_step=before[-1]) if before else record

    def _first_sign(self) -> float | None:
        """Seconds from the start to the first complete line, once."""
        if self._first_output_s is not None or self._log.offset + self._events.offset == 0:
            return None
        return max(time.time() - self._started_s, 0.0)

    def _first_step(self, steps: StepTrace) -> float | None:
        """Seconds from the start to the first step, once: None where an earlier reader saw that one."""
        if steps.first is None or self._first_step_s is not None or self._given.first_step is not None:
            return None
        return max(time.time() - self._started_s, 0.0)

    def _metrics(self, batch: _Batch) -> list[MetricRecord]:
        """What is read long after it was written belongs where it was written."""
        written_s = (tail.written_s() for tail in (self._log, self._events))
        at_s = min(time.time(), max((at_s for at_s in written_s if at_s is not None), default=math.inf))
        return [
            MetricRecord(self._run_id, self._number, at_s, step, name, value)
            for name, (step, value) in batch.values.items()
        ] + [
            MetricRecord(
                self._run_id, self._number, at_s, step if step is not None else batch.step, name, value, LOG
            )
            for name, (step, value) in batch.read.items()
        ]

    def _validated(self, announced: Sequence[events.CheckpointEvent]) -> tuple[CheckpointRecord, ...]:
        if not announced:
            return ()
        began, now_s = beginning_of(self._folder, self._started_s), time.time()
        *older, newest = announced
        there = [event for event in older if not self._has_been_removed(event.path)]
        return tuple(self._with_seen_step(self._record(event, began, now_s)) for event in (*there, newest))

    def _has_been_removed(self, path: str) -> bool:
        """Return whether the script has removed again what it announced, as those do that keep the newest few."""
        whole = self._cwd / path
        return not os.path.lexists(whole) and os.path.isdir(whole.parent)  # noqa: PTH112 - no fault of a name counts

    def _unmeasured(self, path: str, now_s: float) -> validation.CheckpointFile | None:
        """Return what was announced and is out of reach, because the run's directory or disk is away; it is checked
        before it is used."""
        resolved = os.path.realpath(self._cwd / path)
        try:
            resolved.encode()
        except ValueError:
            return None
        mounts = noted_mounts(self._run_folder)
        roots = [Path(self._spec.cwd), *map(Path, self._spec.checkpoint_roots)]
        inside = [root for root in roots if is_inside(Path(resolved), root)]
        away = any(missing("its directory", str(root)) for root in inside)
        if not away and unmounted(resolved, mounts) is None:
            return None
        if not any(is_inside(Path(resolved), root) for root in (*roots, *self._roots)):
            return None
        return validation.CheckpointFile(Path(resolved), 0, int(now_s * 1e9), is_dir=False)

    def _where_it_works(self, path: str, began: Beginning) -> validation.CheckpointFile | None:
        """Look for an announced file in the directories that its processes are in, and behind links of its user's."""
        places = [Path(place) for place in self._places()]
        given = Path(self._spec.resume_from) if self._spec.resume_from else None
        more = [*map(Path, self._spec.checkpoint_roots), *places, *linked_folders(self._cwd)]
        roots = roots_for(self._cwd, self._spec.argv, given, more)
        for cwd in (self._cwd, *places):
            known = validation.validate_announced(path, cwd, roots, began)
            if isinstance(known, validation.CheckpointFile):
                return known
        return None

    def _record(self, event: events.CheckpointEvent, began: Beginning, now_s: float) -> CheckpointRecord:
        known = validation.validate_announced(event.path, self._cwd, self._roots, began)
        if isinstance(known, validation.Rejected):
            known = self._where_it_works(event.path, began) or known
        refused = known.why if isinstance(known, validation.Rejected) else None
        good = known if isinstance(known, validation.CheckpointFile) else None
        if good is None and (away := self._unmeasured(event.path, now_s)) is not None:
            good, refused = away, None
        return CheckpointRecord(
            run_id=self._run_id,
            segment=self._number,
            path=str(good.path) if good else event.path,
            step=event.step,
            size_bytes=good.size_bytes if good else 0,
            mtime_ns=good.mtime_ns if good else 0,
            is_dir=good.is_dir if good else False,
            saved_at_s=now_s,
            refused=refused,
            attribution=How.SAID if good else None,
        )
