"""The output boundary: nothing a run says can drive the terminal."""

import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backprop.cli.render.terminal_text import Colours, safe

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
INERT = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def colours_only(data: bytes) -> bytes:
    colours = Colours()
    return colours.feed(data) + colours.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("train.py --lr 0.1", "train.py --lr 0.1"),
        ("größe ✓ 日本 a\u00a0b", "größe ✓ 日本 a\u00a0b"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b2J", "\\x9b2J"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("line\nnext\ttab\r", "line\\nnext\\ttab\\r"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800", "\\ud800"),
        ("\ue000", "\\ue000"),
        ("\U000e0041\U0010ffff", "\\U000e0041\\U0010ffff"),
        ("\0\x7f", "\\x00\\x7f"),
    ],
)
def test_what_is_invisible_is_spelled_out(text: str, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("\x1b[31m", 5, "\\x1b…"),
        ("ab", 1, "…"),
        ("a", 1, "a"),
        ("ab", 0, ""),
        ("", 0, ""),
    ],
)
def test_width_is_columns(text: str, width: int, shown: str) -> None:
    assert safe(text, width) == shown


def test_neither_length_nor_combining_marks_can_grow_it() -> None:
    assert len(safe("x" * 10_000_000, 20)) == 20
    assert len(safe("e" + "\u0301" * 10_000, 20)) == 20


@relaxed
@given(st.text(), st.integers(0, 40))
def test_nothing_invisible_is_left(text: str, width: int) -> None:
    for shown in (safe(text), safe(text, width)):
        assert not any(unicodedata.category(char) in INERT for char in shown)
        shown.encode()
    columns = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in safe(text, width))
    assert columns <= width
    assert safe(text, 10_000) == safe(text)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain\r\n\ttext\n", b"plain\r\n\ttext\n"),
        ("größe ✓ ████".encode(), "größe ✓ ████".encode()),
        (b"\x1b[1;31mred\x1b[0m", b"\x1b[1;31mred\x1b[0m"),
        (b"\x1b[38:2::1:2:3mred\x1b[m", b"\x1b[38:2::1:2:3mred\x1b[m"),
        (b"\x1b[31mleft on", b"\x1b[31mleft on\x1b[0m"),
        (b"\x1b[2J\x1b[H\x1b[?25l\x1b[10A\x1b[Kup", b"up"),
        (b"\x1b[>4;2mnot a colour", b"not a colour"),
        (b"\x1b]0;title\x07", b"\\x1b]0;title\\x07"),
        (b"\x1b]52;c;aGk=\x1b\\", b"\\x1b]52;c;aGk=\\x1b\\"),
        (b"\x1bc\x1bP1q", b"\\x1bc\\x1bP1q"),
        (b"\xc2\x9b2J", b"\\x9b2J"),
        (b"\x9b2J", "\ufffd2J".encode()),
        ("a\u202eb".encode(), b"a\\u202eb"),
        (b"a\x08\x07\x00", b"a\\x08\\x07\\x00"),
        (b"\x1b", b"\\x1b"),
        (b"\x1b[" + b"1" * 100 + b"m", b"\\x1b[" + b"1" * 100 + b"m"),
        (b"\x1b[31\x1b[2Jm", b"\\x1b[31m"),
    ],
)
def test_colours_pass_and_nothing_else(data: bytes, shown: bytes) -> None:
    assert colours_only(data) == shown


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_sequence_cut_in_two_is_not_let_through(size: int) -> None:
    data = "ö\x1b[31mred\x1b[0m\x1b[2J\x1b]0;t\x07✓\x1b[12;1".encode()
    colours = Colours()
    shown = b"".join(colours.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert shown + colours.close() == "ö\x1b[31mred\x1b[0m\\x1b]0;t\\x07✓\\x1b[12;1".encode()


_pieces = st.sampled_from(
    [
        b"\x1b",
        b"[",
        b"]",
        b"0",
        b"31",
        b";",
        b"m",
        b"J",
        b"\x07",
        b"\n",
        b"\xc2",
        b"\x9b",
        b"\xe2\x80\xae",
        b" ",
        b"?",
        b"1" * 70,
    ]
)


@relaxed
@given(st.lists(_pieces | st.binary(max_size=4), max_size=20))
def test_any_bytes_however_cut(pieces: list[bytes]) -> None:
    colours = Colours()
    shown = b"".join(map(colours.feed, pieces)) + colours.close()
    assert shown == colours_only(b"".join(pieces))
    without_colours = re.sub(r"\x1b\[[0-9;:]*m", "", shown.decode())
    assert not any(unicodedata.category(char) in INERT for char in without_colours if char not in "\n\t\r")
