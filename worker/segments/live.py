"""Remembers one live segment for the worker that owns it: what was read of it, what it was asked, how it saves.

Everything here can be read anew from the database and the segment's folder, but for pauses that only this worker
observed.
"""

import contextlib
import functools
import math
from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec

from backprop.scheduler.governor.box_end import FRESH_S, BoxCause, BoxRule, rule_of
from backprop.scheduler.lifecycle import Intent
from backprop.scheduler.outcome import smoke
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, progress
from backprop.worker.checkpoints.candidate import writer_exit
from backprop.worker.checkpoints.manager import CheckpointManager
from backprop.worker.checkpoints.scanner import CheckpointScanner, ScannedCheckpoint
from backprop.worker.context import Context
from backprop.worker.environment import presence
from backprop.worker.executor import segment_files
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.segments import timebox
from backprop.worker.segments.boxes.known import claims_to_resume
from backprop.worker.segments.boxes.segment_boxes import SegmentBoxes, Surroundings
from backprop.worker.segments.cadence import Cadence, ClockReading
from backprop.worker.segments.hang.guard import GpuIdle, HangGuard
from backprop.worker.segments.log_reader import LogReader
from backprop.worker.segments.patience import Patience
from backprop.worker.segments.supervisor_watchdog import SupervisorWatchdog
from backprop.worker.user_files import NOT_YET, place_of

READ_EVERY_S: Final = 1.0
"""At most one transaction per second for a segment's events: a writer without pauses starves the others."""
LIVE_BYTES: Final = 64 * 1024 * 1024
"""Read at once of a segment that lives: one that prints faster than it is read would be heard hours late."""
FINAL_BYTES: Final = 256 * 1024 * 1024
UNREADABLE_S: Final = 30.0
"""After this long a file that cannot be read is left out: a run that never ends would hold its GPU, and its worker."""
SUPERVISE_AGAIN_S: Final = 5.0
SMOKE_SHARE: Final = 0.8
"""Of a box is the most that a run is given to get to its first step."""


SegmentKey = tuple[str, int]
"""Run id and number of the segment."""


class ReadResult(Enum):
    NOTHING = 1
    """Nothing that was worth a transaction."""
    STORED = 2
    MORE = 4
    """It has ended and left more output than is read at once."""
    WAITING = 5
    """The user's files have not answered. Nothing was stored; the next call may fetch the answer."""
    OVERTAKEN = 3
    """Another worker has stored since the row was read. Nothing was stored; the next call begins where the row stands
    then."""


class Saves(msgspec.Struct, frozen=True):
    """What a live segment has saved. `newest`: its newest whole checkpoint that is known to be its own, None where
    there is none: its `path`, how that is known (`attribution`), and when it was written (`timebox.landed_s`).
    `is_writing`: it is saving just now, or may be."""

    newest: CheckpointRecord | None
    is_writing: bool


class _Heard(msgspec.Struct, frozen=True):
    """What one look at a segment's files gave. `final`: it was made for the segment's end. `more`: there is more output
    than it read."""

    final: bool
    more: bool
    scanned: Sequence[ScannedCheckpoint]
    report: progress.SegmentReport | None


