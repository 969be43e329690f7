"""What a user has asked outlives the database: every verb is asked, an older copy is put in its place, and it holds."""

from collections.abc import Callable

import pytest

from backprop.scheduler.home import run_folder
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import Event, Intent, State
from backprop.scheduler.records import ASKED as ASKED_FOR
from backprop.scheduler.records import KEPT
from backprop.scheduler.store import drain, parallel
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import ordering, suspensions, transitions, user_requests
from backprop.scheduler.store.writes.ordering import TargetSlot
from backprop.worker.maintenance import completion, removal
from tests.support.older_copies import NOW_S, Past, end, segment, some_runs, with_folder
from tests.support.store_rows import SPEC, get

pytestmark = pytest.mark.usefixtures("trims")

LATER_S = 9_700_000_000.0
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


@pytest.mark.parametrize("what", ASKED)
def test_what_was_asked_holds_after_an_older_copy_came_back(database: Database, what: str) -> None:
    ask, holds = ASKED[what]
    some_runs(database)
    past = Past(database)
    ask(database)
    assert holds(database)
    again = past.restore(database)
    assert holds(again)
    assert not completion.ask_again(past.home, again), "once"
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
