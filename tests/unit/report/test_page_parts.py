"""Parts of the page and of the terminal's plots: contrast, markup, parameters, curves."""

import io
import math
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest

from backprop.cli.render.plots import Curve, Style, plot, short, sparkline, style_of, thinned, width_of
from backprop.cli.render.tables import STATE_STYLE
from backprop.cli.report import palette
from backprop.cli.report.books import Account
from backprop.cli.report.markup import element, said
from backprop.cli.report.night import Standings
from backprop.cli.report.sweep import marginals, parameters
from backprop.scheduler.lifecycle import State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from tests.support.nights import HOSTILE

TEXT_LEAST, GRAPHICS_LEAST = 4.5, 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11, level AA."""


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_every_colour_can_be_read(colours: dict[str, str]) -> None:
    for ground in ("bg", "card"):
        for name in {"text", "muted", *palette.STATES.values()}:
            assert contrast(colours[name], colours[ground]) >= TEXT_LEAST, (name, ground)
        for name in {*palette.OUTCOMES.values(), *palette.ACCOUNTS.values(), palette.ALIVE}:
            assert contrast(colours[name], colours[ground]) >= GRAPHICS_LEAST, (name, ground)
    assert colours.keys() == palette.LIGHT.keys()


def test_every_outcome_account_and_state_has_a_colour() -> None:
    assert set(palette.STATES) == set(STATE_STYLE) == set(State)
    assert palette.OUTCOMES.keys() == {outcome.value for outcome in SegmentOutcome}
    assert palette.ACCOUNTS.keys() == {account.value for account in Account}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append(tag)

    Reader().feed(element("p", said(text), title=text))
    assert seen == ["p"]
    assert "\u202e" not in said(text)


def test_said_cuts_by_columns() -> None:
    assert said("中文運行名稱", 5) == "中文…"
    assert said("a&b", 9) == "a&amp;b"


# Parameters


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--lr", "3e-4", "--amp", "--depth=8"), {"lr": "3e-4", "depth": "8"}),
        (("--shift", "-1", "--last"), {"shift": "-1"}),
        (("model.lr=0.1", "+seed=2", "notes.txt"), {"model.lr": "0.1", "seed": "2"}),
        (("--amp", "--lr", "1"), {"lr": "1"}),
        ((), {}),
    ],
)
def test_the_options_of_a_command_are_its_parameters(words: tuple[str, ...], wanted: dict[str, str]) -> None:
    assert parameters(("python", "train.py", *words)) == wanted


def ranked(*given: tuple[str, float]) -> Standings:
    places: Any = [
        (SimpleNamespace(spec=SimpleNamespace(argv=("python", "t.py", *words.split()))), value)
        for words, value in given
    ]
    return Standings("loss", False, places)


def test_each_value_of_a_parameter_is_told_apart() -> None:
    found = marginals(ranked(("--lr 1 --out a", 3.0), ("--lr 1 --out b", 1.0), ("--lr 2 --out c", 5.0)))
    assert [one.name for one in found] == ["lr"], "an output folder of its own says nothing"
    assert [(row.value, row.runs, row.best, row.median) for row in found[0].marginals] == [
        ("1", 2, 1.0, 2.0),
        ("2", 1, 5.0, 5.0),
    ]
    assert marginals(ranked(("--lr 1", 1.0), ("--lr 1", 2.0))) == []


# Curves in the terminal


def test_a_sparkline_shows_means_and_blanks() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 8, 8], 2) == "▁█"
    assert sparkline([1.0, None, math.nan, 1.0], 4) == "▁  ▁"
    assert sparkline([50], 4, 0, 100, plain=True) == "+"
    assert sparkline([], 4) == ""
    assert sparkline([1.7e308, 1.7e308, 1, 2], 2) == " ▁"


def test_a_plot_joins_its_points_and_marks_segments() -> None:
    lines = plot([Curve("a", [(0, 0), (1, 1), (2, 2)], ticks=[1])], 40, 4, "step")
    assert len(lines) == 6
    assert lines[0].startswith("      2 │") and lines[0].endswith("⠉")
    assert lines[3].startswith("      0 │⣀")
    assert lines[4].strip() == "└" + "─" * 15 + "┬" + "─" * 15
    assert lines[5].split() == ["0", "2", "step"]


@pytest.mark.parametrize("width", [10, 80, 120, 200])
def test_a_plot_keeps_to_its_width(width: int) -> None:
    points = [(float(x), math.sin(x / 9) * 1e9) for x in range(300)]
    for style in (Style(), Style(plain=True)):
        lines = plot([Curve("a", points), Curve("b", [(0, 5.0)])], width, 12, "step", style)
        assert max(map(len, lines)) <= max(width, 30)
        assert style.plain == all(line.isascii() for line in lines)


@pytest.mark.parametrize(
    "points",
    [
        [(1, 1)],
        [(1, 1), (1, 1)],
        [(0, math.inf), (1, 2)],
        [(-5, -3), (-5, -3)],
        [(0, 1.7e308), (1, -1.7e308), (2, 1)],
        [(0, 5e-324), (1, 0)],
    ],
)
def test_a_plot_of_hardly_anything(points: list[tuple[float, float]]) -> None:
    assert len(plot([Curve("a", points)], 80, 6)) == 8
    assert plot([Curve("a", [(0, math.nan)])], 80, 6) == ["no values"]


def test_numbers_are_short() -> None:
    assert [short(one) for one in (0, 12, 1_234_567, 0.000012345, -1234.5678, 1e300)] == [
        "0", "12", "1.2e+06", "1.2e-05", "-1235", "1e+300",
    ]  # fmt: skip
    assert thinned([(x, x) for x in range(10)], 4) == [(0, 0), (3, 3), (6, 6), (9, 9)]


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert style_of(Tty()) == Style(colour=True)
    assert style_of(io.TextIOWrapper(io.BytesIO(), "utf-8")) == Style()
    assert style_of(io.TextIOWrapper(io.BytesIO(), "ascii")) == Style(plain=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert style_of(Tty()) == Style()
    monkeypatch.setenv("TERM", "dumb")
    assert style_of(Tty()) == Style(plain=True)


@pytest.mark.parametrize(("columns", "wanted"), [("20", 80), ("80", 80), ("133", 133), ("500", 200)])
def test_the_width_is_between_80_and_200(monkeypatch: pytest.MonkeyPatch, columns: str, wanted: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert width_of(Tty()) == wanted
    monkeypatch.delenv("COLUMNS")
    assert width_of(io.StringIO()) == 80
