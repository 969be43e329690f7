"""A line of the worker's pane: the same words everywhere, signs and colours where they can be shown."""

import re

import pytest

from backprop.worker.console.pane import PaneLook, line, plain

COLOURS = re.compile(r"\x1b\[\d+m")
MORE = "segment 2, 10 min, step 4,900, loss 0.544: its timebox of 10 min is over; it saved /data/ckpt/step-4900.pt"


def shown(what: str, look: PaneLook, name: str = "lr=0.1") -> str:
    return line("22:05:01", what, name, "31f2f1d0", MORE, look)


def test_name_first_and_the_word_in_a_column() -> None:
    assert shown("requeued", PaneLook()) == f"22:05:01 ↻ lr=0.1 (31f2f1d0)     requeued    {MORE}"
    assert shown("completed", PaneLook(), "a name of twenty and more").startswith(
        "22:05:01 ✓ a name of twenty and more (31f2f1d0)  completed   segment 2"
    )
    assert line("22:05:01", "ready", "", "", "worker 1", PaneLook()) == "22:05:01   ready       worker 1"
    assert line("22:05:01", "hook", "", "", "", PaneLook()) == "22:05:01   hook"


def test_plain_words_where_the_terminal_knows_ascii_alone() -> None:
    for what in ("completed", "requeued", "failed", "trouble"):
        said = shown(what, PaneLook(signs=False))
        assert said.isascii()
        assert f"  {what} " in said


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_broken_between_words_below_the_name(width: int) -> None:
    first, *rest = shown("requeued", PaneLook(width=width)).splitlines()
    assert all(len(one) <= width for one in (first, *rest))
    assert all(one.startswith(" " * 11) and one[11] != " " for one in rest)
    assert " ".join(one.strip() for one in (first, *rest)).split() == shown("requeued", PaneLook()).split()


def test_other_lines_are_broken_too() -> None:
    words = plain("one two " * 8, PaneLook(width=40)).splitlines()
    assert words == ["one two one two one two one two one two", "one two one two one two"]
    assert plain("", PaneLook(width=40)) == ""
    assert plain("a " * 90, PaneLook()) == "a " * 90


def test_a_path_stays_whole() -> None:
    path = "/data/" + "deep/" * 20 + "x.pt"
    assert path in line("22:05:01", "started", "a", "1", f"from {path}", PaneLook(width=60))


@pytest.mark.parametrize("what", ["completed", "requeued", "failed", "timeboxed", "started", "held", "hook"])
@pytest.mark.parametrize("width", [None, 45, 80])
def test_colours_change_no_word(what: str, width: int | None) -> None:
    painted = shown(what, PaneLook(width=width, colour=True))
    assert COLOURS.sub("", painted) == shown(what, PaneLook(width=width))
    assert "\x1b[1mlr=0.1\x1b[0m" in painted
