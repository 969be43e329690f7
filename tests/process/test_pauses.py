"""A supervisor dies before, during or after a pause: its successor counts what was work, and nothing else."""

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.support.bare_supervisor import LISTENER, Stand, state
from tests.support.harness import SCRIPTS, Bench, alive, wait_until

BOX_S = 3.0
PAUSE_S = 2.5
SLACK_S = 10.0


def start(stand: Stand, failpoint: str = "") -> "subprocess.Popen[bytes]":
    stand.for_supervisors = {"BACKPROP_FAILPOINT": failpoint}
    stand.python(LISTENER, timebox_s=BOX_S)
    supervisor = stand.start()
    stand.for_supervisors = {}
    stand.wait_for_log("ready")
    return supervisor


def pause(stand: Stand, supervisor: "subprocess.Popen[bytes]") -> None:
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(lambda: state(stand.leader()) == "T")


def go_on(stand: Stand, supervisor: "subprocess.Popen[bytes]") -> None:
    supervisor.send_signal(signal.SIGUSR2)
    wait_until(lambda: state(stand.leader()) != "T" and note(stand)["since_monotonic_s"] is None)


def note(stand: Stand) -> dict[str, Any]:
    return json.loads((stand.segment / "pause.json").read_text())


def pass_time(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end_s)


def assert_full_box(record: dict[str, Any], paused_s: float) -> None:
    assert record["asked"] == "timebox"
    assert record["exit_code"] in (0, None)
    assert BOX_S <= record["running_s"] < BOX_S + SLACK_S
    assert paused_s <= record["paused_s"] < paused_s + SLACK_S


def test_after_a_pause(stand: Stand) -> None:
    first = start(stand)
    pause(stand, first)
    pass_time(PAUSE_S)
    go_on(stand, first)
    stand.replace(first)
    assert_full_box(stand.ended(), PAUSE_S)


def test_during_a_pause(stand: Stand) -> None:
    """Most of it is over when the first one dies, and goes on for a moment under the second."""
    first = start(stand)
    pause(stand, first)
    pass_time(PAUSE_S)
    second = stand.replace(first)
    assert state(stand.leader()) == "T"
    go_on(stand, second)
    assert_full_box(stand.ended(), PAUSE_S)


def test_between_the_note_of_a_pause_and_the_pause(stand: Stand) -> None:
    first = start(stand, "pausing:kill")
    first.send_signal(signal.SIGUSR1)
    first.wait(timeout=30)
    assert state(stand.leader()) != "T"
    second = stand.replace(first)
    wait_until(lambda: state(stand.leader()) == "T")
    pass_time(PAUSE_S)
    go_on(stand, second)
    assert_full_box(stand.ended(), PAUSE_S)


def test_between_the_note_of_its_end_and_the_end(stand: Stand) -> None:
    """Nobody will ask for it again."""
    first = start(stand, "continuing:kill")
    pause(stand, first)
    first.send_signal(signal.SIGUSR2)
    first.wait(timeout=30)
    pass_time(PAUSE_S)
    assert state(stand.leader()) == "T"
    stand.replace(first)
    wait_until(lambda: state(stand.leader()) != "T")
    assert_full_box(stand.ended(), PAUSE_S)


def test_between_the_end_of_a_pause_and_the_note_of_that(stand: Stand) -> None:
    first = start(stand, "continuing:kill")
    pause(stand, first)
    pass_time(PAUSE_S)
    first.send_signal(signal.SIGUSR2)
    first.wait(timeout=30)
    os.kill(stand.leader(), signal.SIGCONT)
    wait_until(lambda: state(stand.leader()) != "T")
    stand.replace(first)
    assert_full_box(stand.ended(), PAUSE_S)


def test_after_one_pause_and_during_the_next_under_a_successor(stand: Stand) -> None:
    supervisor = start(stand)
    for _ in range(2):
        pause(stand, supervisor)
        pass_time(1.0)
        supervisor = stand.replace(supervisor)
        pass_time(0.5)
        go_on(stand, supervisor)
        supervisor = stand.replace(supervisor)
    assert_full_box(stand.ended(), 3.0)


