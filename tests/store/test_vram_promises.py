"""What is promised to a suspended run whose VRAM lies in RAM: nothing, until it is let go on, and then at once."""

import pytest

from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor.need import reservations_of
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, suspensions
from backprop.scheduler.store.writes.suspensions import Promised
from tests.support.store_rows import add_run, get

GPU = "GPU-0"


def promised(database: Database) -> dict[str, int]:
    """Return what is reserved, by run."""
    _, segments = queries.live_segments(database)
    return {one.run_id: one.promised_mib for one in reservations_of(segments, {}, lambda _: 0.0)}


def start(database: Database, run: RunRecord, mib: int = 600) -> RunRecord:
    wanted = claims.Claim(
        run=run, worker="w1", serial=queries.serial(database), gpu_uuids=(GPU,), promised_mib=mib
    )
    claims.claim(database, [wanted], 2.0)
    return get(database, run.id)


def out(database: Database, run_id: str) -> RunRecord:
    run = start(database, add_run(database, run_id))
    suspensions.suspended(database, run, "others wait", 700, 3.0, 600)
    return get(database, run_id)


def test_the_promise_goes_and_comes_with_the_row(database: Database) -> None:
    run = out(database, "a")
    assert (run.state, promised(database)) == (State.SUSPENDED, {})
    suspensions.thaw(database, run, "w2", 1, 1, 9.0, Promised(650, queries.serial(database)))
    assert (get(database, "a").state, promised(database)) == (State.RUNNING, {"a": 650})
    assert database.integrity_problem() is None


def test_no_decision_rests_on_the_promises_before_a_thaw(database: Database) -> None:
    first, second = out(database, "a"), out(database, "b")
    fresh = add_run(database, "c")
    before = queries.serial(database)
    suspensions.thaw(database, first, "w2", 1, 9, 9.0, Promised(650, before))
    with pytest.raises(LostRace):
        suspensions.thaw(database, second, "w1", 1, 9, 9.0, Promised(650, before))
    with pytest.raises(LostRace):
        suspensions.promise_again(database, second, Promised(650, before))
    with pytest.raises(LostRace):
        claims.claim(database, [claims.Claim(run=fresh, worker="w1", serial=before)], 4.0)
    assert promised(database) == {"a": 650}
    start(database, fresh)
    assert queries.issued_serial(database) == queries.serial(database) == before + 2
    suspensions.promise_again(database, second, Promised(650, queries.serial(database)))
    assert (get(database, "b").state, promised(database)["b"]) == (State.SUSPENDED, 650)


def test_a_promise_that_found_no_room_goes_back(database: Database) -> None:
    """The run keeps its place in the queue, and is not tried again at once."""
    run = out(database, "a")
    suspensions.thaw(database, run, "w2", 1, 1, 9.0, Promised(650, queries.serial(database)))
    thawed = get(database, "a")
    suspensions.give_back(database, thawed, "no room", 600, 100.0, 10.0)
    back = get(database, "a")
    assert (back.state, back.turn_s, back.reason) == (State.SUSPENDED, run.turn_s, "suspended: no room")
    assert promised(database) == {}
    assert [one.id for one in queries.queue(database, 99.0)] == []
    assert [one.id for one in queries.queue(database, 100.0)] == ["a"]
    suspensions.promise_after_all(database, back)
    assert promised(database) == {"a": 650}
    suspensions.vram_stays(database, back, "it refused")
    assert get(database, "a").vram_stays == "it refused"
