"""Which members of a group go on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backprop.scheduler.ranking import Candidate, due_round, rank


def of(*values: float | None, segments: int = 3) -> list[Candidate]:
    return [Candidate(f"r{number}", segments, value) for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("segments", "every", "decided", "due"),
    [
        ((3, 3, 3), 3, 0, 1),
        ((3, 2, 3), 3, 0, None),
        ((5, 4, 3), 3, 0, 1),
        ((5, 4, 3), 3, 1, None),
        ((6, 6, 6), 3, 1, 2),
        ((9, 9), 3, 0, 1),
        ((0, 0), 3, 0, None),
        ((9,), 3, 0, None),
        ((), 3, 0, None),
    ],
)
def test_a_round_is_due_once_every_member_has_had_its_segments(
    segments: tuple[int, ...], every: int, decided: int, due: int | None
) -> None:
    candidates = [Candidate(str(number), one, 1.0) for number, one in enumerate(segments)]
    assert due_round(candidates, every, decided) == due


def test_the_best_share_is_kept_and_who_has_no_value_comes_last() -> None:
    places = rank(of(0.3, None, 0.1, math.nan, 0.2), 0.5, highest=False)
    assert [(one.run_id, one.kept) for one in places] == [
        ("r2", True), ("r4", True), ("r0", True), ("r1", False), ("r3", False),
    ]  # fmt: skip
    assert [one.run_id for one in rank(of(0.3, 0.1, 0.2), 0.3, highest=True) if one.kept] == ["r0"]
    assert [one.kept for one in rank(of(None, None), 0.5, highest=False)] == [True, False]


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
    assert 1 <= len(kept) <= math.ceil(len(values) * share + 1e-6)
    for value in stopped:
        assert all(one is not None and (one >= value if highest else one <= value) for one in kept)
