"""The drill itself: two segments of a script in a home of its own, by the same worker and supervisor as any other run.

The home lies in the user's, on the same local disk, and is removed whatever happens. What the script writes, it writes
where it always does.
"""

import contextlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from backprop.cli.drill.verdict import REPORTED, Part
from backprop.cli.submit.enqueue import enqueue
from backprop.cli.submit.submission import Submission
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from backprop.worker.checkpoints.resume import choose
from backprop.worker.executor import locks, segment_files
from backprop.worker.executor.base import Life
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.executor.segment_files import ExitRecord, StopFile
from backprop.worker.segments import events, timebox
from backprop.worker.segments.resume_check import StepTrace
from backprop.worker.segments.tail import Tail

LOOK_EVERY_S: Final = 0.2
RAM_EVERY_S: Final = 1.0
END_PATIENCE_S: Final = 30.0
YOUNG_S: Final = 60.0
MORE_FOR_A_FIRST: Final = 200.0
"""Percent. A script that is watched from outside and cannot be asked may save seldom."""
_COUNTS: Final = re.compile(
    r"\b(global_step|steps?|iter(?:ation)?s?|epoch)\b[\"']?\s*[:=#]?\s*\[?(\d+)", re.IGNORECASE
)
_BAR: Final = re.compile(r"\b(\d+)/\d+ \[")


