"""The queue is played through with measured speeds; what nobody can know is not said."""

import math

import pytest

from backprop.scheduler.governor.forecast import Job, forecast, median, spread_of, total_of
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
    share = sum(truth <= latest for truth, _, latest in told) / len(told)
    assert eta.GOAL[0] <= share <= eta.GOAL[1], share
