"""What a user has asked outlives the database: every verb is asked, an older copy is put in its place, and it holds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backprop.scheduler.errors import DatabaseBusy, LostRace
from backprop.scheduler.home import batch_file, batch_outcomes, request_log, run_folder
from backprop.scheduler.home.batch_file import Member
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.request_log import Request, Verb
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import Event, Intent, State
from backprop.scheduler.outcome.move import NextMove, held_off
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import ASKED as ASKED_FOR
from backprop.scheduler.records import KEPT
from backprop.scheduler.store import drain, parallel, request_trim, requests
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims, enqueue, ordering, suspensions, transitions, user_requests
from backprop.scheduler.store.writes.ordering import TargetSlot
from backprop.worker.executor import segment_files
from backprop.worker.maintenance import comparison, recovery, removal
from tests.support.store_rows import SPEC, claimed, enqueue_run, get

NOW_S = 1_700_000_000.0
LATER_S = 9_700_000_000.0


def with_folder(database: Database, run_id: str, now_s: float = NOW_S) -> None:
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


@pytest.fixture(params=["whole", "trimmed"], autouse=True)
def trims(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Past, "trims", request.param == "trimmed")


ASKED: dict[str, tuple[Callable[[Database], object], Callable[[Database], bool]]] = {
    "hold": (
        lambda database: user_requests.hold(database, ["a"], "why"),
        lambda database: (get(database, "a").state, get(database, "a").reason) == (State.HELD, "why"),
    ),
    "release": (
        lambda database: user_requests.release(database, ["h"]),
        lambda database: get(database, "h").state is State.QUEUED,
    ),
    "stop": (
        lambda database: user_requests.stop_waiting(database, ["a"], NOW_S),
        lambda database: get(database, "a").state is State.STOPPED,
    ),
    "stop one": (
        lambda database: user_requests.ask_to_stop(database, get(database, "a"), NOW_S),
        lambda database: get(database, "a").state is State.STOPPED,
    ),
    "stop a live one": (
        lambda database: user_requests.ask_to_stop(database, get(database, "l"), NOW_S),
        lambda database: get(database, "l").intent is Intent.STOP,
    ),
    "resume": (
        lambda database: user_requests.resume(database, ["s"], {}, "/pin", NOW_S + 9),
        lambda database: (get(database, "s").state, get(database, "s").resume_pin) == (State.QUEUED, "/pin"),
    ),
    "done": (
        lambda database: user_requests.declare_done(database, ["s", "h"], NOW_S + 9),
        lambda database: {get(database, run_id).state for run_id in "sh"} == {State.COMPLETED},
    ),
    "move": (
        lambda database: ordering.move_to(database, ["b"], TargetSlot.FIRST, None, NOW_S),
        lambda database: queries.queue(database, NOW_S + 99, 9)[0].id == "b",
    ),
    "edit": (
        lambda database: edit(database, "a"),
        lambda database: (get(database, "a").name, get(database, "a").priority) == ("other", 7),
    ),
    "remove": (
        lambda database: removal.remove(database.home, database, ["a"], waiting=True),
        lambda database: queries.run_by_id(database, "a") is None,
    ),
    "suspend": (
        lambda database: suspensions.ask(database, ["l"], None),
        lambda database: get(database, "l").suspension == ASKED_FOR,
    ),
    "suspend for a time": (
        lambda database: suspensions.ask(database, ["l"], LATER_S),
        lambda database: (
            (get(database, "l").suspension, get(database, "l").thaw_at_s) == (ASKED_FOR, LATER_S)
        ),
    ),
    "unsuspend": (
        lambda database: suspensions.unask(database, ["k"]),
        lambda database: (get(database, "k").state, get(database, "k").suspension) == (State.QUEUED, None),
    ),
    "drain": (
        lambda database: drain.set_drained(database, "a reboot", NOW_S),
        lambda database: drain.drained(database) == ("a reboot", NOW_S),
    ),
    "parallel": (
        lambda database: parallel.choose(database, 3, NOW_S),
        lambda database: parallel.chosen(database) == (3, NOW_S),
    ),
}


def edit(database: Database, run_id: str) -> None:
    user_requests.apply_edit(database, get(database, run_id), "other", SPEC, 7)
    run_folder.change_spec(database.home.run_folder(run_id), SPEC, "other", 7)


def some_runs(database: Database) -> None:
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


@pytest.mark.parametrize("what", ASKED)
def test_what_was_asked_holds_after_an_older_copy_came_back(database: Database, what: str) -> None:
    ask, holds = ASKED[what]
    some_runs(database)
    past = Past(database)
    ask(database)
    assert holds(database)
    again = past.restore(database)
    assert holds(again)
    assert not recovery.ask_again(past.home, again), "once"
    again.close()


def test_undrained_stays_undrained(database: Database) -> None:
    drain.set_drained(database, "a reboot", NOW_S)
    past = Past(database)
    drain.set_drained(database, None, NOW_S)
    again = past.restore(database)
    assert drain.drained(again) is None
    again.close()


def test_a_number_of_runs_that_was_taken_back_stays_so_beside_a_drain(database: Database) -> None:
    parallel.choose(database, 3, NOW_S)
    past = Past(database)
    parallel.choose(database, 4, NOW_S + 1)
    drain.set_drained(database, "a reboot", NOW_S + 2)
    parallel.choose(database, None, NOW_S + 3)
    again = past.restore(database)
    assert parallel.chosen(again) is None
    assert drain.drained(again) == ("a reboot", NOW_S + 2)
    again.close()


def test_the_last_word_counts(database: Database) -> None:
    some_runs(database)
    past = Past(database)
    user_requests.hold(database, ["a", "b"], "why")
    user_requests.release(database, ["a"])
    again = past.restore(database)
    assert (get(again, "a").state, get(again, "b").state) == (State.QUEUED, State.HELD)
    again.close()


def test_a_run_held_between_two_segments_does_not_go_on(database: Database) -> None:
    """The copy is from before the segment after which it was held."""
    with_folder(database, "a")
    past = Past(database)
    segment(database, "a")
    run = get(database, "a")
    database.write(lambda: transitions.move("a", run.state, Event.REQUEUED, 1, {"worker": None}))
    user_requests.hold(database, ["a"], "why")
    again = past.restore(database)
    assert (get(again, "a").state, get(again, "a").segment) == (State.HELD, 1)
    again.close()


def test_a_run_held_off_between_two_segments_does_not_go_on(database: Database) -> None:
    """The copy is from before the segment that it was to be suspended in, and it has been edited since."""
    for run_id in "abc":
        with_folder(database, run_id)
    past = Past(database)
    for run_id in "abc":
        segment(database, run_id)
        suspensions.ask(database, [run_id], LATER_S if run_id == "b" else None)
        end(database, run_id)
        edit(database, run_id)
    user_requests.release(database, ["c"])
    again = past.restore(database)
    rows = {run_id: get(again, run_id) for run_id in "abc"}
    assert {run_id: (run.state, run.suspension) for run_id, run in rows.items()} == {
        "a": (State.HELD, KEPT),
        "b": (State.QUEUED, KEPT),
        "c": (State.QUEUED, None),
    }
    assert rows["b"].not_before_s == LATER_S
    again.close()


@pytest.mark.parametrize("how", ["refused", "its time is over", "taken back"])
def test_what_came_of_a_suspension_is_not_forgotten(database: Database, how: str) -> None:
    some_runs(database)
    past = Past(database)
    suspensions.ask(database, ["l"], NOW_S if how == "its time is over" else None)
    if how == "refused":
        suspensions.over(database, get(database, "l"), 1, "not suspended: it holds a lock")
    elif how == "taken back":
        suspensions.unask(database, ["l"])
    again = past.restore(database)
    assert get(again, "l").suspension is None
    again.close()


def test_what_has_ended_since_is_not_resumed_again(database: Database) -> None:
    """It was resumed, and has completed; the request to resume it is older than its end."""
    some_runs(database)
    past = Past(database)
    user_requests.resume(database, ["s"], {}, None, NOW_S + 9)
    segment(database, "s")
    ended = OutcomeFile(state="completed", reason="done", segment=1, ended_at_s=NOW_S + 10)
    run_folder.write_outcome(past.home.run_folder("s"), ended)
    again = past.restore(database)
    assert get(again, "s").state is State.COMPLETED
    again.close()


def test_an_id_that_is_used_again_after_a_removal_is_another_run(database: Database) -> None:
    some_runs(database)
    past = Past(database)
    user_requests.hold(database, ["a"], "why")
    removal.remove(past.home, database, ["a"], waiting=True)
    with_folder(database, "a", NOW_S + 50)
    again = past.restore(database)
    assert get(again, "a").state is State.QUEUED
    again.close()


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
    recovery.ask_again(database.home, database)
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
    recovery.ask_again(past.home, older)
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
    recovery.complete(past.home, older)
    assert comparison.older_than_home(past.home, older) == "it lacks the runs that were queued together as m"
    recovery.complete_batches(past.home, older)
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