@dataclass
class RehearsedSegment:
    """What was seen of one segment while it ran. Times in seconds since its start."""

    first_line_s: float | None = None
    first_step_s: float | None = None
    steps: dict[str, StepTrace] = field(default_factory=dict[str, StepTrace])
    ram_peak_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A finished drill. `broken`: checkpoints newer than the one to resume from that are not whole. `tail`: the last
    lines of its output. `parts`: see `drill.Part`."""

    run: RunRecord
    parts: tuple[Part, ...]
    checkpoint: CheckpointRecord | None
    broken: tuple[str, ...]
    ram_peak_mib: int | None
    vram_peak_mib: int | None
    interrupted: bool
    tail: tuple[str, ...]


def rehearse(user_home: Home, wanted: Submission, seconds: float, say: Callable[[str], None]) -> Rehearsal:
    """Run, stop and resume. `seconds`: the box of each of the two segments. `say`: told what happens, line by line.

    Raises HomeRefused, DatabaseRefused, DatabaseBusy, BadCommand.
    """
    with _own_home(user_home) as home:
        database = open_database(home)
        try:
            run_id = enqueue(home, database, _two_segments(wanted, seconds), time.time())
            return _play(home, database, run_id, wanted, say)
        finally:
            database.close()


def _two_segments(wanted: Submission, seconds: float) -> Submission:
    plan = wanted.spec.plan
    seldom = plan is not None and bool(plan.globs) and not plan.saves_on_signal
    spec = msgspec.structs.replace(
        wanted.spec,
        timebox_s=seconds,
        overrun_pct=MORE_FOR_A_FIRST if seldom else 0.0,
        auto_resume=True,
        max_segments=2,
        max_total_s=None,
        retries=0,
    )
    return msgspec.structs.replace(wanted, spec=spec, run_id=None)


def _play(
    home: Home, database: Database, run_id: str, wanted: Submission, say: Callable[[str], None]
) -> Rehearsal:
    from backprop.worker.daemon import work

    executor, watcher = LocalExecutor(home), _Watcher(home, run_id)
    teller = _Teller(database, run_id, wanted.spec.stop_signal, say)
    watcher.start()
    try:
        only = frozenset({run_id})
        interrupted = work(
            home, database, wanted.settings, drain=True, only=only, until=teller.over, quiet=True
        )
    finally:
        _end(executor, database, run_id)
        watcher.finish()
    run = queries.run_by_id(database, run_id)
    assert run is not None
    saved, segments = queries.checkpoints(database, run_id), queries.segments(database, run_id)
    resume = choose(run, saved)
    newest = next((one for one in saved if one.path == resume.checkpoint and one.refused is None), None)
    peaks = [one.ram_peak_mib for one in watcher.seen.values() if one.ram_peak_mib is not None]
    vram = [one.peak_mib for one in segments if one.peak_mib is not None]
    return Rehearsal(
        run=run,
        parts=tuple(
            _part(home, one, saved, watcher.seen.get(one.number, RehearsedSegment())) for one in segments
        ),
        checkpoint=newest,
        broken=resume.passed_over or ((resume.problem,) if resume.problem else ()),
        ram_peak_mib=max(peaks, default=None),
        vram_peak_mib=max(vram, default=None),
        interrupted=interrupted,
        tail=_last_lines(home.segment_folder(run_id, run.segment) / "log"),
    )


def _part(
    home: Home, segment: SegmentRecord, saved: Sequence[CheckpointRecord], seen: RehearsedSegment
) -> Part:
    folder = home.segment_folder(segment.run_id, segment.number)
    mine = [one for one in reversed(saved) if one.segment == segment.number]
    good = [one for one in mine if one.refused is None]
    before = (one for one in saved if one.path == segment.checkpoint_used and one.segment < segment.number)
    used = next(before, None)
    exit_record = segment_files.read_exit(folder) or ExitRecord()
    stop = segment_files.read_stop(folder)
    times_s = [timebox.landed_s(one) - segment.started_at_s for one in good]
    return Part(
        outcome=segment.outcome or "alive",
        reason=segment.reason or "",
        ready_s=seen.first_step_s if seen.first_step_s is not None else seen.first_line_s,
        save_s=_save_s(exit_record, stop),
        killed=exit_record.escalated != "none",
        cut_cost_s=segment.cut_cost_s,
        used=segment.checkpoint_used,
        used_step=used.step if used is not None else None,
        saved=len(good),
        refused=tuple(f"{one.path}: {one.refused}" for one in mine if one.refused is not None),
        saved_steps=tuple(one.step for one in good if one.step is not None),
        gaps_s=timebox.gaps_of(times_s[:-1] if segment.cut_cost_s == 0 else times_s),
        steps=seen.steps,
    )


def _save_s(exit_record: ExitRecord, stop: StopFile | None) -> float | None:
    """Return how long the segment took to end once it was asked; None when it was not, or when that is unknown."""
    if exit_record.asked is None or exit_record.ended_at_s is None or stop is None:
        return None
    return max(exit_record.ended_at_s - stop.at_s, 0.0)


class _Teller:
    """Says what happens, each thing once, and knows when it is over."""

    def __init__(self, database: Database, run_id: str, stop_signal: str, say: Callable[[str], None]) -> None:
        self._database, self._run_id, self._signal, self._say = database, run_id, stop_signal, say
        self._said = ""

    def over(self) -> bool:
        run = queries.run_by_id(self._database, self._run_id)
        if run is None:
            return True
        if run.state is State.QUEUED and run.segment == 0:
            self._tell(run.reason if run.reason != "queued" else "")
        return run.state in FINAL or run.state is State.HELD

    def _tell(self, text: str) -> None:
        if text and text != self._said:
            self._said = text
            self._say(text)


class _Watcher(threading.Thread):
    """Reads along what the segments print, and how much RAM they take. Knows files and processes, no database."""

    def __init__(self, home: Home, run_id: str) -> None:
        super().__init__(name="drill", daemon=True)
        self.seen: dict[int, RehearsedSegment] = {}
        self._home, self._run_id = home, run_id
        self._place = LocalExecutor(home)
        self._tails: list[Tail] = []
        self._number = 0
        self._over = threading.Event()
        self._ram_s = 0.0

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            with contextlib.suppress(OSError):
                self._look()

    def finish(self) -> None:
        self._over.set()
        self.join()
        with contextlib.suppress(OSError):
            self._look()
        for tail in self._tails:
            tail.close()

    def _look(self) -> None:
        if self._number:
            self._read()
            self._weigh()
        following = self._home.segment_folder(self._run_id, self._number + 1)
        if (following / segment_files.PROCESSES).exists():
            for tail in self._tails:
                tail.close()
            self._number += 1
            self.seen[self._number] = RehearsedSegment()
            self._tails = [Tail(following / "events.jsonl"), Tail(following / "log")]
            self._look()

    def _read(self) -> None:
        seen = self.seen[self._number]
        folder = self._home.segment_folder(self._run_id, self._number)
        for tail in self._tails:
            at_end = False
            while not at_end:
                for line in tail.read():
                    processes = segment_files.read_processes(folder)
                    now_s = max(time.time() - processes.started_at_s, 0.0) if processes is not None else 0.0
                    seen.first_line_s = now_s if seen.first_line_s is None else seen.first_line_s
                    if _count(line, seen.steps) and seen.first_step_s is None:
                        seen.first_step_s = now_s
                at_end = tail.at_end

    def _weigh(self) -> None:
        if time.monotonic() - self._ram_s < RAM_EVERY_S:
            return
        self._ram_s = time.monotonic()
        mib = sum(_ram_kib(pid) for pid in self._place.pids(self._run_id, self._number)) // 1024
        seen = self.seen[self._number]
        seen.ram_peak_mib = max(mib, seen.ram_peak_mib or 0) or None


def _count(line: bytes, steps: dict[str, StepTrace]) -> bool:
    """Note the steps a line tells; whether it tells any."""
    said = events.parse(line)
    if isinstance(said, events.ProgressEvent) and said.step is not None:
        steps.setdefault(REPORTED, StepTrace()).take(said.step)
        return True
    if said is not None:
        return False
    text = line.decode(errors="replace")
    told = [(found[1].lower(), int(found[2][:18])) for found in _COUNTS.finditer(text)]
    told += [("bar", int(found[1][:18])) for found in _BAR.finditer(text)]
    for word, number in told:
        steps.setdefault(word, StepTrace()).take(number)
    return bool(told)


def _ram_kib(pid: int) -> int:
    """What a process takes, its part of shared pages included (PSS); 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


