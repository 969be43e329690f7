"""Tailing a real file: complete lines once each, whatever the writer or the user does to the file."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backprop.worker.segments.tail import MAX_LINE, Tail, failure_line
from tests.support.harness import program


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_only_complete_lines_advance_the_offset(log: Path) -> None:
    with Tail(log) as tail:
        assert tail.read() == []
        assert tail.at_end
        append(log, b"one\ntw")
        assert tail.read() == [b"one"]
        assert tail.offset == 4
        append(log, b"o\r\n\nthree")
        assert tail.read() == [b"two\r", b""]
        assert tail.read() == []
        assert tail.offset == 10


def test_another_process_goes_on_at_the_offset(log: Path) -> None:
    append(log, b"one\ntwo\nhalf")
    with Tail(log) as first:
        first.read(max_bytes=5)
    append(log, b" whole\n")
    with Tail(log, first.offset) as second:
        assert second.read() == [b"two", b"half whole"]


def test_a_read_is_bounded_and_says_whether_there_is_more(log: Path) -> None:
    append(log, b"0123456789\n" * 1000)
    with Tail(log) as tail:
        first = tail.read(max_bytes=110)
        assert (len(first), tail.at_end) == (10, False)
        assert len(tail.read()) == 990
        assert tail.at_end


def test_the_rest_is_the_line_a_killed_writer_left(log: Path) -> None:
    append(log, b'done\n{"step":3}')
    with Tail(log) as tail:
        assert tail.read() == [b"done"]
        assert tail.rest() == b'{"step":3}'
        assert tail.offset == 15
        assert tail.rest() == b""
        assert tail.read() == []


@pytest.mark.parametrize("extra", [0, 1, 3 * MAX_LINE])
def test_a_line_over_the_limit_is_skipped(log: Path, extra: int) -> None:
    append(log, b"before\n" + b"x" * (MAX_LINE + extra) + b"\nafter\n")
    with Tail(log) as tail:
        lines = tail.read()
    assert [line for line in lines if len(line) < 10] == [b"before", b"after"]
    assert len(lines) == (2 if extra else 3)
    assert tail.offset == log.stat().st_size


def test_the_end_of_a_line_over_the_limit_is_no_line_after_a_restart(log: Path) -> None:
    append(log, b"before\n" + b"x" * (2 * MAX_LINE))
    with Tail(log) as first:
        assert first.read() == [b"before"]
        assert first.rest() == b"", "too long for a line"
    with Tail(log, 7) as second:
        second.read()
        append(log, b'{"step":1}\nafter\n')
        assert second.read() == [b"after"]


def test_a_truncated_file_is_read_from_its_start(log: Path) -> None:
    append(log, b"old 1\nold 2\nhal")
    with Tail(log) as tail:
        tail.read()
        log.write_bytes(b"")
        assert tail.read() == []
        append(log, b"new\n")
        assert tail.read() == [b"new"]
        assert tail.offset == 4
    with Tail(log, 1000) as restarted:
        assert restarted.read() == [b"new"]


def test_the_writers_file_is_followed_when_its_name_is_taken(log: Path) -> None:
    """The run's output goes on into the file it has open; a new file of that name is not its word."""
    with log.open("ab", buffering=0) as writer, Tail(log) as tail:
        assert not tail.replaced()
        writer.write(b"one\n")
        assert tail.read() == [b"one"]
        log.unlink()
        assert tail.replaced()
        log.write_bytes(b'{"event":"checkpoint_saved","path":"forged"}\n')
        writer.write(b"two\n")
        assert tail.read() == [b"two"]
        assert tail.replaced()


def test_what_is_not_a_regular_file_has_no_lines(log: Path) -> None:
    with Tail(log) as tail:
        os.mkfifo(log)
        assert tail.read() == []
        log.unlink()
        log.symlink_to("/etc/passwd")
        assert tail.read() == []
        assert failure_line(log) is None
        log.unlink()
        log.mkdir()
        assert tail.read() == []
        log.rmdir()
        append(log, b"now\n")
        assert tail.read() == [b"now"]


