"""Which members of a group go on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backprop.scheduler.successive_halving import Candidate, is_due, rank


def of(*values: float | None, segments: int = 3) -> list[Candidate]:
    return [Candidate(f"r{number}", segments, value) for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("segments", "rounds", "due"),
    [
        ((3, 3, 3), (0, 0, 0), True),
        ((3, 2, 3), (0, 0, 0), False),
        ((5, 4, 3), (0, 0, 0), True),
        ((5, 4, 3), (1, 1, 1), False),
        ((6, 6, 6), (1, 1, 1), True),
        ((9, 9), (0, 0), True),
        ((0, 0), (0, 0), False),
        ((9,), (0,), False),
        ((), (), False),
    ],
)
def test_a_round_is_due_once_every_member_has_had_its_segments(
    segments: tuple[int, ...], rounds: tuple[int, ...], due: bool
) -> None:
    both = zip(segments, rounds, strict=True)
    assert is_due([Candidate(str(n), had, 1.0, was) for n, (had, was) in enumerate(both)], 3) is due


def test_who_comes_to_a_group_that_had_rounds_has_those_of_its_own_to_come() -> None:
    def due(*members: tuple[int, int]) -> bool:
        return is_due([Candidate(str(n), had, 1.0, rounds) for n, (had, rounds) in enumerate(members)], 3)

    assert due((3, 0), (3, 0)), "whatever rounds others had before them"
    assert not due((6, 2), (3, 0)), "nor is one that was ranked twice asked for a third time at once"
    assert due((9, 2), (3, 0))


def test_the_best_share_is_kept_and_who_has_no_value_comes_last() -> None:
    places = rank(of(0.3, None, 0.1, math.nan, 0.2), 0.5, highest=False)
    assert [(one.run_id, one.kept) for one in places] == [
        ("r2", True), ("r4", True), ("r0", True), ("r1", False), ("r3", False),
    ]  # fmt: skip
    assert [one.run_id for one in rank(of(0.3, 0.1, 0.2), 0.3, highest=True) if one.kept] == ["r0"]
    assert [one.kept for one in rank(of(None, 0.5), 0.5, highest=False)] == [True, False]


def test_where_nobody_has_a_value_nobody_is_stopped() -> None:
    """The name of the metric is wrong, say: to keep the first ones would be to throw dice."""
    assert [one.kept for one in rank(of(None, None, None), 0.5, highest=False)] == [True, True, True]
    assert [one.kept for one in rank(of(math.nan, None), 0.5, highest=False)] == [True, False]


@given(
    st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=40),
    st.floats(min_value=0.01, max_value=0.99),
    st.booleans(),
)
def test_somebody_always_goes_on_and_nobody_worse_than_one_who_is_stopped(
    values: list[float | None], share: float, highest: bool
) -> None:
    places = rank(of(*values), share, highest)
    assert sorted(one.run_id for one in places) == sorted(one.run_id for one in of(*values))
    kept = [one.value for one in places if one.kept]
    stopped = [
        one.value for one in places if not one.kept and one.value is not None and math.isfinite(one.value)
    ]
    most = len(values) if all(value is None for value in values) else math.ceil(len(values) * share + 1e-6)
    assert 1 <= len(kept) <= most
    for value in stopped:
        assert all(one is not None and (one >= value if highest else one <= value) for one in kept)
