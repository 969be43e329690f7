"""A group's goal and limit: what is read, what meets them, and in which words."""

import pytest

from backprop.scheduler.outcome.group_budget import parse_goal, why_met, why_out, why_used_up


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("val_bpb<0.98", 0.97, True),
        ("val_bpb<0.98", 0.98, False),
        (" val_bpb <= 0.98 ", 0.98, True),
        ("eval/acc top-1>=9e-1", 0.9, True),
        ("reward>-1.5", -1.6, False),
        ("loss<1", float("nan"), False),
    ],
)
def test_a_goal_is_met_by_values_beyond_its_bound(text: str, value: float, met: bool) -> None:
    assert parse_goal(text).is_met_by(value) is met


@pytest.mark.parametrize("text", ["val_bpb<0.98", "a b>=-3e-05", "x>1"])
def test_a_goal_is_kept_as_it_was_given(text: str) -> None:
    assert str(parse_goal(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a<",
        "<0.98",
        "a=0.98",
        "a<b",
        "a<1<2",
        "a<1e",
        "a<1e999",
        "a<nan",
        "a\x1b<1",
        "a" * 129 + "<1",
    ],
)
def test_what_is_no_goal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not"):
        parse_goal(text)


def test_reasons_begin_with_a_short_head() -> None:
    met = why_met(parse_goal("val_bpb<0.98"), "3fa2", 0.9712)
    used = why_used_up(3600.0, 3600.0)
    assert met == "goal met: val_bpb 0.9712 of 3fa2 is < 0.98"
    assert used == "budget used up: its group has run for 60 of 60 minutes"
    assert why_used_up(3599.0, 3600.0) is None
    for reason in map(why_out, (met, used, "place 3 of 4")):
        assert len(reason.partition(":")[0]) <= 24
    assert [why_out(met), why_out("place 3 of 4")] == [met, "outranked: place 3 of 4"]
