"""A checkpoint that is whole and that the script cannot load: the one before is tried, or a copy kept of it."""

import os
import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.failures import FALLBACK_CAP
from backprop.scheduler.outcome.next_move import next_move
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.checkpoints import backups, repair
from backprop.worker.checkpoints.fallback import failed_at_once, fallback, fallen_back
from backprop.worker.checkpoints.start_point import choose_start, rows_of
from tests.support.store_rows import SPEC, claimed, get
from tests.support.unannounced_run import CLEAN, Watched, zip_bytes

CHAIN = Chain(segments=2, total_s=9.0, stalled=0, retries_used=0, lost=0, progressed=False, resumable=True)
CRASH = SegmentResult(exit_code=1, last_line="RuntimeError: PytorchStreamReader failed", running_s=2.0)
TOLD = {"resumes": "append", "resume_words": ("--load", "{checkpoint}")}


class Night:
    """A run whose first segment has saved, and whose second is given what it saved last."""

    def __init__(self, database: Database, folder: Path, **plan: object) -> None:
        self.watched, self.database, self.home = Watched(database, folder), database, Home(folder / "home")
        self.home.run_folder("r1").mkdir(parents=True)
        self.watched.start(**plan)

    @property
    def run(self) -> RunRecord:
        return get(self.database, "r1")

    def save(self, name: str, at_s: float) -> Path:
        path = self.watched.out / name
        path.write_bytes(zip_bytes())
        os.utime(path, (time.time() + at_s, time.time() + at_s))
        self.watched.store(self.watched.scanner().final_scan(CLEAN))
        return path

    def keep_copy(self) -> None:
        record = queries.checkpoints(self.database, "r1")[0]
        made = backups.back_up(self.home.run_folder("r1"), record, 0, lambda: False)
        assert isinstance(made, backups.Backup), made

    def begins_from(self) -> str | None:
        start = choose_start(self.home, self.run, rows_of(self.database, self.run))
        if start.needs_repair:
            assert repair.repair(start, self.run.spec, self.run.segment)
        return start.checkpoint and Path(start.checkpoint).name

    def fails_at_once(self, **chain: object) -> str | None:
        """Fail with what it begins from; return what is tried instead."""
        path = str(self.watched.out / str(self.begins_from()))
        run = claimed(self.database, self.run, now_s=time.time())
        other = fallback(self.home, run, rows_of(self.database, run), path)
        facts = replace(CHAIN, fallback=(path, other) if other else None, **chain)  # type: ignore[arg-type]
        claims.apply_result(self.database, run, next_move(run.spec, CRASH, facts), CRASH, time.time())
        return other


def test_the_one_before_is_tried_and_the_suspect_stays_on_record(database: Database, tmp_path: Path) -> None:
    night = Night(database, tmp_path, **TOLD)
    for number in range(3):
        night.save(f"{number}.pt", 0.5 * number)
    night.watched.requeue()
    assert night.begins_from() == "2.pt"
    assert night.fails_at_once() == str(night.watched.out / "1.pt")
    assert "tries" in night.run.reason
    assert night.run.state == "queued"
    assert night.begins_from() == "1.pt"
    refused = [one for one in queries.checkpoints(database, "r1") if one.refused is not None]
    assert [Path(one.path).name for one in refused] == ["2.pt"]
    assert "segment 2 failed at once when it was given this" in str(refused[0].refused)
    night.fails_at_once(fell_back=1)
    assert night.begins_from() == "0.pt"
    assert night.fails_at_once(fell_back=FALLBACK_CAP) is None
    assert night.run.state == "failed"
    assert "so it did with another checkpoint" in night.run.reason
    assert all(one.refused is None for one in queries.checkpoints(database, "r1")), (
        "none of them was the reason"
    )