def test_no_descriptor_is_left_open(log: Path) -> None:
    append(log, b"x\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    tail = Tail(log)
    tail.read()
    tail.close()
    tail.close()
    failure_line(log)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_hundred_megabytes_on_one_line_cost_little_memory(log: Path) -> None:
    with log.open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 1024 * 1024)
        file.write(b"\nafter\n")
    done = subprocess.run([*program("tail_one_line"), log], capture_output=True, text=True, check=True)
    log.unlink()
    assert int(done.stdout) < 20 * 1024, "KiB more at the peak"


def test_every_line_of_a_concurrent_writer_arrives_once(log: Path) -> None:
    wanted = [b"line %d " % n + b"." * (n % 300) for n in range(3000)]

    def write() -> None:
        with log.open("ab", buffering=0) as file:
            for line in wanted:
                file.write(line[:5])
                file.write(line[5:] + b"\n")

    writer = threading.Thread(target=write)
    got: list[bytes] = []
    offset = 0
    writer.start()
    end = time.monotonic() + 30
    while len(got) < len(wanted):
        assert time.monotonic() < end, f"saw {len(got)} lines"
        with Tail(log, offset) as tail:
            got += tail.read(max_bytes=4096)
            got += tail.read(max_bytes=4096)
            offset = tail.offset
    writer.join()
    assert got == wanted


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=12) | st.just(b"\n"), max_size=12), st.integers(1, 7))
def test_any_bytes_split_anywhere(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], bound: int
) -> None:
    log = tmp_path_factory.mktemp("tail") / "log"
    got: list[bytes] = []
    with Tail(log) as tail:
        for piece in pieces:
            append(log, piece)
            got += tail.read(max_bytes=bound)
        while True:
            got += tail.read(max_bytes=bound)
            if tail.at_end:
                break
        last = tail.rest()
    assert b"\n".join([*got, last]) == b"".join(pieces)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        (b"", None),
        (b"\n \r\n\n", None),
        (b"one\ntwo\n\n", "two"),
        (b"10%\r20%\r100%", "100%"),
        (b"caf\xff\n", "caf\ufffd"),
        (b"x" * 200_000, "x" * 65536),
        (b"x" * 200_000 + b"\nend\n", "end"),
    ],
)
def test_the_last_line_of_text_stands_for_an_error(log: Path, text: bytes, last: str | None) -> None:
    log.write_bytes(text)
    assert failure_line(log) == last


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("raise ValueError('bad')", "ValueError: bad"),
        ("raise ValueError('bad\\nand more')", "ValueError: bad"),
        ("assert False", "AssertionError"),
        ("x = = 1", "SyntaxError: invalid syntax"),
        ("try: 1/0\nexcept Exception as e: raise RuntimeError('later') from e", "RuntimeError: later"),
        ("raise ExceptionGroup('several', [ValueError('a')])", "ExceptionGroup: several (1 sub-exception)"),
        ("import atexit; atexit.register(print, 'bye'); {}['k']", "KeyError: 'k'"),
        ("import sys; print('no such GPU'); sys.exit(3)", "no such GPU"),
        ("import sys; sys.exit(3)", None),
    ],
)
def test_what_a_failed_script_says_went_wrong(log: Path, code: str, line: str | None) -> None:
    with log.open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, stderr=file, check=False)
    assert failure_line(log) == line


def test_the_ranks_own_error_is_preferred_to_its_launchers(log: Path) -> None:
    log.write_text(
        "[rank0]: Traceback (most recent call last):\n"
        '[rank0]:   File "train.py", line 3, in <module>\n'
        "[rank1]: Traceback (most recent call last):\n"
        "[rank0]: RuntimeError: CUDA error: out of memory\n"
        "Traceback (most recent call last):\n"
        '  File "torchrun", line 8, in <module>\n'
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
        "====\ntrain.py FAILED\n"
    )
    assert failure_line(log) == "RuntimeError: CUDA error: out of memory"
    assert failure_line(log.parent / "missing") is None
