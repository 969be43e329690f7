"""Puts an older copy of the database in the place of the one that requests were made to."""

import shutil

import msgspec

from backprop.scheduler.home import run_folder
from backprop.scheduler.lifecycle import Event
from backprop.scheduler.outcome.move import NextMove, held_off
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.store import request_trim
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.writes import claims, suspensions, user_requests
from backprop.worker.executor import segment_files
from backprop.worker.maintenance import recovery
from tests.support.store_rows import SPEC, claimed, enqueue_run, get

NOW_S = 1_700_000_000.0


def with_folder(database: Database, run_id: str, now_s: float = NOW_S) -> None:
    """Queue a run, and make its folder."""
    folder = database.home.run_folder(run_id)
    folder.mkdir()
    run_folder.write_spec(folder, run_id, run_id, SPEC, {}, now_s)
    enqueue_run(database, run_id, run_id, SPEC, now_s)


def segment(database: Database, run_id: str, number: int = 1) -> None:
    """Claim the run, and leave on disk what its segment leaves."""
    claimed(database, get(database, run_id))
    folder = database.home.segment_folder(run_id, number)
    folder.mkdir()
    order = {"argv": ["x"], "environment": {}, "timebox_s": 1.0}
    (folder / segment_files.ORDER).write_bytes(msgspec.json.encode(order))


class Past:
    """A copy of the database, to be put back later. `trims`: the file of requests is trimmed before."""

    trims = False

    def __init__(self, database: Database) -> None:
        self.home = database.home
        self.copy = database.home.root / "copy.db"
        database.copy_to(self.copy)

    def restore(self, database: Database) -> Database:
        """Put the copy back under a worker that starts."""
        if self.trims:
            request_trim.trim(database, [self.copy], least_bytes=0)
        database.close()
        shutil.copy(self.copy, self.home.database)
        return recovery.open_sound(self.home, lambda _: None)


def some_runs(database: Database) -> None:
    """Queue runs in several states: two wait, one is held, one live, one stopped, one suspended."""
    for number, run_id in enumerate("abhlsk"):
        with_folder(database, run_id, NOW_S + number)
    user_requests.hold_run(database, get(database, "h"), "why")
    segment(database, "l")
    user_requests.stop_waiting(database, ["s"], NOW_S)
    segment(database, "k")
    suspensions.ask(database, ["k"], None)
    end(database, "k")


def end(database: Database, run_id: str) -> None:
    """End its segment, so that it would go on."""
    run = get(database, run_id)
    move = NextMove(Event.REQUEUED, SegmentOutcome.YIELDED, "why")
    move = held_off(move, run.suspension is not None, run.thaw_at_s)
    claims.apply_result(database, run, move, SegmentResult(), NOW_S)
