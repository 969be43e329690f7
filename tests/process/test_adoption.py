"""A supervisor that takes another's place: what it keeps, and what it never makes up."""

import json
import os
import shutil
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from backprop.worker.supervisor import process_tree
from tests.support.bare_supervisor import EXIT_TAKEN, LISTENER, Stand, state
from tests.support.harness import alive, wait_until
from tests.support.moved_clock import WallClock

DEAF = ("/bin/sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.05; done")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def test_two_supervisors_never_watch_one_segment(stand: Stand) -> None:
    stand.python(LISTENER)
    first = stand.start()
    stand.wait_for_log("ready")
    known = stand.known()
    assert stand.adopt().wait(timeout=30) == EXIT_TAKEN
    assert first.poll() is None
    assert stand.known() == known
    first.send_signal(signal.SIGTERM)
    assert stand.ended()["exit_code"] == 0


def test_one_that_takes_over_keeps_the_deadline_and_ends_everything(stand: Stand) -> None:
    child = 'import subprocess\nsubprocess.Popen(["/bin/sleep", "600"], start_new_session=True)\n'
    stand.python(child + textwrap.dedent(LISTENER), timebox_s=3.0)
    first = stand.start()
    stand.wait_for_log("ready")
    leader, known = stand.leader(), stand.known()
    stand.replace(first)
    assert stand.known()["leader"] == known["leader"]
    assert stand.known()["started_monotonic_s"] == known["started_monotonic_s"], (
        "the box began with the leader"
    )
    assert alive(leader)
    record = stand.ended()
    assert record["asked"] == "timebox"
    assert 3.0 <= record["running_s"] < 15
    assert stand.log() == "ready\nheard 1\n"
    assert stand.left() == []


@pytest.mark.parametrize("known", [True, False], ids=["leader on record", "leader unknown"])
def test_a_run_of_another_home_with_the_same_id_is_left_alone(
    stand: Stand, tmp_path: Path, known: bool
) -> None:
    """An order of 0.1.0 names run and segment alone as its cookie."""
    name, _, run_id = stand.cookie.partition("=")
    marked = {name: run_id, "BACKPROP_SEGMENT": "1"}
    theirs = {"BACKPROP_EVENTS": str(tmp_path / "theirs" / "events.jsonl")}
    stranger = subprocess.Popen(["/bin/sleep", "600"], env=marked | theirs)
    try:
        ours = {"BACKPROP_EVENTS": str(stand.segment / "events.jsonl")}
        stand.python(LISTENER, environment=marked | ours)
        first = stand.start()
        stand.wait_for_log("ready")
        if known:
            stand.replace(first).send_signal(signal.SIGTERM)
            assert stand.ended()["asked"] == "asked"
        else:
            (stand.segment / "processes.json").unlink()
            first.kill()
            first.wait()
            os.kill(next(pid for pid in stand.left() if pid not in (first.pid, stranger.pid)), signal.SIGKILL)
            assert stand.adopt().wait(timeout=30) == 0
            assert not (stand.segment / "processes.json").exists(), "it found nobody to watch"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_one_that_takes_over_a_paused_leader_can_thaw_it(stand: Stand) -> None:
    stand.python(LISTENER, timebox_s=2.0)
    first = stand.start()
    stand.wait_for_log("ready")
    first.send_signal(signal.SIGUSR1)
    leader = stand.leader()
    wait_until(lambda: state(leader) == "T")
    second = stand.replace(first)
    deadline_s = stand.known()["started_monotonic_s"] + 2.0
    wait_until(lambda: time.monotonic() > deadline_s + 0.5)
    assert state(leader) == "T"
    assert not (stand.segment / "stop.json").exists(), "time spent paused does not count"
    second.send_signal(signal.SIGUSR2)
    record = stand.ended()
    assert record["asked"] == "timebox"
    assert stand.log() == "ready\nheard 1\n"


