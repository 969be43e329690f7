"""Reads what a segment reports, from its log and its events file, on from the stored offsets."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from backprop.scheduler.records import CheckpointRecord, MetricRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.writes.progress import SegmentReport
from backprop.worker.checkpoints import validation
from backprop.worker.checkpoints.roots import is_inside, roots_for
from backprop.worker.environment.presence import missing, noted_mounts, unmounted
from backprop.worker.executor import segment_files
from backprop.worker.segments import events
from backprop.worker.segments.resume_check import StepTrace
from backprop.worker.segments.tail import MAX_READ_BYTES, Tail

QUIET_STORE_S: Final = 10.0
"""Offsets that moved past ordinary output alone are stored this seldom: reading it again would change nothing."""
CHECKPOINTS_PER_READ: Final = 8
"""Of a script that announces faster than it is read, the last few checkpoints are taken: a resume needs no more."""


@dataclass
class _Batch:
    steps: StepTrace
    step: int | None = None
    loss: float | None = None
    announced: dict[str, events.CheckpointEvent] = field(default_factory=dict[str, events.CheckpointEvent])
    bad: int = 0
    nonfinite: bool = False
    news: bool = False
    values: dict[str, tuple[int | None, float]] = field(default_factory=dict[str, tuple[int | None, float]])
    """The last value of each name, with the step it was reported at."""

    def take(self, line: bytes) -> None:
        match events.parse(line):
            case events.CheckpointEvent() as event:
                self.announced.pop(event.path, None)
                self.announced[event.path] = event
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

    def measure(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name in self.values or len(self.values) < events.MAX_METRICS:
                self.values[name] = (self.step, value)


class LogReader:
    """Follows one segment. `read` is idempotent across workers: the store takes each span of bytes once.

    `left_out`: files that could not be read, with why. `steps`: those it has reported since this reader began, and
    the first of all. `announces`: it has announced a save since then.
    """

    def __init__(self, run: RunRecord, segment: SegmentRecord, folder: Path) -> None:
        self._spec = run.spec
        self._folder, self._run_folder = folder, folder.parent
        self._run_id, self._number = run.id, segment.number
        self._cwd = Path(run.spec.cwd)
        self._started_s = segment.started_at_s
        self._first_output_s = segment.first_output_s
        self.steps = StepTrace(first=segment.first_step)
        self.announces = False
        self.left_out: list[str] = []
        self._log = Tail(folder / "log", segment.log_offset, events.may_hold_any)
        self._events = Tail(folder / "events.jsonl", segment.events_offset)
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
        batch = _Batch(self.steps)
        for tail in (self._events, self._log):
            try:
                self._read_file(tail, batch, final, max_bytes)
            except OSError as error:
                if not leave or error.errno in validation.OUT_OF_RESOURCES:
                    raise
                self.left_out.append(f"{tail.path} ({error.strerror})")
        self.announces = self.announces or bool(batch.announced)
        first_s = self._first_sign()
        moved = (self._log.offset, self._events.offset) != self._stored
        quiet = not batch.news and first_s is None
        waits = quiet and not final and time.monotonic() - self._stored_at_s < QUIET_STORE_S
        if not spotted and (not moved or waits):
            return None
        return SegmentReport(
            log_from=self._stored[0],
            log_to=self._log.offset,
            events_from=self._stored[1],
            events_to=self._events.offset,
            last_step=batch.step,
            last_loss=batch.loss,
            checkpoints=self._validated(list(batch.announced.values())[-CHECKPOINTS_PER_READ:]),
            bad_events=batch.bad,
            nonfinite=batch.nonfinite,
            first_output_s=first_s,
            first_step=self.steps.first,
            spotted=spotted,
            metrics=self._metrics(batch),
        )

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
        self._first_output_s = self._first_output_s or report.first_output_s

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

    def _first_sign(self) -> float | None:
        """Seconds from the start to the first complete line, once."""
        if self._first_output_s is not None or self._log.offset + self._events.offset == 0:
            return None
        return max(time.time() - self._started_s, 0.0)

    def _metrics(self, batch: _Batch) -> list[MetricRecord]:
        """What is read long after it was written belongs where it was written."""
        written_s = (tail.written_s() for tail in (self._log, self._events))
        at_s = min(time.time(), max((at_s for at_s in written_s if at_s is not None), default=math.inf))
        return [
            MetricRecord(self._run_id, self._number, at_s, step, name, value)
            for name, (step, value) in batch.values.items()
        ]

    def _validated(self, announced: Sequence[events.CheckpointEvent]) -> tuple[CheckpointRecord, ...]:
        now_s = time.time()
        return tuple(self._record(event, now_s) for event in announced)

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

    def _record(self, event: events.CheckpointEvent, now_s: float) -> CheckpointRecord:
        began_s = segment_files.earliest_start_s(self._folder, self._started_s)
        known = validation.validate_announced(event.path, self._cwd, self._roots, began_s, now_s)
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
        )
