"""The worker's lines are written beside the worker: whoever does not read them keeps nobody waiting."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from pathlib import Path

import pytest

from backprop.worker.console.console import WAITING, Console
from tests.support.harness import wait_until

LINE = re.compile(r"line (\d+)\n")
LEFT_OUT = re.compile(r"… ([\d,]+) lines were not shown: the terminal took none\n")


class Pipe:
    """A pipe that nobody reads until `read`, and that takes no more."""

    def __init__(self, blocking: bool = True) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)
        self.filling = 0
        self.seen = b""
        try:
            while True:
                self.filling += os.write(self.writer, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(self.writer, blocking)

    def read(self, until: str) -> str:
        """Read on until `until`, and return everything so far but the filling."""

        def read_some() -> bool:
            with suppress(BlockingIOError):
                self.seen += os.read(self.reader, 1 << 20)
            return until.encode() in self.seen

        wait_until(read_some, saw=lambda: self.seen[-200:])
        return self.seen[self.filling :].decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reader)


def test_lines_that_nobody_takes_are_counted_and_delay_nobody(pipe: Pipe) -> None:
    with os.fdopen(pipe.writer, "w") as stream:
        console = Console(stream)
        begun_s = time.monotonic()
        for number in range(WAITING + 500):
            console.line(f"line {number}")
        assert time.monotonic() - begun_s < 1
        pipe.read(until="took none")
        console.line("line 9999")
        seen = pipe.read(until="9999")
        console.close()
    shown = [int(number) for number in LINE.findall(seen)]
    (left_out,) = LEFT_OUT.findall(seen)
    assert len(shown) + int(left_out.replace(",", "")) == WAITING + 500 + 1
    assert shown == [*range(len(shown) - 1), 9999], "in order, and what was left out is left out in one place"


def test_the_end_waits_for_a_second_at_most(pipe: Pipe) -> None:
    with os.fdopen(pipe.writer, "w") as stream:
        console = Console(stream)
        console.line("never read")
        begun_s = time.monotonic()
        console.close()
        assert time.monotonic() - begun_s < 3
        console.line("nor this")
        pipe.read(until="never read")


def test_a_terminal_that_somebody_made_non_blocking_loses_nothing() -> None:
    pipe = Pipe(blocking=False)
    with os.fdopen(pipe.writer, "w") as stream:
        console = Console(stream)
        for number in range(100):
            console.line(f"line {number}")
        seen = pipe.read(until="line 99")
        console.close()
    assert LINE.findall(seen) == [str(number) for number in range(100)]
    os.close(pipe.reader)


def test_a_reader_that_has_gone_is_done_without() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        console = Console(stream)
        for number in range(100):
            console.line(f"line {number}")
        begun_s = time.monotonic()
        console.close(30)
        assert time.monotonic() - begun_s < 10, "nothing was left to wait for"


def test_what_python_says_by_itself_becomes_lines(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        console = Console(stream)
        with redirect_stderr(console.complaints()):
            print("a warning", "of two words\nand the next", file=sys.stderr)
        console.close()
    told = [line[11:].split("  ") for line in (tmp_path / "out").read_text().splitlines()]
    assert [(words[0].strip(), words[-1].strip()) for words in told] == [
        ("trouble", "a warning of two words"),
        ("trouble", "and the next"),
    ]
