"""The frame of `top` fits every screen, with any number of runs and GPUs, any names, with and without colours."""

import re

import pytest
from rich.cells import cell_len

from backprop.cli.live.screen import EventLine, GpuLine, RunLine, Screen, draw
from backprop.cli.live.watch import frame
from backprop.cli.render.glyphs import ASCII, UNICODE, Glyphs

SIZES = [(80, 24), (120, 40), (200, 50), (40, 10)]
NAMES = ("lr=1e-3,seed=0", "実験・学習率", "🚀 run", "ü" * 64, "a\x1b[2Jb", "[bold]x[/bold]")
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def screen(runs: int, gpus: int) -> Screen:
    live = min(runs, 2)
    return Screen(
        0.0,
        [("running", live), ("queued", runs - live), ("failed", 1)] if runs else [],
        [
            GpuLine(at, "NVIDIA RTX 4090", 99, 12800, 23552, 60 + 4 * at, 85, [at * 9] * 60)
            for at in range(gpus)
        ],
        [
            RunLine(
                f"r{at}",
                NAMES[at],
                "running",
                2,
                "7:22 left",
                0.3,
                "4,900",
                61,
                "0.544",
                [3.0, 2.0, 1.0],
                "≈03:27",
            )
            for at in range(live)
        ],
        [
            RunLine(f"q{at}", NAMES[at % 6], "queued", 0, f"next {at + 1}", eta="?")
            for at in range(min(runs - live, 60))
        ],
        runs - live,
        [EventLine(0.0, "lr0.001-s4", "again", "timeboxed: segment 2, 10:00")] * 8 if runs else [],
        "27 of 30 by 08:00, all by ≈09:40 (10:05 at the latest, nine times of ten)" if runs else None,
        host="3.1 GiB RAM free · load 2.0/8",
    )


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["utf-8", "ascii"])
@pytest.mark.parametrize("gpus", [0, 1, 8])
@pytest.mark.parametrize("runs", [0, 1, 30, 100_000])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_fits(size: tuple[int, int], runs: int, gpus: int, glyphs: Glyphs) -> None:
    width, height = size
    for colour in (False, True):
        lines = draw(screen(runs, gpus), width, height, glyphs, colour)
        assert len(lines) <= height
        plain = [ESCAPE.sub("", line) for line in lines]
        assert all(cell_len(line) <= width for line in plain), plain
        assert "\x1b" not in "".join(plain)
        assert ("\x1b" in "".join(lines)) == colour
        if glyphs is ASCII:
            # rich's own ellipsis is the one sign beyond; where a name is cut.
            assert "".join(plain).replace("…", "").isascii()
        assert plain[0].startswith("backprop ")
        if runs == 0:
            assert "nothing is queued" in "\n".join(plain)
        if runs:
            assert "7:22 left" in "\n".join(plain) or width < 80


SMALL = """\
backprop Thu 00:00:00  2 running · 28 queued · 1 failed   3.1 GiB RAM free · loa
27 of 30 by 08:00, all by ≈09:40 (10:05 at the latest, nine times of ten)
GPU 0 NVIDIA RTX … ━━━━━━━━  99 %  ━━━━──── 12.5/23.0 GiB  60 °C/85  ▁▁▁▁▁▁▁▁▁▁▁

RUN            STATE   SEG THIS BOX            STEP  %  LOSS CURVE           ETA
"""


def test_the_frame_of_a_small_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    lines = draw(screen(30, 1), 80, 24, UNICODE, False)
    head = SMALL.splitlines()
    assert lines[1] == head[1]
    assert lines[2].startswith(head[2][:60])
    assert lines[4].split() == head[4].split()
    assert lines[5].split()[:2] == ["lr=1e-3,seed=0", "running"]
    assert "━━" in lines[5]
    assert lines[5].rstrip().endswith("≈03:27")
    assert any(line.startswith("… ") and line.endswith(" more queued") for line in lines)
    assert lines[-1].endswith("timeboxed: segment 2, 10:00")


def test_gpus_fold_then_events_go_then_what_is_next() -> None:
    many = draw(screen(30, 8), 80, 24, UNICODE, False)
    assert sum(line.startswith("GPU ") for line in many) == 0
    assert any(line.startswith("8 GPUs ") for line in many)
    assert sum(line.startswith("GPU ") for line in draw(screen(30, 8), 200, 50, UNICODE, False)) == 8
    low = draw(screen(30, 8), 80, 10, UNICODE, False)
    assert "timeboxed" not in "\n".join(low)
    assert "next 1" in "\n".join(low)
    lowest = draw(screen(30, 8), 80, 7, UNICODE, False)
    assert "next 1" not in "\n".join(lowest)
    assert "running" in "\n".join(lowest)


def test_curves_and_bars() -> None:
    assert UNICODE.curve([4, 3, 2, 1], 4) == "█▆▃▁"
    assert UNICODE.curve([1, float("nan"), 1], 9) == "▁▁"
    assert UNICODE.curve([], 4) == ASCII.curve([1], 0) == ""
    assert UNICODE.curve([0, 50, 100], 3, top=100) == "▁▅█"
    assert UNICODE.bar(0.5, 4) == ("━━", "──")
    assert ASCII.bar(7.0, 4) == ("####", "")
    assert ASCII.text("≈03:27 … 74 °C 実") == "~03:27 ... 74 C \\u5b9f"


def test_a_frame_replaces_the_screen_in_place() -> None:
    assert frame(["a", "b", "c"], 2) == "\x1b[Ha\x1b[K\nb\x1b[K\x1b[J"