@pytest.mark.parametrize("plan", [TOLD, {"resumes": "rerun"}])
def test_of_one_that_is_overwritten_the_kept_copy_is_put_back(
    database: Database, tmp_path: Path, plan: dict[str, object]
) -> None:
    night = Night(database, tmp_path, in_place=True, **plan)
    for number in (1, 2):
        path = night.save("ckpt.pt", 0.5 * number)
        night.keep_copy()
    night.watched.requeue()
    second = path.stat().st_mtime_ns
    assert night.begins_from() == "ckpt.pt"
    assert night.fails_at_once() == "the kept copy of segment 1"
    assert night.begins_from() == "ckpt.pt"
    assert path.stat().st_mtime_ns < second, "the first save is back in its place"
    before = sorted(path.parent.iterdir())
    assert night.begins_from() == "ckpt.pt"
    assert sorted(path.parent.iterdir()) == before, "once it is back, nothing is to be repaired"


def test_what_the_script_picks_itself_is_left_alone(database: Database, tmp_path: Path) -> None:
    night = Night(database, tmp_path, resumes="rerun")
    for number in range(2):
        night.save(f"{number}.pt", 0.5 * number)
    night.watched.requeue()
    assert night.fails_at_once() is None
    assert night.run.state == "failed"


@pytest.mark.parametrize(
    "ending",
    [
        SegmentResult(exit_code=1, last_line="ModuleNotFoundError: No module named 'torch'"),
        SegmentResult(exit_code=2, last_line="train.py: error: unrecognized arguments"),
        SegmentResult(exit_code=1, last_line="MemoryError"),
        SegmentResult(exit_code=1, last_line="RuntimeError: CUDA error: all CUDA-capable devices are busy"),
        SegmentResult(exit_code=1, last_line="ConnectionError: HTTPSConnectionPool: Read timed out."),
        SegmentResult(signal_name="SIGKILL"),
        SegmentResult(could_not_start="no such file"),
    ],
)
def test_what_has_another_reason_suspects_no_checkpoint(ending: SegmentResult) -> None:
    move = next_move(SPEC, ending, replace(CHAIN, fallback=("2.pt", "1.pt")))
    assert (move.event, move.suspect) == (Event.FAILED, None)


def test_a_fallback_uses_no_retry_and_comes_to_an_end() -> None:
    chain = replace(CHAIN, fallback=("2.pt", "1.pt"))
    spec = msgspec.structs.replace(SPEC, retries=1)
    move = next_move(spec, CRASH, chain)
    assert (move.event, move.retries_used, move.suspect) == (Event.REQUEUED, 0, "2.pt")
    later = next_move(spec, CRASH, replace(chain, fell_back=FALLBACK_CAP))
    assert (later.event, later.retries_used, later.suspect, later.acquits) == (Event.REQUEUED, 1, None, True)
    assert next_move(SPEC, CRASH, replace(chain, fell_back=FALLBACK_CAP)).event is Event.FAILED


def test_failing_at_once(database: Database, tmp_path: Path) -> None:
    night = Night(database, tmp_path)
    plain = msgspec.structs.replace(
        night.watched.segment(), checkpoint_used="/c", outcome=SegmentOutcome.FAILED
    )

    def segment(number: int, **changes: object) -> SegmentRecord:
        return msgspec.structs.replace(plain, number=number, running_s=3.0, **changes)

    assert failed_at_once(segment(2), 3.0, (), ())
    assert not failed_at_once(segment(2), 300.0, (), ()), "it may have trained"
    reported = segment(1, first_step=1)
    assert failed_at_once(segment(2), 300.0, (), [reported]), "it would have said so"
    assert not failed_at_once(segment(2, first_step=7), 3.0, (), [reported])
    assert not failed_at_once(segment(2, checkpoint_used=None), 3.0, (), ())
    done = segment(1, outcome=SegmentOutcome.TIMEBOXED)
    assert fallen_back(night.run, (), [done, segment(2), segment(3)]) == 2
    assert fallen_back(night.run, (), [segment(2), done]) == 0
