"""What `--follow` does once stdout takes nothing more."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from backprop.cli.live.follow import _Output


def output(error: OSError, said: list[str]) -> tuple[_Output, list[str]]:
    calls: list[str] = []

    def fail(_: int | None) -> None:
        calls.append("pump")
        raise error

    stream: Any = SimpleNamespace(pump=fail, finish=fail)
    console: Any = SimpleNamespace(line=said.append)
    return _Output(stream, "r1", console), calls


def test_a_full_disk_is_said_once_and_the_run_is_followed_on() -> None:
    said: list[str] = []
    made, calls = output(OSError(errno.ENOSPC, "No space left on device"), said)
    for _ in range(3):
        made.pump(1)
    made.finish(None)
    assert calls == ["pump"]
    assert said == ["r1: its output cannot be shown any more: No space left on device; see backprop logs r1"]


def test_a_pipe_that_nobody_reads_ends_the_following() -> None:
    made, _ = output(BrokenPipeError(errno.EPIPE, "Broken pipe"), [])
    with pytest.raises(BrokenPipeError):
        made.pump(1)
