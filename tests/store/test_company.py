"""Runs that write the same files: known from what is on record of them."""

import pytest

from backprop.scheduler.records import CheckpointRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import company, queries
from backprop.scheduler.store.reads.company import DOUBT
from backprop.scheduler.store.writes import progress
from tests.support.store_rows import add_run, claimed


def saved(run_id: str, path: str, attribution: str | None = "bytes") -> CheckpointRecord:
    return CheckpointRecord(
        run_id=run_id,
        segment=1,
        path=path,
        step=None,
        size_bytes=7,
        mtime_ns=1,
        is_dir=False,
        saved_at_s=1.0,
        refused="2 runs may have written it" if attribution == DOUBT else None,
        attribution=attribution,
    )


def record(
    database: Database, run_id: str, *spotted: CheckpointRecord, shared: tuple[str, str, str] | None = None
) -> None:
    report = progress.SegmentReport(
        log_from=0, log_to=0, events_from=0, events_to=0, spotted=spotted, shared=[shared] if shared else ()
    )
    assert progress.record(database, run_id, 1, report)


@pytest.mark.parametrize(
    ("of_a", "of_b", "rival"),
    [
        ([("/o/a.pt", "bytes")], [("/o/b.pt", "bytes")], None),
        ([("/o/last.pt", "bytes")], [("/o/last.pt", "open")], "b"),
        ([("/o/last.pt", None)], [("/o/last.pt", "said")], None),
        ([("/o/last.pt", DOUBT)], [("/o/last.pt", DOUBT)], "b"),
        ([("/o/1.pt", DOUBT)], [("/p/1.pt", DOUBT)], None),
        ([("/o/1.pt", DOUBT), ("/o/2.pt", "alone")], [("/o/1.pt", DOUBT)], None),
        ([("/o/1.pt", DOUBT), ("/o/2.pt", "alone")], [("/o/1.pt", DOUBT), ("/o/3.pt", "alone")], "b"),
    ],
)
def test_runs_are_rivals_by_one_file_or_by_a_doubt_that_nothing_has_settled(
    database: Database,
    of_a: list[tuple[str, str | None]],
    of_b: list[tuple[str, str | None]],
    rival: str | None,
) -> None:
    for run_id, files in (("a", of_a), ("b", of_b)):
        claimed(database, add_run(database, run_id))
        record(database, run_id, *(saved(run_id, *file) for file in files))
    assert company.rival(database, "a", ["b"]) == rival


def test_a_run_that_seems_to_begin_later_lives_now(database: Database) -> None:
    """The clock was set back by an hour after it had begun, at 5,000."""
    claimed(database, add_run(database, "a"), now_s=5000.0)
    ((_, began_s, ended_s),) = company.lived(database, 1390.0, 1400.0, now_s=1400.0)
    assert (began_s, ended_s) == (1390.0, None)
    assert company.lived(database, 1390.0, 1400.0, now_s=5001.0) == []


def test_a_file_that_another_run_has_written_too_counts_for_neither(database: Database) -> None:
    for run_id in ("a", "b"):
        claimed(database, add_run(database, run_id))
    record(database, "a", saved("a", "/o/last.pt"), saved("a", "/o/own.pt"))
    record(database, "b", shared=("a", "/o/last.pt", "b writes it too"))
    refused = {one.path: one.refused for one in queries.checkpoints(database, "a")}
    assert refused == {"/o/last.pt": "b writes it too", "/o/own.pt": None}
    owners = {(one.run_id, one.path) for one in company.written_in(database, {"/o"})}
    assert owners == {("a", "/o/last.pt"), ("a", "/o/own.pt")}, "it stays known who wrote it"