def test_a_leader_that_dies_in_a_pause_that_nobody_watches_did_no_work_in_it(stand: Stand) -> None:
    first = start(stand)
    pause(stand, first)
    worked_s = time.monotonic() - stand.known()["started_monotonic_s"]
    first.kill()
    first.wait()
    pass_time(PAUSE_S)
    leader = stand.leader()
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: not alive(leader))
    stand.adopt()
    record = stand.ended()
    assert record["running_s"] <= worked_s
    assert record["paused_s"] >= PAUSE_S


def test_whoever_stopped_it_lets_it_go_on_under_a_successor(stand: Stand) -> None:
    """No supervisor was asked for that pause, so none will be asked to end it; the box goes on all the same."""
    first = start(stand)
    os.kill(stand.leader(), signal.SIGSTOP)
    wait_until(lambda: state(stand.leader()) == "T")
    stand.replace(first)
    pass_time(PAUSE_S)
    os.kill(stand.leader(), signal.SIGCONT)
    assert_full_box(stand.ended(), PAUSE_S)


def test_a_leader_asked_to_end_in_a_pause_that_its_supervisor_did_not_survive(stand: Stand) -> None:
    first = start(stand, "asking:kill")
    pause(stand, first)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=30)
    stand.adopt()
    record = stand.ended()
    assert record["asked"] == "asked"
    assert stand.log() == "ready\nheard 1\n", "it was let run to save"


def test_an_end_that_cannot_be_noted_leaves_no_note_that_would_freeze_it_again(stand: Stand) -> None:
    first = start(stand)
    pause(stand, first)
    (stand.segment / "pause.json.tmp").mkdir()
    first.send_signal(signal.SIGUSR2)
    wait_until(lambda: state(stand.leader()) != "T" and not (stand.segment / "pause.json").exists())
    stand.replace(first)
    assert state(stand.leader()) != "T"
    assert stand.ended()["asked"] == "timebox"


@pytest.mark.parametrize(
    "body", ['{"boot_id": "of another boot", "paused_s": 1e6, "since_monotonic_s": 1.0}', "{"]
)
def test_a_note_of_another_boot_or_a_damaged_one_counts_for_nothing(stand: Stand, body: str) -> None:
    first = start(stand)
    (stand.segment / "pause.json").write_text(body)
    stand.replace(first)
    assert state(stand.leader()) != "T"
    record = stand.ended()
    assert record["paused_s"] == 0.0
    assert_full_box(record, 0.0)


def test_the_database_counts_the_work_alone(bench: Bench) -> None:
    """No worker is there for the whole pause, and the supervisor does not survive it."""
    words = ("-m", "0.1", "--grace-seconds", "5", "--no-auto-resume", "--", "--steps", "9000")
    run = bench.queue(str(SCRIPTS / "trainer.py"), *words)
    bench.end_worker(_at_work(bench, run), signal.SIGKILL)
    supervisor, leader = bench.supervisor(run), bench.leader(run)
    os.kill(supervisor, signal.SIGUSR1)
    wait_until(lambda: state(leader) == "T")
    pass_time(8.0)
    os.kill(supervisor, signal.SIGKILL)
    bench.worker()
    wait_until(lambda: bench.supervisor(run) not in (0, supervisor), saw=bench.output)
    seen = bench.wait_for(run, "timeboxed")
    assert bench.exit_record(run)["paused_s"] >= 8.0
    assert 6.0 <= seen["segments"][0]["running_s"] < 6 + SLACK_S
    assert bench.column(run, "chain_total_s") == pytest.approx(seen["segments"][0]["running_s"], abs=0.01)


def _at_work(bench: Bench, run: str) -> "subprocess.Popen[str]":
    worker = bench.worker()
    wait_until(lambda: bench.column(run, "last_step"), saw=bench.output)
    return worker
