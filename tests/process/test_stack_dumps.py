"""The stacks of a hanging segment: a signal only for who hears it, py-spy where nobody does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backprop.worker.segments.hang.stacks import REGISTERED, SETTLE_S, StackDump
from backprop.worker.supervisor import process_tree
from tests.support.harness import wait_until

NUMBER = signal.SIGRTMAX - 5
HANGS = "import time\n\ndef stuck_here():\n    print('hangs', flush=True)\n    time.sleep(60)\n\n"
REGISTERS = "import backprop.integrations._at_launch as one\none._show_stacks_when_asked()\n"


@pytest.fixture(autouse=True)
def no_py_spy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def started(folder: Path, code: str) -> "subprocess.Popen[bytes]":
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=log,
            stderr=log,
            env=os.environ | {"BACKPROP_EVENTS": str(folder / "events.jsonl")},
        )
    wait_until(lambda: "hangs" in (folder / "log").read_text(), saw=(folder / "log").read_text)
    return child


def note(folder: Path, child: "subprocess.Popen[bytes]", later: int = 0) -> None:
    process = process_tree.identify(child.pid)
    assert process is not None
    (folder / REGISTERED).write_text(f"{child.pid} {process.start_ticks + later} {NUMBER:d}\nrubbish\n1 2\n")


def dumped(folder: Path, child: "subprocess.Popen[bytes]") -> str:
    dump = StackDump(folder, [child.pid], time.monotonic())
    wait_until(lambda: dump.is_done(time.monotonic()), timeout_s=SETTLE_S + 20)
    return (folder / "log").read_text()


def test_a_process_that_has_registered_writes_its_stacks_and_lives(tmp_path: Path) -> None:
    with started(tmp_path, REGISTERS + HANGS + "stuck_here()") as child:
        assert "stuck_here" in dumped(tmp_path, child)
        assert child.poll() is None
        child.kill()


@pytest.mark.parametrize("how", ["not noted", "no handler", "another process"])
def test_nobody_is_signalled_who_would_die_of_it(tmp_path: Path, how: str) -> None:
    code = (REGISTERS if how == "another process" else "") + HANGS + "stuck_here()"
    with started(tmp_path, code) as child:
        if how != "not noted":
            note(tmp_path, child, later=how == "another process")
        dumped(tmp_path, child)
        assert child.poll() is None
        assert "stuck_here" not in (tmp_path / "log").read_text()
        child.kill()


def test_py_spy_is_asked_where_nobody_has_registered(tmp_path: Path) -> None:
    py_spy = tmp_path / "bin" / "py-spy"
    py_spy.write_text('#!/bin/sh\necho "stacks by $*"\n')
    py_spy.chmod(0o755)
    with started(tmp_path, HANGS + "stuck_here()") as child:
        assert f"stacks by dump --nonblocking --pid {child.pid}" in dumped(tmp_path, child)
        child.kill()


def test_a_signal_that_the_script_uses_itself_is_left_to_it(tmp_path: Path) -> None:
    own = f"import signal\nsignal.signal({NUMBER:d}, lambda *_: None)\n"
    with started(tmp_path, own + REGISTERS + HANGS + "stuck_here()") as child:
        assert not (tmp_path / REGISTERED).exists()
        child.kill()
