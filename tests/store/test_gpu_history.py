"""What is remembered of the machine, in a real database: peaks and GPUs kept aside."""

import msgspec
import pytest

from backprop.scheduler.governor.snapshot import Gpu, Host, Snapshot
from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.move import NextMove
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store import gpu_history
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.gpu_history import LEARNED_FROM
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from tests.support.store_rows import SPEC, add_run, claimed, get

HOST = Host(ram_free_mib=32_000, ram_total_mib=64_000, load_1m=1.5, cores=8, disk_free_mib=100_000)


def machine(*gpus: str) -> Snapshot:
    seen = tuple(Gpu(uuid, at, "GPU", 24_000, 20_000, 50, 90, False, 7) for at, uuid in enumerate(gpus))
    return Snapshot(HOST, seen, "nvml", None, 0.0)


def peaked(database: Database, run_id: str, *peaks: int | None, script: str = "/project/train.py") -> None:
    """A run whose segments reached these peaks; None: its use was never seen."""
    add_run(database, run_id, spec=spec_of(script))
    for peak in peaks:
        run = claimed(database, get(database, run_id))
        if peak is not None:
            gpu_history.record_peak(database, run_id, run.segment, peak)
        claims.apply_result(
            database, run, NextMove(Event.REQUEUED, SegmentOutcome.TIMEBOXED, "why"), SegmentResult(), 3.0
        )


def spec_of(script: str) -> RunSpec:
    return msgspec.structs.replace(SPEC, script=script)


def learned(database: Database, run_id: str) -> int | None:
    return gpu_history.learned_mib(database, run_id, get(database, run_id).spec)


# Peaks


def test_a_peak_only_rises(database: Database) -> None:
    run = claimed(database, add_run(database, "a"))
    for mib, kept in ((3000, 3000), (2000, 3000), (5000, 5000)):
        gpu_history.record_peak(database, "a", run.segment, mib)
        segment = queries.segment(database, "a", run.segment)
        assert segment is not None
        assert segment.peak_mib == kept


def test_a_peak_of_a_segment_that_is_gone_is_nothing(database: Database) -> None:
    add_run(database, "a")
    gpu_history.record_peak(database, "a", 7, 3000)
    assert learned(database, "a") is None


def test_a_run_is_known_by_its_own_segments_first(database: Database) -> None:
    peaked(database, "other", 20_000)
    peaked(database, "mine", 3000, None, 9000, 4000)
    assert learned(database, "mine") == 9000


def test_a_new_run_is_known_by_its_script(database: Database) -> None:
    peaked(database, "first", 3000)
    peaked(database, "second", 5000, None)
    peaked(database, "else", 20_000, script="/project/other.py")
    add_run(database, "new")
    assert learned(database, "new") == 5000
    add_run(database, "stranger", spec=spec_of("/elsewhere/train.py"))
    assert learned(database, "stranger") is None


def test_only_a_scripts_newest_segments_tell(database: Database) -> None:
    """A script that was rewritten to need less is not held to what it needed last year."""
    peaked(database, "old", 20_000)
    peaked(database, "newer", *[4000] * (LEARNED_FROM - 1))
    add_run(database, "new")
    assert learned(database, "new") == 20_000
    peaked(database, "newest", 4000)
    assert learned(database, "new") == 4000


# GPUs kept aside


def kept_aside(database: Database) -> dict[str, str]:
    return {one.gpu_uuid: one.reason for one in gpu_history.quarantined(database)}


@pytest.fixture
def workers(database: Database) -> Database:
    """The database, with the workers w1 and w2 alive."""
    for pid, worker in enumerate(("w1", "w2")):
        claims.worker_started(database, worker, pid, 2, 1.0)
    return database


def test_a_worker_says_which_gpus_it_keeps_aside(workers: Database) -> None:
    gpu_history.set_quarantine(workers, "w1", {"GPU-0": "stuck", "GPU-1": "stuck too"}, 5.0)
    gpu_history.set_quarantine(workers, "w2", {"GPU-2": "other"}, 6.0)
    assert kept_aside(workers) == {"GPU-0": "stuck", "GPU-1": "stuck too", "GPU-2": "other"}
    gpu_history.set_quarantine(workers, "w1", {"GPU-1": "half of it"}, 7.0)
    assert kept_aside(workers) == {"GPU-1": "half of it", "GPU-2": "other"}
    (one,) = (one for one in gpu_history.quarantined(workers) if one.gpu_uuid == "GPU-1")
    assert one.since_s == 5.0
    gpu_history.set_quarantine(workers, "w1", {}, 8.0)
    assert kept_aside(workers) == {"GPU-2": "other"}


def test_a_worker_that_has_gone_keeps_nothing_aside(workers: Database) -> None:
    gpu_history.set_quarantine(workers, "w1", {"GPU-0": "stuck"}, 5.0)
    claims.worker_stopped(workers, "w1", 6.0)
    assert kept_aside(workers) == {}
    gpu_history.set_quarantine(workers, "w2", {"GPU-0": "seen again"}, 7.0)
    assert kept_aside(workers) == {"GPU-0": "seen again"}
