"""Runs two segments of a script in a home of its own, by the same worker and supervisor as any other run.

The home is deleted whatever happens. The script writes its own outputs where it always does.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Final

import msgspec

from backprop.cli.drill.conditional_saves import named_best, saves_at_best
from backprop.cli.drill.scratch_home import end_processes, scratch_home
from backprop.cli.drill.verdict import DrillSegment
from backprop.cli.drill.watcher import Observation, SegmentWatcher
from backprop.cli.submit.enqueue import enqueue
from backprop.cli.submit.source_reader import DISK
from backprop.cli.submit.submission import Submission
from backprop.scheduler.home.file_reading import open_regular
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.recipes.own_modules import own_modules
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from backprop.worker.checkpoints.resume import choose
from backprop.worker.executor import segment_files
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.executor.segment_files import ExitRecord, StopFile
from backprop.worker.segments import timebox

MORE_FOR_A_FIRST: Final = 200.0
"""Percent. A script that is watched from outside and cannot be asked to save may save seldom."""
LAST_LINES: Final = 15
EXITED_BY_SIGNAL: Final = 128
"""From here on an exit code tells of a signal, as shells say it."""


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """A finished drill. `checkpoint`: the one to resume from. `broken`: newer checkpoints that are not whole, with why.
    `at_best`: what shows that its saves follow a metric, "" for nothing. `tail`: the last lines of its output."""

    run: RunRecord
    segments: tuple[DrillSegment, ...]
    checkpoint: CheckpointRecord | None
    broken: tuple[str, ...]
    ram_peak_mib: int | None
    vram_peak_mib: int | None
    interrupted: bool
    at_best: str
    tail: tuple[str, ...]


def rehearse(user_home: Home, wanted: Submission, seconds: float, say: Callable[[str], None]) -> Rehearsal:
    """Run, stop and resume. `seconds`: the timebox of each of the two segments. `say`: prints a line while it waits.

    Raises HomeRefused, DatabaseRefused, DatabaseBusy, BadCommand.
    """
    with scratch_home(user_home) as home:
        database = open_database(home)
        try:
            run_id = enqueue(home, database, _two_segments(wanted, seconds), time.time())
            return _run(home, database, run_id, wanted, say)
        finally:
            database.close()


def _two_segments(wanted: Submission, seconds: float) -> Submission:
    plan = wanted.spec.plan
    seldom = plan is not None and (bool(plan.globs) or plan.guessed) and not plan.saves_on_signal
    spec = msgspec.structs.replace(
        wanted.spec,
        timebox_s=seconds,
        overrun_pct=MORE_FOR_A_FIRST if seldom else 0.0,
        auto_resume=True,
        at_timebox="end",
        max_segments=2,
        max_total_s=None,
        retries=0,
    )
    return msgspec.structs.replace(wanted, spec=spec, run_id=None)


def _run(
    home: Home, database: Database, run_id: str, wanted: Submission, say: Callable[[str], None]
) -> Rehearsal:
    from backprop.worker.daemon import work

    watcher, progress = (
        SegmentWatcher(home, run_id, wanted.spec.metric_regex),
        _Progress(database, run_id, say),
    )
    watcher.start()
    try:
        only = frozenset({run_id})
        interrupted = work(
            home, database, wanted.settings, drain=True, only=only, until=progress.is_over, quiet=True
        )
    finally:
        end_processes(LocalExecutor(home), database, run_id)
        watcher.finish()
    run = queries.run_by_id(database, run_id)
    assert run is not None
    saved, records = queries.checkpoints(database, run_id), queries.segments(database, run_id)
    resume = choose(run, saved)
    good = [saving for saving in saved if saving.refused is None]
    observations = watcher.observations
    rams = [observed.ram_peak_mib for observed in observations.values() if observed.ram_peak_mib is not None]
    vrams = [record.peak_mib for record in records if record.peak_mib is not None]
    return Rehearsal(
        run=run,
        segments=tuple(
            _segment(home, record, saved, observations.get(record.number, Observation()))
            for record in records
        ),
        checkpoint=next((saving for saving in good if saving.path == resume.checkpoint), None),
        broken=resume.passed_over or ((resume.problem,) if resume.problem else ()),
        ram_peak_mib=max(rams, default=None),
        vram_peak_mib=max(vrams, default=None),
        interrupted=interrupted,
        at_best=_at_best(wanted, [saving.path for saving in good]),
        tail=_last_lines(home.segment_folder(run_id, run.segment) / "log"),
    )


def _segment(
    home: Home, record: SegmentRecord, saved: Sequence[CheckpointRecord], observed: Observation
) -> DrillSegment:
    folder = home.segment_folder(record.run_id, record.number)
    own = [saving for saving in reversed(saved) if saving.segment == record.number]
    good = [saving for saving in own if saving.refused is None]
    earlier = (
        saving for saving in saved if saving.path == record.checkpoint_used and saving.segment < record.number
    )
    used = next(earlier, None)
    exit_record = segment_files.read_exit(folder) or ExitRecord()
    stop = segment_files.read_stop(folder)
    times_s = [timebox.landed_s(saving) - record.started_at_s for saving in good]
    # The worker's own reading comes first: the night goes by that.
    ready_s = (record.first_step_s, observed.first_step_s, observed.first_line_s)
    return DrillSegment(
        outcome=record.outcome or "alive",
        reason=record.reason or "",
        ready_s=next((each for each in ready_s if each is not None), None),
        save_s=_save_s(exit_record, stop),
        killed=exit_record.escalated != "none",
        cut_cost_s=record.cut_cost_s,
        saved_when_asked=_saved_when_asked(exit_record, stop, good),
        used=record.checkpoint_used,
        used_step=used.step if used is not None else None,
        saved=len(good),
        saved_unasked=sum(stop is None or timebox.landed_s(saving) <= stop.at_s for saving in good),
        refused=tuple(f"{saving.path}: {saving.refused}" for saving in own if saving.refused is not None),
        saved_steps=tuple(saving.step for saving in good if saving.step is not None),
        gaps_s=timebox.gaps_of(times_s[:-1] if record.cut_cost_s == 0 else times_s),
        steps=observed.steps,
        asks_whether_to_stop=segment_files.heeds_stop(folder),
    )


def _at_best(wanted: Submission, saved: Sequence[str]) -> str:
    if named_best(saved):
        return f"all it saved is named so: {PurePath(saved[0]).name}"
    script = wanted.spec.script
    if script is None:
        return ""
    path, cwd = PurePath(script), PurePath(wanted.spec.cwd)
    text = DISK.read(path)
    roots = tuple(dict.fromkeys((path.parent, cwd)))
    return saves_at_best([text, *own_modules(path, text, roots, DISK)])


def _saved_when_asked(
    exit_record: ExitRecord, stop: StopFile | None, good: Sequence[CheckpointRecord]
) -> bool:
    """Return whether it saved because it was asked to. One that the signal has ended may have been at it by chance."""
    code = exit_record.exit_code
    if stop is None or code is None or code >= EXITED_BY_SIGNAL:
        return False
    return any(timebox.landed_s(saving) > stop.at_s for saving in good)


def _save_s(exit_record: ExitRecord, stop: StopFile | None) -> float | None:
    """Return how long the segment took to end once it was asked; None when it was not, or when that is unknown."""
    if exit_record.asked is None or exit_record.ended_at_s is None or stop is None:
        return None
    return max(exit_record.ended_at_s - stop.at_s, 0.0)


class _Progress:
    """Says why the run waits for its first segment, each reason once, and knows when the drill is over."""

    def __init__(self, database: Database, run_id: str, say: Callable[[str], None]) -> None:
        self._database, self._run_id, self._say = database, run_id, say
        self._said = ""

    def is_over(self) -> bool:
        run = queries.run_by_id(self._database, self._run_id)
        if run is None:
            return True
        if run.state is State.QUEUED and run.segment == 0 and run.reason not in ("queued", self._said):
            self._said = run.reason
            self._say(run.reason)
        return run.state in FINAL or run.state is State.HELD


def _last_lines(log: Path) -> tuple[str, ...]:
    try:
        with os.fdopen(open_regular(log), "rb") as file:
            file.seek(max(file.seek(0, 2) - 8192, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(lines[-LAST_LINES:])
