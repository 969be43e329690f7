"""A supervisor suspends its segment: never while that would harm, and whoever is killed in between."""

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from backprop.worker.executor import suspend_files
from backprop.worker.executor.suspend_files import Answer, SuspendOrder
from backprop.worker.supervisor import process_tree
from tests.support.bare_supervisor import LISTENER, Stand, state
from tests.support.harness import wait_until

SPARED, USUAL = 0, 300
LOCKS = """
    import fcntl, os, time
    held = open("held", "w")
    fcntl.{how}(held, fcntl.LOCK_EX)
    print("ready", flush=True)
    while not os.path.exists("free"):
        time.sleep(0.02)
    held.close()
    print("freed", flush=True)
    time.sleep(600)
"""
SAVES = """
    import os, time
    log = open("metrics.csv", "w")
    print("ready", flush=True)
    number = 0
    while not os.path.exists("quiet"):
        number += 1
        with open(f"part{number}", "wb") as file:
            while not os.path.exists("quiet") and file.tell() < 400 << 20:
                file.write(b"x" * (1 << 20))
                file.flush()
                time.sleep(0.01)
            file.truncate(0)
    print("quiet", flush=True)
    while True:
        log.write("1,2\\n")
        log.flush()
        time.sleep(0.02)
"""


def order(stand: Stand, number: int, wanted: str = "suspended") -> None:
    suspend_files.write(stand.segment, SuspendOrder(number=number, wanted=wanted))  # type: ignore[arg-type]


def start(
    stand: Stand, failpoint: str = "", body: str = LISTENER, **changes: Any
) -> "subprocess.Popen[bytes]":
    stand.for_supervisors = {"BACKPROP_FAILPOINT": failpoint}
    stand.python(body, **{"timebox_s": 600.0, "at_timebox": "auto"} | changes)
    supervisor = stand.start()
    stand.for_supervisors = {}
    stand.wait_for_log("ready")
    return supervisor


def suspend(stand: Stand, supervisor: "subprocess.Popen[bytes]", number: int = 1) -> None:
    order(stand, number)
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(lambda: suspend_files.answer(stand.segment, number) == Answer())
    assert state(stand.leader()) == "T"


def adopt(stand: Stand) -> "subprocess.Popen[bytes]":
    successor = stand.adopt()
    wait_until(lambda: stand.known()["supervisor"][0] == successor.pid)
    return successor


def thaw(stand: Stand, supervisor: "subprocess.Popen[bytes]", number: int = 1) -> None:
    order(stand, number, "running")
    supervisor.send_signal(signal.SIGUSR2)
    wait_until(lambda: state(stand.leader()) != "T" and note(stand)["since_monotonic_s"] is None)


def note(stand: Stand) -> dict[str, Any]:
    return json.loads((stand.segment / "pause.json").read_text())


def score(stand: Stand) -> int:
    return int((process_tree.PROC / str(stand.leader()) / "oom_score_adj").read_text())


def end(stand: Stand, supervisor: "subprocess.Popen[bytes]") -> dict[str, Any]:
    supervisor.send_signal(signal.SIGTERM)
    return stand.ended()


def test_it_stays_frozen_until_it_is_ordered_to_go_on(stand: Stand) -> None:
    supervisor = start(stand)
    assert suspend_files.obeys(stand.segment)
    assert score(stand) == USUAL
    suspend(stand, supervisor)
    assert score(stand) == SPARED
    supervisor.send_signal(signal.SIGUSR2)  # without an order it means nothing
    os.kill(stand.leader(), signal.SIGCONT)
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(lambda: state(stand.leader()) == "T")
    supervisor = stand.replace(supervisor)
    assert state(stand.leader()) == "T"
    thaw(stand, supervisor)
    assert score(stand) == USUAL
    suspend(stand, supervisor, 2)
    record = end(stand, supervisor)
    assert (record["asked"], record["exit_code"], record["escalated"]) == ("asked", 0, "none")
    assert record["paused_s"] > 0


@pytest.mark.parametrize("failpoint", ["suspending", "pausing", "frozen", "suspended"])
def test_killed_while_it_suspends(stand: Stand, failpoint: str) -> None:
    first = start(stand, f"{failpoint}:kill")
    order(stand, 1)
    first.send_signal(signal.SIGUSR1)
    first.wait(timeout=30)
    second = adopt(stand)
    wait_until(lambda: suspend_files.answer(stand.segment, 1) == Answer())
    assert state(stand.leader()) == "T"
    thaw(stand, second)
    assert end(stand, second)["exit_code"] in (0, None)


@pytest.mark.parametrize("failpoint", ["thawing", "continuing", "thawed"])
def test_killed_while_it_thaws(stand: Stand, failpoint: str) -> None:
    first = start(stand, f"{failpoint}:kill")
    suspend(stand, first)
    order(stand, 1, "running")
    first.send_signal(signal.SIGUSR2)
    first.wait(timeout=30)
    second = adopt(stand)
    wait_until(lambda: state(stand.leader()) != "T" and note(stand)["since_monotonic_s"] is None)
    assert end(stand, second)["exit_code"] in (0, None)


@pytest.mark.parametrize("how", ["flock", "lockf"])
def test_not_while_it_holds_a_lock(stand: Stand, how: str) -> None:
    supervisor = start(stand, body=LOCKS.format(how=how))
    order(stand, 1)
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(lambda: (stand.segment / "pause.json").exists() and note(stand)["paused_s"] > 0)
    assert suspend_files.answer(stand.segment, 1) is None
    (stand.work / "free").touch()
    wait_until(lambda: suspend_files.answer(stand.segment, 1) == Answer())
    assert "freed" in stand.log()
    supervisor.send_signal(signal.SIGQUIT)
    stand.ended()


def test_not_while_it_writes_a_file(stand: Stand) -> None:
    """A log of its own that it keeps open is none."""
    supervisor = start(stand, body=SAVES)
    order(stand, 1)
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(lambda: (stand.segment / "pause.json").exists() and note(stand)["paused_s"] > 0)
    assert suspend_files.answer(stand.segment, 1) is None
    (stand.work / "quiet").touch()
    wait_until(lambda: suspend_files.answer(stand.segment, 1) == Answer())
    assert "quiet" in stand.log()
    supervisor.send_signal(signal.SIGQUIT)
    stand.ended()


def test_what_cannot_be_carried_out_is_refused_with_the_reason(stand: Stand) -> None:
    """At once where it is paused and may not be let go on to try again, else after half a minute."""
    supervisor = start(stand, body=LOCKS.format(how="flock"))
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(lambda: state(stand.leader()) == "T")
    order(stand, 1)
    supervisor.send_signal(signal.SIGUSR1)
    why = Answer("it holds a lock on a file")
    wait_until(lambda: suspend_files.answer(stand.segment, 1) == why)
    supervisor = stand.replace(supervisor)
    assert (suspend_files.answer(stand.segment, 1), state(stand.leader())) == (why, "T")
    thaw(stand, supervisor)
    supervisor.send_signal(signal.SIGQUIT)
    stand.ended()


def test_an_old_order_of_another_boot_is_none(stand: Stand) -> None:
    order(stand, 1)
    path = stand.segment / suspend_files.NAME
    path.write_text(path.read_text().replace(process_tree.boot_id(), "another"))
    assert suspend_files.read(stand.segment) is None