class LiveSegment:
    """One live segment. `close()` it once its run has moved on. `patience`: with errors of reading after its end."""

    def __init__(self, context: Context, checkpoints: CheckpointManager, key: SegmentKey) -> None:
        self.key = key
        self.patience = Patience(context.clock)
        self._context = context
        self._checkpoints = checkpoints
        self._cadence: Cadence | None = None
        self._unreadable_since_s: float | None = None
        self._saves_unasked = False
        self._refusals: set[tuple[str, str | None]] = set()
        self._reader: LogReader | None = None
        self._scanner: CheckpointScanner | None = None
        self._look = ("read", *key)
        self._read_s = -math.inf
        self._watchdog = SupervisorWatchdog(context)
        self._boxes = SegmentBoxes(context, *key)
        self._hang = HangGuard(context, *key)
        self._asked = False
        self._supervised_s = -math.inf
        self._looks = self._looks_in_time = 0

    def observe(self, run: RunRecord, segment: SegmentRecord) -> None:
        """Count its running time. Call once per tick while it lives. Raises DatabaseBusy."""
        now = self._now()
        if self._cadence is None:
            database = self._context.database
            earlier = [other for other in queries.segments(database, run.id) if other.number < run.segment]
            saved = queries.checkpoints(database, run.id)
            age_s = None
            with contextlib.suppress(OSError):
                age_s = segment_files.running_s(self._context.executor.folder(*self.key))
            if age_s is None:
                age_s = self._context.clock.since_s(segment.started_at_s)
            self._cadence = Cadence(run, segment, earlier, saved, age_s, now)
        self._cadence.observe(run.state, now)
        if not self._boxes.is_met:
            self._boxes.meet_supervisor(run, self._cadence)

    def check_supervisor(self, run: RunRecord) -> None:
        """Rouse or replace a supervisor that is late. Call once per tick, after `observe`, while there is one."""
        if self._cadence is None:
            return
        if self._boxes.are_decided:
            self._watchdog.check(run, self._boxes.asking_since_s)
        elif self._boxes.is_met or rule_of(run.spec) is not BoxRule.AUTO:
            self._watchdog.check(run, self._cadence.latest_end_s())

    def check_hang(self, run: RunRecord, segment: SegmentRecord, is_moving: bool, gpu_idle: GpuIdle) -> None:
        """Have it end if it hangs. Call once per tick. Raises DatabaseBusy."""
        with contextlib.suppress(OSError):  # what cannot be noted is not done
            self._hang.attend(run, segment.gpu_uuids, is_moving, gpu_idle)

    def supervise(self, run: RunRecord) -> None:
        """Start a new supervisor for a segment that lives on without one, at most every 5 s."""
        now_s = self._context.clock.monotonic_s()
        if now_s - self._supervised_s >= SUPERVISE_AGAIN_S:
            self._supervised_s = now_s
            self._asked = False
            self._context.console.event(
                "adopted", run, f"segment {run.segment} has no supervisor; starting a new one"
            )
            self._context.executor.supervise(*self.key)

    def ask(self, run: RunRecord) -> None:
        """Ask it once to checkpoint and end, for the reason in `run.intent_why`."""
        if not self._asked:
            self._context.executor.ask(*self.key)
            self.say_asked(run)

    def say_asked(self, run: RunRecord) -> None:
        """Print once that it was asked to end, and why."""
        if not self._asked:
            self._asked = True
            self._context.console.event(
                "stopping", run, f"segment {run.segment}: {run.intent_why or 'asked by the user'}"
            )

    def read_events(
        self,
        run: RunRecord,
        segment: SegmentRecord,
        final: bool = False,
        exit: ExitRecord | None = None,  # noqa: A002
    ) -> ReadResult:
        """Store what it reported and saved since the last time. `final`: it has ended, as `exit` says. Raises OSError,
        LostRace, DatabaseBusy."""
        now_s = self._context.clock.monotonic_s()
        if not final and now_s - self._read_s < READ_EVERY_S and not self._is_near(run):
            return ReadResult.NOTHING
        self._read_s = now_s
        if final and self._cadence is not None:
            # It may have been paused since the last tick.
            self._cadence.observe(run.state, ClockReading(self._context.clock.wall_s(), now_s))
        reader = self._reader_at(run, segment)
        scanner = self._scanner_at(run, segment)
        leave = self._unreadable_since_s is not None and now_s - self._unreadable_since_s >= UNREADABLE_S
        look = functools.partial(_look, reader, scanner, exit, final, leave, self._is_near(run))
        try:
            heard = self._context.files.ask(self._look, look, place_of(run.spec, self._context.files))
            if heard is NOT_YET:
                return ReadResult.WAITING
            self._looks += 1
            # One that was begun while the segment lived is not the last one.
            more = heard.more or heard.final is not final
            found = self._checkpoints.overseer.attribute(run, scanner, heard.scanned, heard.report)
            self._checkpoints.scanned(run, scanner, found)
            report = found.report
            if not leave:
                self._unreadable_since_s = None
            elif final and reader.left_out:
                self._context.console.event(
                    "trouble",
                    run,
                    f"continuing without files that cannot be read: {', '.join(reader.left_out)}",
                )
            if report is None:
                return ReadResult.MORE if more else ReadResult.NOTHING
            if not progress.record(self._context.database, run.id, run.segment, report, live=True):
                self._read_anew()
                return ReadResult.OVERTAKEN
        except BaseException as error:
            if isinstance(error, OSError) and self._unreadable_since_s is None:
                self._unreadable_since_s = now_s
            # The reader has read on and nothing is stored: what it read has to be read again.
            self._drop_reader()
            raise
        reader.mark_stored(report)
        self._after_storing(run, report, final)
        return ReadResult.MORE if more else ReadResult.STORED

    def early_end(self, run: RunRecord) -> tuple[Intent, str] | None:
        """Return why it should be asked to end now rather than at its supervisor's timebox; None to let it run."""
        if self._cadence is None or self._reader is None:
            return None
        if run.spec.smoke and self._fails_smoke(run, self._cadence.elapsed_s, self._reader):
            return Intent.LIMIT, smoke.why_late(self._smoke_s(run), run.id)
        folder = functools.partial(self._context.executor.folder, run.id)
        announces = self._announces(run, self._reader)
        if self._boxes.goes_on_from_zero(run, self._cadence, self._reader, folder):
            return None
        return self._cadence.early_end(announces, self._reader.steps, folder, self._box(run))

    def why_not_end(self, run: RunRecord, cause: BoxCause) -> str | None:
        """Return why ending it now would lose work that nobody asked to lose; None where that is safe."""
        elapsed_s = self._cadence.elapsed_s if self._cadence is not None else 0.0
        return self._boxes.why_not_end(run, elapsed_s, cause)

    def why_not_leave(self, run: RunRecord) -> str | None:
        """As `why_not_end`, for a user who wants its place. That every box of it ends it is no word for this end.
        Raises DatabaseBusy."""
        elapsed_s = self._cadence.elapsed_s if self._cadence is not None else 0.0
        if rule_of(run.spec) is BoxRule.AUTO or elapsed_s <= FRESH_S:
            return self.why_not_end(run, BoxCause.ROOM)
        announces = self._reader is not None and self._announces(run, self._reader)
        resumes = claims_to_resume(run.spec, announces) and not run.spec.cannot_resume
        if resumes and self.saves(run).newest is not None:
            return None
        return "it has saved nothing that it is known to resume from"

    def keep_box(self, run: RunRecord, segment: SegmentRecord, around: Surroundings) -> bool:
        """Decide on the box in force, as far as that is up to this worker; return whether another one has begun. Call
        once per tick. Raises OSError, DatabaseBusy."""
        if self._cadence is None or self._reader is None:
            return False

        def saves() -> tuple[CheckpointRecord | None, bool]:
            seen = self.saves(run)
            return seen.newest, seen.is_writing

        return self._boxes.keep(run, segment, self._cadence, self._reader, saves, around)

    def saves(self, run: RunRecord) -> Saves:
        """Return what this segment has saved, as far as its last look has shown. Raises DatabaseBusy."""
        own = (
            record
            for record in queries.checkpoints(self._context.database, run.id)
            if record.segment == run.segment and record.refused is None
        )
        in_sight = self._scanner is not None and self._scanner.is_writing
        return Saves(next(own, None), in_sight or self._checkpoints.overseer.is_writing(run))

    def paused_between_s(self, from_s: float, to_s: float) -> float:
        """Return how much of a span of the wall clock (Unix seconds) it was paused, as far as was observed."""
        return self._cadence.paused_between_s(from_s, to_s) if self._cadence is not None else 0.0

    def _fails_smoke(self, run: RunRecord, elapsed_s: float, reader: LogReader) -> bool:
        """Return whether its time for a first step or checkpoint is over, and none was seen in all that it had said and
        written by then. Raises DatabaseBusy."""
        if run.last_step is not None or run.last_loss is not None or reader.steps.first is not None:
            return False
        if elapsed_s < self._smoke_s(run):
            self._looks_in_time = self._looks
            return False
        # The first look after that may have been begun before.
        if self._looks < self._looks_in_time + 2:
            return False
        return not queries.checkpoints(self._context.database, run.id)

    def _smoke_s(self, run: RunRecord) -> float:
        """Return how long it may take: the end of its first box is no time to find out."""
        return min(run.spec.smoke_s, SMOKE_SHARE * run.spec.timebox_s)

    def _box(self, run: RunRecord) -> timebox.Box:
        length_s = (
            self._cadence.box_s(self._announces(run, self._reader))
            if self._cadence is not None and self._reader is not None
            else timebox.box_s(run)
        )
        return self._boxes.in_force(run, length_s)

    def restart(self) -> None:
        """Begin anew with what the database and the executor know. Its observed times stay."""
        self._read_anew()
        self._watchdog = SupervisorWatchdog(self._context)
        self._hang.close()
        self._asked = False
        self._supervised_s = -math.inf

    def close(self) -> None:
        """Close its files. Nothing is read of it afterwards."""
        self._hang.close()
        self._drop_reader()

    def _now(self) -> ClockReading:
        return ClockReading(self._context.clock.wall_s(), self._context.clock.monotonic_s())

    def _reader_at(self, run: RunRecord, segment: SegmentRecord) -> LogReader:
        """The reader, if it stands where `segment` does; else a new one."""
        if self._reader is not None and not self._reader.stands_at(segment):
            # The row is another one: the database was put together anew under this worker.
            self._drop_reader()
        if self._reader is None:
            places = functools.partial(self._checkpoints.overseer.places, run)
            self._reader = LogReader(run, segment, self._context.executor.folder(*self.key), places)
        return self._reader

    def _scanner_at(self, run: RunRecord, segment: SegmentRecord) -> CheckpointScanner:
        """What finds the saves that it does not announce."""
        if self._scanner is None:
            self._scanner = self._checkpoints.scanner(run, segment)
        return self._scanner

    def _after_storing(self, run: RunRecord, report: progress.SegmentReport, final: bool) -> None:
        console, saved = self._context.console, [*report.checkpoints, *report.spotted]
        if self._cadence is not None:
            self._cadence.note_saves(saved, self._context.clock.wall_s())
        if report.nonfinite and run.spec.stop_on_nan and not final:
            step = f" at step {report.last_step}" if report.last_step is not None else ""
            claims.ask_to_end(self._context.database, run, Intent.NAN, f"its loss is NaN{step}")
        for record in saved:
            said = (record.path, record.refused)
            if record.refused and said not in self._refusals:
                self._refusals.add(said)
                console.event("refused", run, _refusal(record))
            elif not record.refused:
                console.debug("checkpoint", run, f"step {record.step}: {record.path}")
        # Cut right after such a save, it needs a way to be handed it.
        named = run.spec.plan is not None and run.spec.plan.resumes in ("append", "rerun")
        self._saves_unasked |= named and any(each.observed and each.refused is None for each in saved)
        good = [record.path for record in saved if record.refused is None]
        if good:
            self._checkpoints.rotate(run)
            presence.note_mounts(self._context.home.run_folder(run.id), good)

    def _is_near(self, run: RunRecord) -> bool:
        """Whether reading of a save a second late would matter."""
        if self._cadence is None or self._reader is None:
            return False
        return self._cadence.is_near(self._announces(run, self._reader), self._box(run))

    def _announces(self, run: RunRecord, reader: LogReader) -> bool:
        """Whether it announces its saves. A script whose checkpoints are looked for may do so all the same."""
        plan = run.spec.plan
        if reader.announces or plan is None:
            return True
        return plan.speaks != "" and not plan.globs and not self._saves_unasked

    def _read_anew(self) -> None:
        """Read on from where the row stands, at the next call."""
        self._drop_reader()
        self._read_s = -math.inf

    def _drop_reader(self) -> None:
        used = [each for each in (self._reader, self._scanner) if each is not None]
        self._reader = self._scanner = None

        def close() -> None:
            for each in used:
                each.close()

        self._context.files.forget(self._look, close)


def _look(
    reader: LogReader,
    scanner: CheckpointScanner,
    exit: ExitRecord | None,  # noqa: A002
    final: bool,
    leave: bool,
    hurry: bool,
) -> _Heard:
    """Look at a segment's files, in a thread. Raises OSError."""
    more = final and not leave and reader.unread_bytes() > FINAL_BYTES
    scanned: Sequence[ScannedCheckpoint] = ()
    if not more:
        scanned = scanner.final_scan(writer_exit(exit)) if final else scanner.scan(hurry=hurry)
    spotted = [each.record for each in scanned]
    report = reader.read(final and not more, spotted, FINAL_BYTES if more else LIVE_BYTES, leave)
    return _Heard(final, more, scanned, report)


def _refusal(record: CheckpointRecord) -> str:
    """Say which checkpoint is refused and why; most reasons begin with its path."""
    why = record.refused or ""
    return f"checkpoint {why if why.startswith(record.path) else f'{record.path}: {why}'}"
