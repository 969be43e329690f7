"""The books of a night balance: each second of each unit is in one account, also where the clock was set."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backprop.cli.report.axis import Axis
from backprop.cli.report.books import (
    HANDOVER,
    NO_WORKER,
    NOT_RECORDED,
    SPEAKS_S,
    Account,
    Book,
    Reason,
    Stay,
    Unit,
    book,
    packed,
    turns,
    without,
)
from backprop.scheduler.records import ClockChange, Refusal

GPU = Unit("GPU-0", 0, "RTX")
EMPTY = Refusal("nothing queued", "nothing was queued")
HOT = Refusal("temperature", "GPU 0: hot", 0)
OTHER = Refusal("temperature", "GPU 1: hot", 1)


def totals(made: Book) -> dict[str, int]:
    return {account.value: total for account in Account if (total := made.total(account))}


def balanced(made: Book, length_s: float) -> bool:
    """Whether the slices follow one another from the beginning of the night to its end."""
    at = 0
    for one in made.slices:
        if one.from_s != at or one.to_s <= at:
            return False
        at = one.to_s
    return at == round(length_s) == sum(made.total(account) for account in Account)


seconds = st.floats(-5000, 60_000, allow_nan=False)
amounts = st.floats(0, 4000, allow_nan=False)
spans = st.lists(st.tuples(seconds, amounts), max_size=4)


def stay_of(
    begin: float,
    lived: float,
    parts: tuple[float, float, float, float],
    away: list[tuple[float, float]],
    moving: list[tuple[float, float]],
) -> Stay:
    absent = tuple((at, at + length) for at, length in sorted(away))
    underway = tuple((at, at + length) for at, length in sorted(moving))
    return Stay("run", begin, begin + lived, *parts, away=absent, moving=underway)


stays = st.builds(stay_of, seconds, amounts, st.tuples(amounts, amounts, amounts, amounts), spans, spans)
reasons = st.lists(st.tuples(seconds, st.sampled_from([None, (), (EMPTY,), (HOT, OTHER)])), max_size=30)
changes = st.lists(st.tuples(st.floats(0, 40_000), st.floats(-9000, 9000), st.floats(0, 3000)), max_size=4)


@settings(max_examples=120, deadline=None)
@given(st.lists(stays, max_size=12), reasons, changes, st.floats(0, 50_000))
def test_the_books_balance(
    lived: list[Stay],
    told: list[tuple[float, tuple[Refusal, ...] | None]],
    set_by: list[tuple[float, float, float]],
    length_s: float,
) -> None:
    clock = [ClockChange(1e9 + at, by + slept, slept) for at, by, slept in sorted(set_by)]
    axis = Axis(1e9, 1e9 + length_s, clock)
    ordered = [Reason(at_s, refusals) for at_s, refusals in sorted(told, key=lambda one: one[0])]
    divided = [turn for stay in lived for turn in turns(stay)]
    for place in (lived, divided, *packed(divided, 3)):
        assert balanced(book(GPU, place, ordered, axis.asleep, axis.length_s), axis.length_s)
    assert sum(map(len, packed(divided, 3))) == len(divided)


@settings(deadline=None)
@given(stays)
def test_the_turns_of_a_stay_are_what_it_was_there(stay: Stay) -> None:
    found = turns(stay)
    assert all(one.from_s <= one.to_s and not one.away for one in found)
    assert all(one.to_s <= other.from_s for one, other in pairwise(found))
    there_s = sum(one.to_s - one.from_s for one in found)
    there = [(one.from_s, one.to_s) for one in found]
    away_s = sum(to_s - from_s for from_s, to_s in without((stay.from_s, stay.to_s), there))
    assert there_s + away_s == pytest.approx(stay.to_s - stay.from_s)
    for name in ("startup_s", "paused_s", "redone_s", "saving_s"):
        assert sum(getattr(one, name) for one in found) <= getattr(stay, name) + 1e-6


def test_a_suspended_run_is_nowhere_and_its_way_there_and_back_has_an_account() -> None:
    first = Stay("a", 0, 100, 10, redone_s=5, away=((30, 80),), moving=((25, 30), (80, 84)))
    second = Stay("b", 31, 79)
    assert totals(book(GPU, turns(first), [], [], 100)) == {
        "training": 26, "start-up": 10, "suspend/thaw": 9, "redone": 5, "idle": 50,
    }  # fmt: skip
    made = book(GPU, [*turns(first), second], [], [], 100)
    assert totals(made) == {"training": 74, "start-up": 10, "suspend/thaw": 9, "redone": 5, "idle": 2}
    assert idle(made) == [(1, HANDOVER.rule), (1, HANDOVER.rule)]
    assert [len(place) for place in packed([*turns(first), second], 1)] == [3], "they shared one place"


def test_a_long_start_and_a_long_loss_reach_over_suspensions() -> None:
    stay = Stay("a", 0, 100, startup_s=35, redone_s=25, away=((30, 60), (70, 80)))
    assert [(one.startup_s, one.redone_s) for one in turns(stay)] == [(30, 0), (5, 5), (0, 20)]


@pytest.mark.parametrize(
    ("stay", "wanted"),
    [
        (Stay("a", 0, 100), {"training": 100}),
        (Stay("a", 0, 100, 10, 20, 30), {"training": 40, "start-up": 10, "redone": 30, "paused": 20}),
        (
            Stay("a", 0, 100, 10, 20, 30, 15),
            {"training": 25, "start-up": 10, "saving": 15, "redone": 30, "paused": 20},
        ),
        (Stay("a", 0, 50, 10, saving_s=900), {"start-up": 10, "saving": 40, "idle": 50}),
        (Stay("a", 0, 50, 80), {"start-up": 50, "idle": 50}),
        (Stay("a", -50, 50, 80), {"start-up": 30, "training": 20, "idle": 50}),
        (Stay("a", 90, 300, 0, 0, 30), {"training": 10, "idle": 90}),
    ],
)
def test_a_stay_is_cut_into_its_accounts(stay: Stay, wanted: dict[str, int]) -> None:
    assert totals(book(GPU, [stay], [], [], 100)) == wanted


def test_runs_that_share_a_gpu_count_once_and_training_counts_first() -> None:
    lived = [Stay("a", 0, 60, 30), Stay("b", 20, 100, 20)]
    assert totals(book(GPU, lived, [], [], 100)) == {"start-up": 30, "training": 70}


def test_a_sleep_of_the_machine_is_no_pause() -> None:
    made = book(GPU, [Stay("a", 0, 100, 10, 20)], [], [(40, 60)], 100)
    assert totals(made) == {"start-up": 10, "training": 50, "paused": 20, "asleep": 20}


def idle(made: Book) -> list[tuple[int, str]]:
    return [(one.seconds, "+".join(one.rules)) for one in made.slices if one.account is Account.IDLE]


def test_idle_seconds_have_the_reason_that_was_recorded_then() -> None:
    told = [Reason(100, (HOT, OTHER)), Reason(130, (HOT,)), Reason(160, (EMPTY,)), Reason(190, None)]
    made = book(GPU, [], told, [], 1000)
    unknown = int(190 + SPEAKS_S)
    assert idle(made) == [
        (100, NO_WORKER.rule),
        (60, "temperature"),
        (30, "nothing queued"),
        (unknown - 190, NOT_RECORDED.rule),
        (1000 - unknown, NO_WORKER.rule),
    ]


def test_a_gpu_has_its_own_reasons_and_else_those_of_the_others() -> None:
    told = [Reason(0, (HOT, OTHER)), Reason(50, (HOT,))]
    second = book(Unit("GPU-1", 1), [], told, [], 100)
    assert [one.reasons for one in second.slices] == [(OTHER,)]


def test_a_change_from_one_segment_to_the_next_has_no_other_reason() -> None:
    made = book(GPU, [Stay("a", 0, 50), Stay("b", 52, 90)], [Reason(0, (EMPTY,))], [], 100)
    assert idle(made) == [(2, HANDOVER.rule), (10, "nothing queued")]


def test_places_are_filled_from_the_first() -> None:
    lived = [Stay("a", 0, 10), Stay("b", 5, 20), Stay("c", 10, 30)]
    assert [[one.run_id for one in place] for place in packed(lived, 1)] == [["a", "c"], ["b"]]
    assert len(packed([], 3)) == 3
    assert Counter(map(len, packed(lived, 4))) == {1: 1, 2: 1, 0: 2}


# The clock


def test_a_clock_set_forward_leaves_no_hole() -> None:
    axis = Axis(1000, 8200, [ClockChange(5600, 3600, 0)])
    assert (axis.length_s, axis.was_set) == (3600, True)
    assert [axis.at(wall) for wall in (1000, 2000, 3000, 5600, 8200)] == [0, 1000, 1000, 1000, 3600]
    assert [axis.wall_s(at) for at in (0, 999, 1000, 3600)] == [1000, 1999, 5600, 8200]


def test_a_clock_set_back_has_each_of_its_hours() -> None:
    axis = Axis(1000, 3000, [ClockChange(400, -3600, 0)])
    assert (axis.length_s, axis.earliest_s) == (3000 + 2600, 400)
    assert axis.at(2000) == 1000
    assert axis.at(2000, not_before_s=2500) == 4600
    assert axis.at(500) == 3100


def test_a_sleep_is_time_that_passed() -> None:
    axis = Axis(0, 1000, [ClockChange(700, 500, 500), ClockChange(5000, 3600, 0)])
    assert (axis.length_s, axis.asleep, axis.was_set) == (1000, [(200, 700)], False)
