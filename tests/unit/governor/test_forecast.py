"""The queue is played through with measured speeds; what nobody can know is not said."""

import math
import time

import pytest

from backprop.scheduler.config.active_hours import parse_all
from backprop.scheduler.governor.forecast import forecast, median, spread_of, total_of
from backprop.scheduler.governor.opening import opens_from
from backprop.scheduler.governor.playing import Job, always
from benchmarks import eta


def test_one_run_ends_when_its_work_is_done() -> None:
    told = forecast([Job(id="a", work_s=100, box_left_s=600, box_s=600)], 1)
    assert told.ends == {"a": 100}
    assert told.all_s == 100
    assert told.latest_s is not None
    assert told.latest_s > 100


def test_each_box_costs_a_restart_and_others_take_their_turns() -> None:
    two = [Job(id=name, work_s=100, restart_s=10, box_s=60) for name in "ab"]
    # Boxes of 50 s of work: a, b, a, b.
    assert forecast(two, 1).ends == {"a": 180, "b": 240}
    assert forecast(two, 2).ends == {"a": 120, "b": 120}
    kept = [Job(id=name, work_s=100, restart_s=10, box_s=60, keeps_turn=True) for name in "ab"]
    assert forecast(kept, 1).ends == {"a": 120, "b": 240}


def test_what_is_unknown_takes_its_turns_and_leaves_the_end_open() -> None:
    told = forecast([Job(id="a", work_s=None), Job(id="b", work_s=50)], 1)
    assert told.ends == {"b": 100}
    assert (told.all_s, told.latest_s) == (None, None)
    assert forecast([Job(id="a", work_s=None)], 1).ends == {}


def test_a_run_waits_for_its_time_and_lets_others_pass() -> None:
    told = forecast([Job(id="late", work_s=10, not_before_s=1000), Job(id="now", work_s=10)], 1)
    assert told.ends == {"now": 10, "late": 1010}


def test_those_before_it_have_to_end_first() -> None:
    jobs = [
        Job(id="a", work_s=100),
        Job(id="b", work_s=10, after=("a",)),
        Job(id="c", work_s=50),
        Job(id="d", work_s=5, after=("b", "c")),
    ]
    told = forecast(jobs, 3)
    assert told.ends == {"a": 100, "b": 110, "c": 50, "d": 115}
    assert told.latest_s is not None
    alone = forecast([Job(id="x", work_s=115)], 3).latest_s
    assert alone is not None
    assert told.latest_s > alone, "each of three may be late"
    over = [Job(id="a", work_s=None), Job(id="b", work_s=10, after=("a",)), Job(id="c", work_s=10)]
    assert forecast(over, 3).ends == {"c": 10}, "nobody knows when its turn comes"
    assert (
        forecast([Job(id="a", work_s=1, after=("b",)), Job(id="b", work_s=1, after=("a",))], 1).all_s is None
    )


def test_one_that_waits_for_another_keeps_its_turn_before_those_whose_box_is_over() -> None:
    jobs = [
        Job(id="a", work_s=60, box_s=60),
        Job(id="b", work_s=10, after=("a",)),
        Job(id="c", work_s=90, box_s=60),
    ]
    assert forecast(jobs, 1).ends == {"a": 60, "b": 70, "c": 160}


def shop(at_s: float) -> float:
    """Open for the first 100 s of each 1000 s."""
    return at_s if at_s % 1000 < 100 else at_s - at_s % 1000 + 1000


def test_runs_start_in_their_hours_and_go_on_to_the_end_of_their_box() -> None:
    jobs = [Job(id="a", work_s=150, box_s=80), Job(id="b", work_s=60, box_s=80)]
    # a until 80, b until 140, then the next opening: a until 1070.
    told = forecast(jobs, 1, shop)
    assert told.ends == {"b": 140, "a": 1070}
    assert told.latest_s is not None
    assert told.latest_s >= 1070
    assert forecast([Job(id="a", work_s=1)], 1, lambda _at_s: math.inf).all_s is None, "they never start"


def test_what_may_come_too_late_for_the_hours_may_come_a_day_later() -> None:
    told = forecast([Job(id="a", work_s=98), Job(id="b", work_s=10)], 1, shop)
    assert told.all_s == 108
    assert told.latest_s is not None
    assert told.latest_s > 1000


def test_hours_of_the_week_as_seconds_from_now() -> None:
    # The 2nd of January 1970 was a Friday.
    opens = opens_from(parse_all(("22:00-08:00",)), 86_400 + 12 * 3600, time.gmtime)
    assert [opens(hour * 3600) / 3600 for hour in (0, 9.5, 10, 19.9, 20, 34.5)] == [
        10,
        10,
        10,
        19.9,
        34,
        34.5,
    ]
    assert opens_from((), 0.0) is always


def test_nothing_and_no_slots() -> None:
    assert forecast([], 1).all_s == 0
    assert forecast([Job(id="a", work_s=1)], 0).ends == {}


def test_a_queue_without_end_is_not_played_segment_by_segment() -> None:
    jobs = [Job(id=str(number), work_s=1e6, box_s=2, restart_s=1) for number in range(100)]
    told = forecast(jobs, 2)
    assert len(told.ends) == 100
    assert told.all_s is not None
    assert math.isfinite(told.all_s)


@pytest.mark.parametrize(
    ("argv", "unit", "total"),
    [
        (("python", "t.py", "--steps", "400"), "step", 400),
        (("python", "t.py", "--max_steps=500"), None, 500),
        (("python", "t.py", "--epochs", "3"), "epoch", 3),
        (("python", "t.py", "--epochs", "3"), "step", None),
        (("python", "t.py", "--steps", "many"), "step", None),
        (("python", "t.py", "--steps"), "step", None),
        (("python", "t.py", "--steps", "0"), "step", None),
        (("python", "t.py", "--steps", "400"), "batch", None),
    ],
)
def test_totals_of_command_lines(argv: tuple[str, ...], unit: str | None, total: int | None) -> None:
    assert total_of(argv, unit) == total


def test_the_middle_and_the_spread() -> None:
    assert median([]) is None
    assert median([3, 1, 2]) == 2
    assert median([1, 2]) == 1.5
    assert spread_of([1, 1]) == 0.3, "two say little"
    assert spread_of([1, 1, 1, 1]) == 0.15
    assert spread_of([1, 2, 3, 4]) > 0.4


def test_nine_of_ten_simulated_nights_keep_to_their_latest_end() -> None:
    told = [eta.replay(seed) for seed in range(1, 201)]
    share = sum(one.kept for one in told) / len(told)
    assert eta.GOAL[0] <= share <= eta.GOAL[1], share
