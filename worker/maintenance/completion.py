"""Completes a sound database from the folders of runs and the files of batches, which may know more than it does.

Neither holds what a backup adds: names of old workers, samples, reasons.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from backprop.scheduler.home import batch_file, batch_outcomes, run_folder
from backprop.scheduler.home.file_reading import is_there
from backprop.scheduler.home.layout import Home
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import CheckpointRecord
from backprop.scheduler.store import rebuild, replay
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.rebuild import FolderSegment, Suspended
from backprop.scheduler.store.writes import progress, user_requests
from backprop.worker.checkpoints.seen.noted import noted
from backprop.worker.executor import segment_files, suspend_files
from backprop.worker.executor.vram import move_files
from backprop.worker.maintenance import log_archive
from backprop.worker.segments.log_reader import LogReader
from backprop.worker.user_files import within

Say = Callable[[str], None]
T = TypeVar("T")

READ_TRIES: Final = 5
READ_AGAIN_S: Final = 0.2
ANSWER_S: Final = 60.0
"""How long the folders that a run saves to may take to answer; a log of gigabytes takes seconds."""


def complete(home: Home, database: Database, say: Say = lambda _: None) -> list[str]:
    """Bring the database up to what the runs' folders say; return the ids of runs that were behind or missing.

    One that cannot be read keeps no other from it. If it is queued, it is held: it may have ended long ago.
    """
    ids = [folder.name for folder in sorted(home.runs.iterdir())]
    rested = replay.at_rest(replay.unknown_requests(database))
    done = _each(ids, lambda run_id: put_back(home, database, run_id, rested.get(run_id)))
    for run_id, error in done.unread.items():
        why = f"its folder cannot be read: {error.filename} ({error.strerror})"
        say(f"run {run_id} could not be put back: {why}; the next start of a worker looks again")
        user_requests.hold(database, [run_id], f"held: {why}")
    return [run_id for run_id, behind in done.results.items() if behind]


def ask_again(home: Home, database: Database) -> int:
    """Ask again what users have asked and the database does not know; return how many requests. Raises OSError."""
    return replay.replay(
        database,
        lambda run_id: run_folder.read_spec(home.run_folder(run_id)),
        lambda run: batch_file.holds(home, run),
    )


def complete_batches(home: Home, database: Database, say: Say = lambda _: None) -> dict[str, int]:
    """Bring the database up to what batch files say of runs that were queued together and have no folder yet.

    Returns how many were behind or missing, by batch. Batch files that are no longer needed are deleted.
    """
    done = _each(batch_file.names(home), lambda name: _complete_batch(home, database, name))
    for name, error in done.unread.items():
        say(f"runs queued together as {name} could not be put back: {error.filename} ({error.strerror})")
    return {name: count for name, count in done.results.items() if count}


def _complete_batch(home: Home, database: Database, name: str) -> int:
    """Return how many members were behind or missing. Raises OSError."""
    batch = batch_file.read(home, name)
    if batch is None:
        return 0
    put = rebuild.put_back_batch(database, batch, lambda: batch_outcomes.removed(home, name))
    if not batch.members:
        batch_file.delete_unneeded(home, name)
    return len(put)


class _Looks(msgspec.Struct, Generic[T]):
    """What came of looking at each of several things, by name. `unread`: those that could not be read."""

    results: dict[str, T] = {}
    unread: dict[str, OSError] = {}


def _each(names: Sequence[str], look: Callable[[str], T]) -> _Looks[T]:
    """Look at each; what cannot be read is tried again for a second, after the others."""
    done, left = _Looks[T](), names
    for attempt in range(READ_TRIES):
        if attempt and left:
            time.sleep(READ_AGAIN_S)
        done.unread = {}
        for name in left:
            try:
                done.results[name] = look(name)
            except OSError as error:
                done.unread[name] = error
        left = list(done.unread)
    return done


def put_back(home: Home, database: Database, run_id: str, rested_after: int | None = None) -> bool:
    """Bring one run up to what its folder says; False when the database knew as much, or the folder is damaged.

    `rested_after`: see `rebuild.put_back`. Raises OSError when the folder cannot be read."""
    folder = home.run_folder(run_id)
    spec_file = run_folder.read_spec(folder)
    if spec_file is None or spec_file.id != run_id:
        return False
    segments = [_segment(folder, number) for number in run_folder.segment_numbers(folder)]
    outcome = run_folder.read_outcome(folder)

    def read_logs() -> None:
        _read_logs_again(home, database, run_id, segments)

    def still_there() -> bool:
        return is_there(folder / "spec.json")

    now_s = time.time()
    return rebuild.put_back(
        database, spec_file, segments, outcome, now_s, read_logs, still_there, rested_after
    )


def behind(home: Home, database: Database) -> list[str]:
    """Return the ids of the runs that `complete` and `complete_batches` would put back, and write nothing. Raises
    OSError."""
    batches = [batch for name in batch_file.names(home) if (batch := batch_file.read(home, name)) is not None]
    in_batches = [run_id for batch in batches for run_id in rebuild.behind_batch(database, batch)]
    return in_batches + [
        folder.name
        for folder in sorted(home.runs.iterdir())
        if (spec_file := run_folder.read_spec(folder)) is not None
        and spec_file.id == folder.name
        and rebuild.is_behind(
            database, spec_file.id, run_folder.newest_segment(folder), run_folder.read_outcome(folder)
        )
    ]


def _segment(folder: Path, number: int) -> FolderSegment:
    """Return a segment as its folder describes it; what is missing or damaged is left out. Raises OSError."""
    segment_folder = folder / str(number)
    order, end = segment_files.read_order(segment_folder), segment_files.read_exit(segment_folder)
    began = segment_files.read_processes(segment_folder)
    ordered_s = (segment_folder / segment_files.ORDER).stat().st_mtime
    environment = order.environment if order is not None else {}
    gpus = environment.get("CUDA_VISIBLE_DEVICES", "")
    frozen = suspend_files.read(segment_folder)
    return FolderSegment(
        number=number,
        started_at_s=began.started_at_s if began is not None else ordered_s,
        ended_at_s=end.ended_at_s if end is not None else None,
        running_s=end.running_s if end is not None else None,
        exit_code=end.exit_code if end is not None else None,
        checkpoint_used=environment.get("BACKPROP_RESUME_FROM"),
        gpu_uuids=tuple(gpus.split(",")) if gpus else (),
        promised_mib=order.promised_mib if order is not None else 0,
        suspended=Suspended(
            frozen.number, frozen.kept, frozen.thaw_at_s, frozen.at_s, move_files.out_mib(segment_folder)
        )
        if frozen is not None and frozen.suspends
        else None,
    )


def _note_again(home: Home, database: Database, run_id: str, segments: list[FolderSegment]) -> None:
    """Store the checkpoints that segments were seen to save."""
    for number in (segment.number for segment in segments):
        spotted: list[CheckpointRecord] = []
        with contextlib.suppress(OSError):
            spotted = noted(home.segment_folder(run_id, number), run_id, number)
        segment = queries.segment(database, run_id, number) if spotted else None
        if segment is None:
            continue
        report = progress.SegmentReport(
            log_from=segment.log_offset,
            log_to=segment.log_offset,
            events_from=segment.events_offset,
            events_to=segment.events_offset,
            spotted=spotted,
        )
        progress.record(database, run_id, number, report)


def _read_logs_again(home: Home, database: Database, run_id: str, segments: list[FolderSegment]) -> None:
    """Store checkpoints and progress of past segments from their logs; those of the newest follow with its result."""
    _note_again(home, database, run_id, segments)
    run = queries.run_by_id(database, run_id)
    for number in [segment.number for segment in segments] if run is not None else ():
        segment = queries.segment(database, run_id, number)
        if run is None or segment is None or segment.outcome is not SegmentOutcome.RECOVERED:
            continue
        folder = home.segment_folder(run_id, number)
        with contextlib.suppress(OSError):
            log_archive.inflate(folder)
        reader = LogReader(run, segment, folder)
        try:
            report = within(ANSWER_S, partial(reader.read, final=True))
        except TimeoutError:
            continue  # the thread that waits has its files
        except OSError:
            report = None
        if report is not None:
            progress.record(database, run_id, number, report)
        reader.close()
