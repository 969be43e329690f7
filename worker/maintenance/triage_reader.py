"""Tells what ended the last segment of a run, where that failed, from the segment's files, when somebody asks.

A bounded part of its log is read: the last 128 KiB, and of a compressed one only where that end comes within 64 MiB.
What cannot be read tells nothing; the segment's reason, which has the line that its worker took, stands in for it.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.faults.kinds import CANNOT_PASS, MAY_PASS, Fault
from backprop.scheduler.faults.triage import SegmentEnd, Triage
from backprop.scheduler.home.layout import Home
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.executor import segment_files
from backprop.worker.maintenance.log_archive import log_of, open_log

LAST_BYTES: Final = 128 * 1024
UNPACKED_BYTES: Final = 64 << 20
PIECE_BYTES: Final = 1 << 20
LOOKED_AT: Final = 3
"""The last segments of a chain that matter: a live one, the one that failed, and the one before that."""
TOLD: Final = (
    SegmentOutcome.FAILED,
    SegmentOutcome.NOT_STARTED,
    SegmentOutcome.GPU_MEMORY,
    SegmentOutcome.NAN,
    SegmentOutcome.STARTED_OVER,
)


class RunTriage(msgspec.Struct, frozen=True):
    """The triage of a run's last segment. `segment`: its number. `would_fail_again`: True where that is shown; None:
    nobody knows. `why_again`: what shows it, in words."""

    found: Triage
    segment: int
    would_fail_again: bool | None = None
    why_again: str | None = None


def triage_of_run(home: Home, database: Database, run: RunRecord) -> RunTriage | None:
    """Return what ended the run's last segment that has ended; None where that did not fail. Raises DatabaseBusy."""
    numbers = range(max(run.segment - LOOKED_AT + 1, 1), run.segment + 1)
    segments = [queries.segment(database, run.id, number) for number in numbers]
    ended = [one for one in segments if one is not None and one.outcome is not None]
    if not ended or ended[-1].outcome not in TOLD:
        return None
    last = ended[-1]
    found = _of_segment(home, run, last)
    if found.kind in CANNOT_PASS:
        return RunTriage(found, last.number, True, f"{found.kind} does not pass by itself")
    if (
        found.place is not None
        and found.kind not in MAY_PASS
        and len(ended) > 1
        and ended[-2].outcome in TOLD
    ):
        before = _of_segment(home, run, ended[-2])
        if (before.kind, before.place) == (found.kind, found.place):
            twice = f"segments {ended[-2].number} and {last.number} failed alike, at one place"
            return RunTriage(found, last.number, True, twice)
    return RunTriage(found, last.number)


def _of_segment(home: Home, run: RunRecord, segment: SegmentRecord) -> Triage:
    from backprop.scheduler.faults.deciding import triage  # its patterns take a while to compile

    folder = home.segment_folder(run.id, segment.number)
    try:
        record = segment_files.read_exit(folder)
    except OSError:
        record = None
    known = segment.outcome.fault if segment.outcome is not None else None
    if known is None and record is not None and record.disk_full:
        known = Fault.DISK_FULL
    end = SegmentEnd(
        exit_code=segment.exit_code,
        signal_name=segment.signal_name,
        oom_kills=record.oom_kills if record is not None else (None, None),
        known=known,
        said=segment.reason,
        cwd=run.spec.cwd,
        log=log_end(folder),
    )
    return triage(end)


def log_end(folder: Path) -> bytes:
    """Return the end of a segment's log; nothing where it cannot be read, or lies too deep in an archive."""
    try:
        with open_log(folder) as file:
            if log_of(folder).suffix != ".gz":
                file.seek(max(os.fstat(file.fileno()).st_size - LAST_BYTES, 0))
                return file.read(LAST_BYTES)
            end = b""
            for _ in range(UNPACKED_BYTES // PIECE_BYTES):
                piece = file.read(PIECE_BYTES)
                if not piece:
                    return end
                end = (end + piece)[-LAST_BYTES:]
            return b""
    except (OSError, EOFError, ValueError):
        return b""
