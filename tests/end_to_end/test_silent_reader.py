"""A terminal that is stopped or a pipe that nobody reads: no run waits for it, and the worker obeys its signals."""

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bare_supervisor import state
from tests.support.harness import COMMAND, QUIET_LIMITS, SCRIPTS, Bench, wait_until

TRAINER = str(SCRIPTS / "trainer.py")
SAVED = "checkpoint_saved"


def fill(path: str) -> None:
    """Write to a terminal or FIFO until it takes no more."""
    handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(handle, b"." * 256)
    os.close(handle)


@pytest.fixture
def terminal() -> Iterator[str]:
    main, side = os.openpty()
    yield os.ttyname(side)
    os.close(side)
    os.close(main)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    handle = os.open(path, os.O_RDWR)
    yield str(path)
    os.close(handle)


def printing_to(path: str, command: str = f'exec {COMMAND} "$@"') -> tuple[str, ...]:
    """Return what stands in for `backprop`, and prints to `path`."""
    return ("sh", "-c", f"exec >{shlex.quote(path)} 2>&1; {command}", "sh")


@pytest.mark.parametrize(("where", "number"), [("terminal", signal.SIGINT), ("pipe", signal.SIGTERM)])
def test_runs_begin_and_end_on_time_and_signals_are_obeyed(
    bench: Bench, request: pytest.FixtureRequest, where: str, number: signal.Signals
) -> None:
    path: str = request.getfixturevalue(where)
    box = ("-m", "0.0167", "--grace-seconds", "1", "--no-auto-resume")
    runs = [bench.queue(*box, TRAINER) for _ in range(2)]
    fill(path)
    worker = bench.worker("--max-parallel", "1", "--verbose", command=printing_to(path))
    for run in runs:
        seen = bench.wait_for(run, "timeboxed", timeout_s=20)
        assert seen["segments"][0]["running_s"] < 4
    last = bench.queue(TRAINER)
    bench.wait_for_log(last, SAVED)
    worker.send_signal(number)
    assert worker.wait(timeout=20) == 0
    assert bench.state(last) == "queued"


def test_a_worker_in_the_background_of_its_terminal_is_not_stopped_for_a_line(
    bench: Bench, terminal: str
) -> None:
    run = bench.queue(TRAINER, "--", "--steps", "5")
    command = f'stty tostop; set -m; {COMMAND} "$@" & wait'
    bench.worker("--drain", command=printing_to(terminal, f"exec <{terminal}; {command}"))
    bench.wait_for(run, "completed", timeout_s=20)


def test_a_follower_whose_output_nobody_takes_works_on(bench: Bench, pipe: str) -> None:
    """It is its own worker. The run goes through its segments; only what is printed is not shown."""
    words = f"run --follow -m 0.0167 --at-timebox end {' '.join(QUIET_LIMITS)} {TRAINER} -- --steps 80"
    follower = bench.worker(command=printing_to(pipe, f"exec {COMMAND} {words}"))
    wait_until(lambda: bench.home.is_dir() and bench.runs())
    (run,) = (one["id"] for one in bench.runs())
    bench.wait_for_log(run, "begins")
    fill(pipe)
    seen = bench.wait_for(run, "completed")
    assert len(seen["segments"]) > 1
    follower.send_signal(signal.SIGINT)
    assert follower.wait(timeout=20) is not None


def test_ctrl_c_between_a_followers_last_tick_and_its_end_is_obeyed(bench: Bench, pipe: str) -> None:
    words = f"run --follow {' '.join(QUIET_LIMITS)} {TRAINER} -- --steps 5"
    follower = bench.worker(
        command=printing_to(pipe, f"exec {COMMAND} {words}"), env={"BACKPROP_FAILPOINT": "stopping work:stop"}
    )
    wait_until(lambda: bench.home.is_dir() and bench.runs())
    fill(pipe)
    wait_until(lambda: state(follower.pid) == "T")
    follower.send_signal(signal.SIGINT)
    follower.send_signal(signal.SIGCONT)
    assert follower.wait(timeout=20) is not None
