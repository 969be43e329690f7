"""How a training script learns by `import backprop` that it is to stop: signals, handlers, deadlines, forks."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import backprop
from backprop.worker.supervisor import process_tree
from tests.support.bare_supervisor import Stand
from tests.support.moved_clock import WallClock
from tests.support.sdk_scripts import environment, script

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@contextmanager
def started(code: str, **inside: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        env=environment(**inside),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


WAITS = """
import backprop, time
backprop.should_stop()
print("ready")
while not backprop.should_stop():
    time.sleep(0.01)
print("saving")
while True:
    time.sleep(0.1)
"""
"""Sleeps shortly: Python sleeps on where a signal comes just before its sleep begins."""


@pytest.mark.parametrize(
    ("name", "number"),
    [(None, 2), ("INT", 2), ("TERM", 15), ("USR1", 10), ("SIGUSR2", 12)],
)
def test_the_first_stop_signal_is_recorded_and_the_second_acts(name: str | None, number: int) -> None:
    inside = {"BACKPROP_STOP_SIGNAL": name} if name else {}
    with started(WAITS, BACKPROP_RUN_ID="r", **inside) as process:
        assert next_line(process) == "ready"
        process.send_signal(number)
        assert next_line(process) == "saving"
        process.send_signal(number)
        _, talk = process.communicate(timeout=10)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in talk) == (number == signal.SIGINT)


def test_the_deadline_asks_to_stop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKPROP_RUN_ID", raising=False)
    monkeypatch.setenv("BACKPROP_DEADLINE", "4000000000")
    assert backprop.should_stop() is False
    monkeypatch.setenv("BACKPROP_DEADLINE", "1000000000.25")
    assert backprop.should_stop() is True


@needs_gcc
@pytest.mark.parametrize("moved", ["ahead", "back", "slept"])
def test_the_deadline_stands_when_the_wall_clock_jumps_or_the_machine_sleeps(
    stand: Stand, tmp_path: Path, moved: str
) -> None:
    clock = WallClock(tmp_path)
    stand.environment |= clock.environment
    code = """
import backprop, os, time
began = time.time()
print(backprop.should_stop(), backprop.deadline() == float(os.environ["BACKPROP_DEADLINE"]), flush=True)
while abs(time.time() - began) < 1800:
    time.sleep(0.02)
print(backprop.should_stop(), 500 < backprop.deadline() - time.time() <= 600)
"""
    stand.order(sys.executable, "-c", code)
    stand.start()
    stand.wait_for_log("\n")
    {"ahead": clock.set, "back": clock.set, "slept": clock.sleep}[moved](-3600 if moved == "back" else 3600)
    assert stand.ended()["exit_code"] == 0, stand.log()
    assert stand.log() == "False True\nFalse True\n"


@pytest.mark.parametrize(
    ("steady", "told"),
    [
        ("0 {boot} 4000000000.000", True),
        ("0 {boot} 4000000001.000", False),  # somebody has set the other one since
        ("0 4000000000.000", False),
        ("0 another-machines-boot 4000000000.000", False),
        ("nan {boot} 4000000000.000", False),
        ("", False),
    ],
)
def test_the_monotonic_deadline_counts_on_its_machine_and_with_its_deadline_alone(
    monkeypatch: pytest.MonkeyPatch, steady: str, told: bool
) -> None:
    monkeypatch.delenv("BACKPROP_RUN_ID", raising=False)
    monkeypatch.setenv("BACKPROP_DEADLINE", "4000000000.000")
    monkeypatch.setenv("BACKPROP_DEADLINE_MONOTONIC", steady.format(boot=process_tree.boot_id()))
    assert backprop.should_stop() is told


def test_outside_backprop_a_signal_interrupts_as_ever() -> None:
    with started(WAITS) as process:
        assert next_line(process) == "ready"
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=10)[1]
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("own", ["lambda *_: None", "signal.SIG_IGN"])
def test_a_handler_of_the_script_is_left_alone(tmp_path: Path, own: str) -> None:
    code = f"""
import backprop, os, signal
own = {own}
signal.signal(signal.SIGINT, own)
assert not backprop.should_stop()
assert signal.getsignal(signal.SIGINT) is own
os.kill(os.getpid(), signal.SIGINT)
assert not backprop.should_stop()
"""
    script(code, tmp_path, BACKPROP_RUN_ID="r")


def test_a_handler_the_script_installs_later_stays(tmp_path: Path) -> None:
    code = """
import backprop, os, signal
backprop.should_stop()
ours = signal.getsignal(signal.SIGINT)
def chained(number, frame):
    ours(number, frame)
signal.signal(signal.SIGINT, chained)
os.kill(os.getpid(), signal.SIGINT)
assert backprop.should_stop()
assert signal.getsignal(signal.SIGINT) is chained
"""
    script(code, tmp_path, BACKPROP_RUN_ID="r")


def test_a_thread_may_ask_and_installs_nothing(tmp_path: Path) -> None:
    code = """
import backprop, os, signal, threading
answers = []
def ask():
    thread = threading.Thread(target=lambda: answers.append(backprop.should_stop()))
    thread.start()
    thread.join()
ask()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
backprop.should_stop()
os.kill(os.getpid(), signal.SIGINT)
ask()
print(answers)
"""
    assert script(code, tmp_path, BACKPROP_RUN_ID="r") == "[False, True]\n"


def test_a_forked_data_loader_can_be_terminated(tmp_path: Path) -> None:
    code = """
import backprop, multiprocessing, signal, time
backprop.should_stop()
loader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
loader.start()
loader.terminate()
loader.join(10)
print(loader.exitcode, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
loader.kill()
"""
    assert script(code, tmp_path, BACKPROP_RUN_ID="r", BACKPROP_STOP_SIGNAL="TERM") == "-15 False\n"


def test_a_forked_child_may_listen_for_itself(tmp_path: Path) -> None:
    code = """
import backprop, os, signal
backprop.should_stop()
os.kill(os.getpid(), signal.SIGINT)
assert backprop.should_stop()
child = os.fork()
if child == 0:
    first = backprop.should_stop()
    os.kill(os.getpid(), signal.SIGINT)
    os._exit(0 if (first, backprop.should_stop()) == (False, True) else 1)
print(os.waitpid(child, 0)[1])
"""
    assert script(code, tmp_path, BACKPROP_RUN_ID="r") == "0\n"


@pytest.mark.parametrize("name", ["KILL", "STOP", "NOSUCH", "_DFL", "15"])
def test_a_stop_signal_that_cannot_be_handled_is_harmless(tmp_path: Path, name: str) -> None:
    code = "import backprop; print(backprop.should_stop(), backprop.should_stop())"
    assert script(code, tmp_path, BACKPROP_RUN_ID="r", BACKPROP_STOP_SIGNAL=name) == "False False\n"