def test_a_leader_stopped_while_its_child_was_not_yet_another_program_is_paused_too(stand: Stand) -> None:
    """The child stops between vfork and exec, here at a FIFO that nobody writes; the parent waits for it (state D)."""
    os.mkfifo(stand.work / "fifo")
    opened = '[(os.POSIX_SPAWN_OPEN, 0, "fifo", os.O_RDONLY, 0)]'
    spawner = f"""
        import os
        print("ready", flush=True)
        os.posix_spawn("/bin/sleep", ["sleep", "600"], {{}}, file_actions={opened})
    """
    stand.python(spawner, timebox_s=2.0, grace_s=0.2)
    first = stand.start()
    stand.wait_for_log("ready")
    leader = stand.leader()
    wait_until(lambda: state(leader) == "D", saw=lambda: state(leader))
    first.send_signal(signal.SIGUSR1)
    (child,) = process_tree.children(f"{leader}/task/{leader}")
    wait_until(lambda: state(child) == "T")
    second = stand.replace(first)
    deadline_s = stand.known()["started_monotonic_s"] + 2.0
    wait_until(lambda: time.monotonic() > deadline_s + 0.5)
    assert not (stand.segment / "stop.json").exists(), "time spent paused does not count"
    second.send_signal(signal.SIGUSR2)
    assert stand.ended()["asked"] == "timebox"
    assert stand.left() == []


def test_one_that_takes_over_does_not_ask_a_second_time(stand: Stand) -> None:
    """To many scripts a second signal means: drop everything. This one is in the middle of its save."""
    slow = (
        textwrap.dedent(LISTENER)
        .replace("0.3", "2.0")
        .replace("heard.append(1)", "heard.append(print('asked'))")
    )
    stand.python(slow)
    first = stand.start()
    stand.wait_for_log("ready")
    first.send_signal(signal.SIGTERM)
    stand.wait_for_log("asked")
    wait_until(lambda: json.loads((stand.segment / "stop.json").read_text())["sent"])
    second = stand.replace(first)
    second.send_signal(signal.SIGTERM)
    record = stand.ended()
    assert record["asked"] == "asked", "or its exit code 0 would pass for the end of the training"
    assert stand.log() == "ready\nasked\nheard 1\n"


def test_one_that_takes_over_asks_where_the_other_one_only_meant_to(stand: Stand) -> None:
    """Killed between the note and the signal: with neither, the leader would not be let save."""
    stand.python(LISTENER)
    first = stand.start()
    stand.wait_for_log("ready")
    first.kill()
    first.wait()
    note = {"asked": "timebox", "at_s": time.time(), "sent": False}
    (stand.segment / "stop.json").write_text(json.dumps(note))
    stand.adopt()
    record = stand.ended()
    assert record["asked"] == "timebox"
    assert stand.log() == "ready\nheard 1\n"


def test_one_that_takes_over_finds_a_leader_nobody_had_written_down(stand: Stand) -> None:
    """Its supervisor was killed between the start and the note of it."""
    stand.python(LISTENER)
    first = stand.start()
    stand.wait_for_log("ready")
    leader = stand.leader()
    first.kill()
    first.wait()
    (stand.segment / "processes.json").unlink()
    adopted_s = time.time()
    second = stand.adopt()
    assert stand.leader() == leader
    assert stand.known()["started_at_s"] < adopted_s, "what it saved before is no older than its start"
    second.send_signal(signal.SIGTERM)
    record = stand.ended()
    assert record["asked"] == "asked"
    assert stand.log() == "ready\nheard 1\n"


def test_one_that_takes_over_may_learn_the_exit_code_and_never_makes_one_up(stand: Stand) -> None:
    """Kernels from 6.15 on tell the exit code to whoever holds a pidfd; before, it is unknown."""
    stand.python("import sys, time\ntime.sleep(1.5)\nsys.exit(42)")
    first = stand.start()
    stand.leader()
    first.kill()
    first.wait()
    stand.adopt()
    record = stand.ended()
    assert record["asked"] is None
    assert (record["exit_code"], record["seen_to_end"]) in ((42, True), (None, False))


