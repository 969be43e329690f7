"""The file of requests and an older database beside it: what is claimed, what is missing, what is trimmed."""

import shutil
from pathlib import Path

import pytest

from backprop.scheduler.errors import DatabaseBusy, LostRace
from backprop.scheduler.home import batch_file, batch_outcomes, request_log
from backprop.scheduler.home.batch_file import Member
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.request_log import Request, Verb
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store import drain, request_trim, requests
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, enqueue, user_requests
from backprop.worker.maintenance import comparison, completion, recovery, removal
from tests.support.older_copies import NOW_S, Past, segment, some_runs, with_folder
from tests.support.store_rows import SPEC, get

pytestmark = pytest.mark.usefixtures("trims")


def test_a_request_that_fails_is_not_asked_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    some_runs(database)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(request_log, "append", fail)
    with pytest.raises(DatabaseBusy, match=r"requests\.jsonl cannot be written: No space left on device"):
        user_requests.hold(database, ["a"], "why")
    assert get(database, "a").state is State.QUEUED
    monkeypatch.undo()

    def break_off(note: requests.Note) -> None:
        note(Verb.HOLD, ["a"])
        raise LostRace("the commit failed")

    with pytest.raises(LostRace):
        requests.write(database, break_off)
    completion.ask_again(database.home, database)
    assert get(database, "a").state is State.QUEUED


def test_until_it_is_repaired_nothing_is_claimed_from_an_older_copy(database: Database) -> None:
    some_runs(database)
    past = Past(database)
    drain.set_drained(database, "a reboot", NOW_S)
    database.close()
    shutil.copy(past.copy, past.home.database)
    older = open_database(past.home)
    wanted = claims.Claim(run=get(older, "a"), worker="w", serial=queries.serial(older))
    with pytest.raises(LostRace, match="an older copy"):
        claims.claim(older, [wanted], NOW_S)
    # A request that is made of it meanwhile hides none of those it lacks.
    user_requests.hold(older, ["b"], "why")
    assert comparison.older_than_home(past.home, older)
    completion.ask_again(past.home, older)
    assert drain.drained(older)
    assert get(older, "b").state is State.HELD
    assert comparison.older_than_home(past.home, older) is None
    older.close()


def test_runs_that_it_lacks_are_seen(database: Database) -> None:
    past = Past(database)
    with_folder(database, "a")
    members = [Member(id="m-0", name="m", spec=SPEC)]
    batch_file.write(past.home, "m", members, {}, NOW_S, None)
    enqueue.enqueue_all(database, members, NOW_S, batch="m")
    assert comparison.older_than_home(past.home, database) is None
    database.close()
    shutil.copy(past.copy, past.home.database)
    older = open_database(past.home)
    assert comparison.older_than_home(past.home, older) == "it lacks 1 of the runs that have folders"
    completion.complete(past.home, older)
    assert comparison.older_than_home(past.home, older) == "it lacks the runs that were queued together as m"
    completion.complete_batches(past.home, older)
    assert comparison.older_than_home(past.home, older) is None
    older.close()


@pytest.mark.parametrize("by", ["rm", "hand"])
@pytest.mark.parametrize("database_is", ["older", "new"])
def test_a_removed_member_of_a_batch_does_not_come_back(
    database: Database, by: str, database_is: str
) -> None:
    home = database.home
    members = [Member(id=f"m-{number}", name="m", number=number, spec=SPEC) for number in range(3)]
    batch_file.write(home, "m", members, {}, NOW_S, None)
    enqueue.enqueue_all(database, members, NOW_S, batch="m")
    past = Past(database)
    assert batch_file.materialise(home, get(database, "m-0"))
    if by == "rm":
        removal.remove(home, database, ["m-0", "m-1"], waiting=True)
    else:
        shutil.rmtree(home.run_folder("m-0"))
    if database_is == "older":
        again = past.restore(database)
        if queries.run_by_id(again, "m-0") is not None:
            assert by == "hand"
            assert not batch_file.materialise(home, get(again, "m-0")), "there is nothing to start"
    else:
        database.close()
        home.database.unlink()
        again = recovery.open_sound(home, lambda _: None)
        assert queries.run_by_id(again, "m-0") is None
    assert (queries.run_by_id(again, "m-1") is None) == (by == "rm")
    assert get(again, "m-2").state is State.QUEUED
    again.close()


def test_a_removal_undone_brings_no_left_member_back(database: Database) -> None:
    home = database.home
    members = [Member(id=f"m-{number}", name="m", number=number, spec=SPEC) for number in range(2)]
    batch_file.write(home, "m", members, {}, NOW_S, None)
    enqueue.enqueue_all(database, members, NOW_S, batch="m")
    batch_file.materialise(home, get(database, "m-0"))
    before = batch_outcomes.mark_removed(home, "m", ["m-0", "m-1"])
    batch_outcomes.unmark_removed(home, "m", before)
    assert batch_outcomes.has_left(home, "m", "m-0")
    assert not batch_outcomes.has_left(home, "m", "m-1")


def test_lines_that_are_no_requests_are_passed_over(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert request_log.newest(home) == 0
    home.requests.write_bytes(b"")
    assert request_log.newest(home) == 0
    request_log.append(home, [Request(number=12, verb=Verb.HOLD, at_s=1.0, runs={"a": 0})])
    for rubbish in (
        b"\xff\n\n{}\n",
        b'{"number":',
        b'\n{"number":1',
        b'\n{"number":99,"verb":"dance"}\n',
        b"\0" * 9,
    ):
        with home.requests.open("ab") as file:
            file.write(rubbish)
        assert request_log.newest(home) == 12
        assert [request.number for request in request_log.read(home, 0)] == [12]
    request_log.append(home, [Request(number=13, verb=Verb.DRAIN, at_s=1.0)])
    assert request_log.newest(home) == 13
    assert [request.number for request in request_log.read(home, 12)] == [13]


def test_the_file_of_requests_keeps_what_a_copy_would_need_alone(database: Database) -> None:
    for run_id in "abc":
        with_folder(database, run_id)
    for _ in range(50):
        user_requests.hold(database, ["a", "b"], "why")
        user_requests.release(database, ["a"])
        drain.set_drained(database, "a reboot", NOW_S)
        drain.set_drained(database, None, NOW_S)
    user_requests.release(database, ["b"])
    segment(database, "a")
    removal.remove(database.home, database, ["b"], waiting=True)
    user_requests.hold(database, ["c"], "why")
    newest = request_log.newest(database.home)
    assert request_trim.trim(database, [], least_bytes=1 << 20) == 0, "short enough"
    before = Past(database)
    assert request_trim.trim(database, [before.copy, database.home.root / "no.db"], least_bytes=0) == 200
    kept = [(one.verb, list(one.runs)) for one in request_log.read(database.home, 0)]
    assert kept == [(Verb.UNDRAIN, []), (Verb.REMOVE, ["b"]), (Verb.HOLD, ["c"])]
    assert request_trim.trim(database, [before.copy], least_bytes=0) == 1, "all copies know of the removal"
    user_requests.release(database, ["c"])
    assert request_log.newest(database.home) == newest + 1


def test_a_file_that_is_ahead_of_its_database_is_not_trimmed(database: Database) -> None:
    some_runs(database)
    past = Past(database)
    user_requests.hold(database, ["a"], "why")
    database.close()
    shutil.copy(past.copy, past.home.database)
    older = open_database(past.home)
    assert request_trim.trim(older, [past.copy], least_bytes=0) == 0
    assert [one.verb for one in request_log.read(past.home, 0)][-1] is Verb.HOLD
    older.close()