@contextlib.contextmanager
def _own_home(user_home: Home) -> Generator[Home]:
    """A home for this drill alone; gone with it, as is what a killed drill has left."""
    layout.refuse_remote(user_home.root)
    for old in user_home.root.glob("drill-*"):
        _sweep(old)
    root = Path(tempfile.mkdtemp(prefix="drill-", dir=user_home.root))
    lock = locks.take(root / "drill.lock")
    try:
        yield layout.ensure(Home(root))
    finally:
        shutil.rmtree(root, ignore_errors=True)
        if lock is not None:
            import os

            os.close(lock)


def _sweep(old: Path) -> None:
    """Remove the home of a drill that was killed, once nothing of it lives."""
    with contextlib.suppress(OSError):
        young = time.time() - old.lstat().st_mtime < YOUNG_S
        held = any(locks.held(path) for path in (old / "drill.lock", *old.glob("runs/*/run.lock")))
        if not young and not held and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)


def _end(executor: LocalExecutor, database: Database, run_id: str) -> None:
    """Leave nothing alive, however the worker came to its end."""
    end_s = time.monotonic() + END_PATIENCE_S
    while time.monotonic() < end_s:
        run = queries.run_by_id(database, run_id)
        life = executor.poll(run_id, run.segment)[0] if run is not None and run.segment else Life.ENDED
        if life in (Life.ENDED, Life.LOST):
            return
        if life is Life.UNSUPERVISED:
            executor.supervise(run_id, run.segment if run is not None else 0)
        executor.kill(run_id, run.segment if run is not None else 0)
        time.sleep(LOOK_EVERY_S)
        executor.reap()


def _last_lines(log: Path, count: int = 15) -> tuple[str, ...]:
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, 2) - 8192, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(lines[-count:])