def test_one_that_comes_too_late_ends_the_stragglers_and_calls_the_end_unseen(stand: Stand) -> None:
    stand.python(
        """
        import subprocess, time
        print(subprocess.Popen(["/bin/sleep", "600"]).pid, flush=True)
        time.sleep(600)
        """
    )
    first = stand.start()
    wait_until(lambda: stand.log().endswith("\n"))
    straggler = int(stand.log())
    first.kill()
    first.wait()
    os.kill(stand.leader(), signal.SIGKILL)
    wait_until(lambda: not alive(stand.leader()))
    assert stand.held()
    stand.adopt()
    record = stand.ended()
    assert not alive(straggler)
    assert not stand.held()
    assert (record["asked"], record["exit_code"], record["seen_to_end"]) == (None, None, False)


def test_one_that_takes_over_leaves_a_finished_segment_alone(stand: Stand) -> None:
    stand.order("/bin/sh", "-c", "exit 5")
    stand.start().wait(timeout=30)
    before = (stand.segment / "exit.json").read_bytes()
    assert stand.adopt().wait(timeout=30) == 0
    assert (stand.segment / "exit.json").read_bytes() == before


def test_another_process_under_the_leaders_pid_is_not_touched(stand: Stand) -> None:
    """A pid is used again; only pid and start time together name a process."""
    stand.order("/bin/true", timebox_s=0.1)
    with subprocess.Popen(["/bin/sleep", "600"], start_new_session=True) as innocent:
        known = {
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "supervisor": [innocent.pid, 1],
            "leader": [innocent.pid, 1],
            "started_at_s": time.time() - 100,
            "started_monotonic_s": time.monotonic() - 100,
        }
        (stand.segment / "processes.json").write_text(json.dumps(known))
        assert stand.adopt().wait(timeout=30) == 0
        assert innocent.poll() is None
        innocent.kill()
    assert stand.ended()["seen_to_end"] is False


@needs_gcc
@pytest.mark.parametrize("seconds", [-3600, 3600], ids=["back", "forward"])
def test_one_that_takes_over_keeps_the_grace_whatever_the_wall_clock_says(stand: Stand, seconds: int) -> None:
    clock = WallClock(stand.work)
    stand.for_supervisors = clock.environment
    stand.order(*DEAF, grace_s=4.0)
    first = stand.start()
    stand.wait_for_log("ready")
    first.send_signal(signal.SIGTERM)
    wait_until((stand.segment / "stop.json").exists)
    wait_until(lambda: json.loads((stand.segment / "stop.json").read_text())["sent"])
    asked_s = time.monotonic()
    clock.set(seconds)
    stand.replace(first)
    record = stand.ended()
    assert 3.5 <= time.monotonic() - asked_s < 4 + 15
    assert (record["asked"], record["escalated"]) == ("asked", "term")


@pytest.mark.parametrize("noted", [{}, {"boot_id": "of another boot", "at_monotonic_s": 0.0}])
def test_a_stop_that_is_dated_by_the_wall_clock_alone_has_its_grace_at_most(
    stand: Stand, noted: dict[str, object]
) -> None:
    """As 0.1.0 noted it, and in another boot. The clock has been set back since: it seems to lie ahead."""
    stand.order(*DEAF, grace_s=1.0)
    first = stand.start()
    stand.wait_for_log("ready")
    first.kill()
    first.wait()
    note = {"asked": "asked", "at_s": time.time() + 3600, "sent": True} | noted
    (stand.segment / "stop.json").write_text(json.dumps(note))
    adopted_s = time.monotonic()
    stand.adopt()
    assert stand.ended()["asked"] == "asked"
    assert 0.9 <= time.monotonic() - adopted_s < 1 + 15


@needs_gcc
def test_a_leader_nobody_had_written_down_gets_no_time_for_what_the_machine_slept(stand: Stand) -> None:
    """The kernel dates a start on a clock that also counts suspends."""
    stand.for_supervisors = WallClock(stand.work).environment | {"ASLEEP": "1000"}
    stand.python(LISTENER, timebox_s=2.0)
    first = stand.start()
    stand.wait_for_log("ready")
    first.kill()
    first.wait()
    (stand.segment / "processes.json").unlink()
    stand.adopt()
    record = stand.ended()
    assert record["asked"] == "timebox"
    assert 1.9 <= record["running_s"] < 2 + 15
