"""What was sampled of the disks, and what the segments of a run have saved."""

import msgspec
from msgspec.structs import replace

from backprop.scheduler.governor.disk import Growth
from backprop.scheduler.store import samples
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import disk_use
from backprop.scheduler.store.writes.progress import insert_checkpoint
from tests.support.governor_cases import HOST, machine
from tests.support.store_rows import SPEC, add_run, checkpoint, get

MIB = 1024 * 1024


def save(database: Database, path: str, segment: int, size_mib: int) -> None:
    record = msgspec.structs.replace(checkpoint("r1", path, segment=segment), size_bytes=size_mib * MIB)
    database.write(lambda: insert_checkpoint(record))


def at_segment(database: Database, number: int) -> None:
    database.write(lambda: database.rows("UPDATE runs SET segment = ?", number))


def test_the_disk_that_fills_is_told_and_no_other(database: Database) -> None:
    for at in range(81):
        host = replace(HOST, disks=(("/", 50_000), ("/data", 60_000 - 100 * at), ("/nfs", None)))
        assert samples.keep(database, replace(machine(), host=host), 1e9 + 31.0 * at)
    now_s = 1e9 + 31.0 * 80
    found = disk_use.full_at(database, now_s)
    assert list(found) == ["/data"]
    assert abs(found["/data"] - (now_s + 520 * 31.0)) < 60
    assert disk_use.full_at(database, now_s + 86400) == {}, "old readings make no pace"


def test_a_segment_adds_what_the_last_ones_have_saved(database: Database) -> None:
    add_run(database, "r1")
    assert disk_use.usual_growth(database, get(database, "r1")) is None
    for segment in range(1, 6):
        save(database, "/data/out/last.pt", segment, 900)
        save(database, f"/data/out/step-{segment}.pt", segment, 100 * segment)
    at_segment(database, 5)
    assert disk_use.usual_growth(database, get(database, "r1")) == Growth("/data/out", 400)


def test_where_older_ones_go_one_checkpoint_is_all(database: Database) -> None:
    add_run(database, "r1", spec=msgspec.structs.replace(SPEC, keep_checkpoints=2))
    for step in range(4):
        save(database, f"/out/step-{step}.pt", 1, 100)
    at_segment(database, 1)
    assert disk_use.usual_growth(database, get(database, "r1")) == Growth("/out", 100)
