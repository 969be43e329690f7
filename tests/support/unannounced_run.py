"""Makes a run whose script announces nothing, for tests of what is observed from outside."""

import io
import time
import zipfile
from pathlib import Path

import msgspec

from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.spec import Plan
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, progress
from backprop.worker.checkpoints.candidate import WriterExit
from backprop.worker.checkpoints.scanner import CheckpointScanner, ScannedCheckpoint
from backprop.worker.checkpoints.seen import baseline
from backprop.worker.checkpoints.seen.baseline import beginning_of
from backprop.worker.executor import segment_files
from tests.support.store_rows import SPEC, add_run, claimed, get

CLEAN = WriterExit(None, killed=False)


class Watched:
    """A claimed run whose plan names `out/`; the test is the script, a scanner is the worker."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.cwd, self.folder = folder / "cwd", folder / "1"
        self.out = self.cwd / "out"
        self.out.mkdir(parents=True)
        self.folder.mkdir()
        self.home = folder / "home"
        self.pids: frozenset[int] = frozenset()

    def start(self, **plan: object) -> None:
        wanted = {"globs": (f"{self.out}/*",), **plan}
        spec = msgspec.structs.replace(SPEC, cwd=str(self.cwd), plan=msgspec.convert(wanted, Plan))
        claimed(self.database, add_run(self.database, "r1", spec=spec), now_s=time.time())

    def note_before(self) -> None:
        """Note what lies there, as the start of a segment does."""
        segment_files.write_before(self.folder, baseline.note([str(self.cwd)], self.home))

    def segment(self) -> SegmentRecord:
        segment = queries.segment(self.database, "r1", 1)
        assert segment is not None
        return segment

    def scanner(self) -> CheckpointScanner:
        recorded = queries.checkpoints(self.database, "r1")
        return CheckpointScanner(
            get(self.database, "r1"),
            self.segment(),
            avoid=self.home,
            recorded=recorded,
            pids=lambda: self.pids,
            began=lambda: beginning_of(self.folder, self.segment().started_at_s),
        )

    def store(self, found: list[ScannedCheckpoint]) -> None:
        segment = self.segment()
        at = (segment.log_offset, segment.events_offset)
        heard = progress.SegmentReport(
            log_from=at[0],
            log_to=at[0],
            events_from=at[1],
            events_to=at[1],
            spotted=[one.record for one in found],
        )
        assert progress.record(self.database, "r1", 1, heard)

    def requeue(self, outcome: SegmentOutcome = SegmentOutcome.TIMEBOXED) -> RunRecord:
        """End its segment, and return the run as it waits for the next one."""
        verdict = NextMove(Event.REQUEUED, outcome, "why")
        claims.apply_result(self.database, get(self.database, "r1"), verdict, SegmentResult(), time.time())
        return get(self.database, "r1")

    def rows(self) -> list[tuple[str, int | None]]:
        """Return the good checkpoints on record, oldest first."""
        saved = queries.checkpoints(self.database, "r1")
        return [(Path(one.path).name, one.step) for one in reversed(saved) if one.refused is None]


def names(found: list[ScannedCheckpoint]) -> list[str]:
    return [Path(one.record.path).name for one in found]


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"weights" * 1000)
    return buffer.getvalue()
