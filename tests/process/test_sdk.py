"""`import backprop` in a training script: real scripts, inside and outside Backprop."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

import backprop
from backprop.worker.supervisor import process_tree
from tests.support.bare_supervisor import Stand
from tests.support.moved_clock import WallClock

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def environment(**inside: str) -> dict[str, str]:
    ours = {name for name in os.environ if name.startswith("BACKPROP_")}
    return {name: value for name, value in os.environ.items() if name not in ours} | inside


def script(code: str, cwd: Path, **inside: str) -> str:
    """What the script prints; it must exit with 0 and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", code],
        cwd=cwd,
        env=environment(**inside),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


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


def lines(path: Path) -> list[dict[str, object]]:
    def no_constant(name: str) -> object:
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=no_constant) for line in path.read_text().splitlines() if line]


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("BACKPROP_EVENTS", str(path))
    return path


@pytest.fixture(params=["inside", "outside"])
def either_side(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "inside":
        monkeypatch.setenv("BACKPROP_EVENTS", str(tmp_path / "events.jsonl"))
    else:
        monkeypatch.delenv("BACKPROP_EVENTS", raising=False)


class Tensor:
    """A 0-d tensor, as torch and numpy have them."""

    def __init__(self, value: object) -> None:
        self.value = value

    def item(self) -> object:
        return self.value


def test_importing_it_loads_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "backprop").symlink_to(Path(backprop.__file__).parent)
    code = (
        f"import sys, os; sys.path.insert(0, {str(tmp_path)!r}); before = set(sys.modules); import backprop;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["backprop", "backprop._events", "backprop._stop"]


def test_outside_backprop_nothing_happens(tmp_path: Path) -> None:
    code = """
import backprop, signal
backprop.log(step=1, loss=0.5, accuracy=0.9)
backprop.checkpoint("model.pt", step=1)
assert backprop.resume_from() is backprop.run_id() is backprop.segment() is backprop.deadline() is None
assert backprop.should_stop() is False
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    assert script(code, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_script_inside_backprop(tmp_path: Path) -> None:
    code = """
import backprop
print(backprop.run_id(), backprop.segment(), backprop.resume_from(), backprop.deadline())
backprop.log(step=7, loss=0.25, accuracy=1)
backprop.checkpoint("out/model é.pt", step=7)
backprop.checkpoint("/other.pt", seconds=1.23456)
"""
    printed = script(
        code,
        tmp_path,
        BACKPROP_RUN_ID="ab12",
        BACKPROP_SEGMENT="3",
        BACKPROP_RESUME_FROM="/data/ckpt 1.pt",
        BACKPROP_DEADLINE="1800000000.5",
        BACKPROP_EVENTS=str(tmp_path / "events.jsonl"),
    )
    assert printed == "ab12 3 /data/ckpt 1.pt 1800000000.5\n"
    assert lines(tmp_path / "events.jsonl") == [
        {"step": 7, "loss": 0.25, "metrics": {"accuracy": 1.0}},
        {"event": "checkpoint_saved", "path": f"{tmp_path}/out/model é.pt", "step": 7},
        {"event": "checkpoint_saved", "path": "/other.pt", "step": None, "seconds": 1.235},
    ]
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf"])
def test_values_that_make_no_sense_are_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKPROP_DEADLINE", "BACKPROP_SEGMENT"):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BACKPROP_RESUME_FROM", "")
    monkeypatch.setenv("BACKPROP_RUN_ID", "")
    assert backprop.deadline() is backprop.segment() is backprop.resume_from() is backprop.run_id() is None


@pytest.mark.parametrize(
    ("arguments", "event"),
    [
        ({}, {"step": None, "loss": None}),
        ({"step": 3}, {"step": 3, "loss": None}),
        ({"step": 2**63 - 1, "loss": 2}, {"step": 2**63 - 1, "loss": 2.0}),
        (
            {"step": Tensor(4), "loss": Tensor(0.5), "f1": Tensor(1)},
            {"step": 4, "loss": 0.5, "metrics": {"f1": 1.0}},
        ),
        ({"loss": float("nan")}, {"step": None, "loss": None, "nonfinite": True}),
        ({"loss": Tensor(float("-inf"))}, {"step": None, "loss": None, "nonfinite": True}),
        ({"loss": 10**400}, {"step": None, "loss": None, "nonfinite": True}),
        ({"loss": 1, "a": float("inf"), "b": 2}, {"step": None, "loss": 1.0, "metrics": {"b": 2.0}}),
        ({"loss": 1, "a": float("nan")}, {"step": None, "loss": 1.0}),
        ({"loss": 1} | {f"metric_{i}": i for i in range(300)}, {"step": None, "loss": 1.0}),
    ],
)
def test_log_writes_valid_json(events: Path, arguments: dict[str, object], event: dict[str, object]) -> None:
    backprop.log(**arguments)  # pyright: ignore[reportArgumentType]
    assert lines(events) == [event]
    assert events.stat().st_size <= 4096


@pytest.mark.usefixtures("either_side")
@pytest.mark.parametrize(
    "wrong", ["0.5", True, [0.5], {}, Tensor("0.5"), Tensor(None), Tensor(True), 1j, object()]
)
def test_log_refuses_what_is_no_number(wrong: object) -> None:
    for name in ("step", "loss", "accuracy"):
        with pytest.raises(TypeError, match=name if name != "step" else "whole number"):
            backprop.log(**{name: wrong})  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("either_side")
def test_a_step_is_a_whole_number_from_zero() -> None:
    for step in (1.0, Tensor(1.0)):
        with pytest.raises(TypeError, match="whole number"):
            backprop.log(step=step)  # pyright: ignore[reportArgumentType]
    for step in (-1, 2**63, Tensor(-1)):
        with pytest.raises(ValueError, match=r"between 0 and 2\*\*63-1"):
            backprop.checkpoint("model.pt", step=step)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("either_side")
@pytest.mark.parametrize(
    ("path", "error"),
    [
        (None, TypeError),
        (3, TypeError),
        (b"model.pt", TypeError),
        ("", ValueError),
        ("a\0b", ValueError),
        ("not-utf8-\udcff", ValueError),
        ("long/" * 1000, ValueError),
    ],
)
def test_checkpoint_refuses_what_cannot_be_a_path(path: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"path|Path"):
        backprop.checkpoint(path)  # pyright: ignore[reportArgumentType]


def test_a_refused_call_writes_nothing(events: Path) -> None:
    with pytest.raises(TypeError):
        backprop.log(step=1, loss=0.5, accuracy="high")  # pyright: ignore[reportArgumentType]
    assert not events.exists()


def test_a_relative_path_is_taken_from_the_current_folder_without_dropping_dots(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backprop.checkpoint(PurePosixPath("link/../model.pt"))
    backprop.checkpoint("/else/where")
    assert [event["path"] for event in lines(events)] == [f"{tmp_path}/link/../model.pt", "/else/where"]


@pytest.mark.usefixtures("either_side")
def test_a_folder_whose_name_is_not_utf8_cannot_be_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "odd-\udcff"
    odd.mkdir()
    monkeypatch.chdir(odd)
    with pytest.raises(ValueError, match="is not UTF-8"):
        backprop.checkpoint("model.pt")


@pytest.mark.parametrize("target", ["/dev/full", "/nowhere/events.jsonl", "/", "/proc/version"])
def test_an_event_that_cannot_be_written_is_dropped(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_EVENTS", target)
    backprop.log(step=1, loss=0.5)
    backprop.checkpoint("model.pt")


def test_a_line_cut_by_a_full_disk_does_not_spoil_the_next(tmp_path: Path) -> None:
    # The file size limit stands for the disk: the kernel writes what fits, then refuses.
    code = """
import backprop, resource
backprop.log(step=1, loss=0.5)
for limit in (50, 50, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    backprop.log(step=2, loss=0.25)
"""
    events = tmp_path / "events.jsonl"
    script(code, tmp_path, BACKPROP_EVENTS=str(events))
    first, cut, last = events.read_text().splitlines()
    assert json.loads(first) == {"step": 1, "loss": 0.5}
    assert json.loads(last) == {"step": 2, "loss": 0.25}
    assert len(first) + 1 + len(cut) == 50


def test_it_survives_a_script_that_closes_all_files_and_loses_its_folder(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = """
import backprop, os
backprop.log(step=1)
os.closerange(3, 64)
backprop.log(step=2)
os.rmdir(os.getcwd())
backprop.checkpoint("model.pt")
"""
    script(code, tmp_path / "gone", BACKPROP_EVENTS=str(tmp_path / "events.jsonl"))
    assert [event["step"] for event in lines(tmp_path / "events.jsonl")] == [1, 2, None]


def test_lines_of_several_ranks_do_not_mix(events: Path) -> None:
    code = "import backprop\nfor step in range(300): backprop.log(step=step, loss=0.5, " + "a" * 1500 + "=1)"
    ranks = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [rank.wait(timeout=30) for rank in ranks] == [0, 0, 0]
    written = lines(events)
    assert len(written) == 900
    for step in range(300):
        assert written.count({"step": step, "loss": 0.5, "metrics": {"a" * 1500: 1.0}}) == 3


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
