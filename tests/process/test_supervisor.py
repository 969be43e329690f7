"""The supervisor as a program by itself: no worker, no database; a folder with an order in it, and a lock."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from backprop.scheduler.home import run_folder
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store.connection import Database
from backprop.worker.executor import locks
from backprop.worker.executor.base import Life, SegmentOrder
from backprop.worker.executor.local import LocalExecutor
from tests.support.bare_supervisor import HZ, LISTENER, PROGRAM, Stand, state
from tests.support.harness import alive, wait_until
from tests.support.store_rows import add_run


@pytest.mark.parametrize("code", [0, 7, 255])
def test_it_records_how_its_leader_exited(stand: Stand, code: int) -> None:
    began_s = time.time()
    stand.order("/bin/sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert stand.start().wait(timeout=30) == 0
    record = stand.ended()
    assert began_s <= record.pop("ended_at_s") <= time.time()
    assert 0 <= record.pop("running_s") < 20
    oom_kills = record["oom_kills"]
    assert len(oom_kills) == 2 and oom_kills[1] is not None and oom_kills[1] >= 0, "this machine counts them"
    assert record == {
        "format": 1, "asked": None, "exit_code": code, "signal": None, "seen_to_end": True, "escalated": "none",
        "paused_s": 0.0, "boxes": 1, "survivors": [], "disk_full": False, "oom_kills": oom_kills,
    }  # fmt: skip
    assert stand.log() == "out\nerr\n"
    assert not stand.held()
    assert not (stand.segment / "stop.json").exists()
    assert (stand.segment / "exit.json").stat().st_mode & 0o777 == 0o600
    assert (stand.segment / "log").stat().st_mode & 0o777 == 0o600


def test_it_records_the_signal_that_ended_its_leader(stand: Stand) -> None:
    stand.order("/bin/sh", "-c", "kill -SEGV $$")
    stand.start()
    record = stand.ended()
    assert (record["exit_code"], record["signal"], record["asked"]) == (None, signal.SIGSEGV, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"program": "/nonexistent/python"}, "No such file or directory: /nonexistent/python"),
        ({"program": "/etc/passwd"}, "Permission denied: /etc/passwd"),
        ({"cwd": "/nonexistent/folder"}, "No such file or directory: /nonexistent/folder"),
        ({"cwd": "/etc/passwd"}, "Not a directory: /etc/passwd"),
        ({"spec": "/nonexistent/spec.json"}, "No such file or unreadable: /nonexistent/spec.json"),
        ({"argv": ["/bin/sh", "a\0b"]}, "embedded null byte"),
        ({"argv": "sh"}, "not a list: 'sh'"),
    ],
)
def test_a_leader_that_cannot_be_started_is_an_end_on_record(
    stand: Stand, changes: dict[str, object], said: str
) -> None:
    stand.order("/bin/true", **changes)
    assert stand.start().wait(timeout=30) == 0
    record = stand.ended()
    assert record["could_not_start"] == said
    assert record["running_s"] == 0.0
    assert not stand.held()


def test_a_script_without_an_interpreter_line_is_an_end_on_record(stand: Stand) -> None:
    script = stand.work / "plain"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    stand.order(str(script))
    stand.start()
    assert stand.ended()["could_not_start"] == f"Exec format error: {script}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every directory")
def test_a_directory_one_may_not_enter_is_an_end_on_record(stand: Stand) -> None:
    stand.order("/bin/true")
    stand.work.chmod(0)
    stand.start()
    assert stand.ended()["could_not_start"] == f"Permission denied: {stand.work}"


def test_command_directory_umask_and_environment_arrive_exactly(stand: Stand) -> None:
    odd = os.fsdecode(b"caf\xe9 \xff\n'\"$HOME")
    stand.environment |= {"ODD": odd, "EMPTY": "", "ÜMLAUT": "größe"}
    words = ["", " two  words ", "--flag=$HOME", "*", "größe", "new\nline", "'\""]
    body = """
        import ctypes, json, os, sys
        print(json.dumps({
            "argv": sys.argv[1:], "cwd": os.getcwd(), "umask": os.umask(0), "stdin": sys.stdin.read(),
            "environment": {name.hex(): value.hex() for name, value in os.environb.items()},
            "session": os.getsid(0) == os.getpid(),
        }))
    """
    stand.order(
        sys.executable, "-I", "-S", "-c", textwrap.dedent(body), *words, umask=0o027,
        environment={"PATH": "/only/here", "BACKPROP_SEGMENT": "1"},
    )  # fmt: skip
    stand.start()
    assert stand.ended()["exit_code"] == 0, stand.log()
    seen = json.loads(stand.log())
    assert seen["argv"] == words
    assert seen["cwd"] == str(stand.work)
    assert seen["umask"] == 0o027
    assert seen["stdin"] == "", "nobody types to a run"
    assert seen["session"]
    environment = {bytes.fromhex(name): bytes.fromhex(value) for name, value in seen["environment"].items()}
    deadline = environment.pop(b"BACKPROP_DEADLINE").decode()
    assert float(deadline) == pytest.approx(stand.known()["started_at_s"] + 600.0, abs=0.01)
    steady, boot, of = environment.pop(b"BACKPROP_DEADLINE_MONOTONIC").decode().split(" ")
    assert float(steady) == pytest.approx(stand.known()["started_monotonic_s"] + 600.0, abs=0.01)
    assert (boot, of) == (stand.known()["boot_id"], deadline)
    environment.pop(b"LC_CTYPE", None)  # set by the interpreter for itself in a C locale
    assert environment == {
        b"PATH": b"/only/here",
        b"HOME": b"/nowhere",
        b"ODD": b"caf\xe9 \xff\n'\"$HOME",
        b"EMPTY": b"",
        "ÜMLAUT".encode(): "größe".encode(),
        b"BACKPROP_SEGMENT": b"1",
    }


def test_the_lock_on_the_log_is_held_by_whoever_has_it_as_its_output(stand: Stand) -> None:
    """A program started the usual way closes all descriptors but these: the run lock alone would be lost."""
    child = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    stand.python(
        f"""
        import subprocess, time
        print(subprocess.Popen({child!r}, start_new_session=True).pid, flush=True)
        time.sleep(600)
        """
    )
    supervisor = stand.start()
    wait_until(lambda: stand.log().endswith("\n"))
    child_pid = int(stand.log())
    assert locks.held(stand.run / "run.lock")
    assert locks.held(stand.segment / "log")
    supervisor.kill()
    supervisor.wait()
    os.kill(stand.leader(), signal.SIGKILL)
    wait_until(lambda: not alive(stand.leader()))
    assert alive(child_pid)
    assert not locks.held(stand.run / "run.lock")
    assert locks.held(stand.segment / "log")
    os.kill(child_pid, signal.SIGKILL)
    wait_until(lambda: not stand.held())


def test_the_timebox_ends_with_the_stop_signal_and_says_so_first(stand: Stand) -> None:
    stand.python(LISTENER, timebox_s=1.5)
    stand.start()
    wait_until((stand.segment / "stop.json").exists)
    assert json.loads((stand.segment / "stop.json").read_text())["asked"] == "timebox"
    record = stand.ended()
    assert (record["asked"], record["exit_code"], record["escalated"]) == ("timebox", 0, "none")
    assert record["running_s"] >= 1.5
    assert stand.log() == "ready\nheard 1\n"


def test_five_terms_ask_once(stand: Stand) -> None:
    stand.python(LISTENER)
    supervisor = stand.start()
    stand.wait_for_log("ready")
    for _ in range(5):
        supervisor.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    record = stand.ended()
    assert (record["asked"], record["exit_code"]) == ("asked", 0)
    assert stand.log() == "ready\nheard 1\n"


def test_quit_ends_a_deaf_leader_at_once(stand: Stand) -> None:
    stand.order("/bin/sh", "-c", "trap '' INT TERM; echo ready; while :; do sleep 0.1; done", grace_s=600.0)
    supervisor = stand.start()
    stand.wait_for_log("ready")
    began_s = time.monotonic()
    supervisor.send_signal(signal.SIGTERM)
    wait_until((stand.segment / "stop.json").exists)
    supervisor.send_signal(signal.SIGQUIT)
    record = stand.ended()
    assert time.monotonic() - began_s < 15
    assert (record["asked"], record["escalated"], record["signal"]) == ("asked", "kill", signal.SIGKILL)
    assert stand.left() == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTSTP])
def test_what_a_terminal_sends_does_not_reach_it(stand: Stand, number: signal.Signals) -> None:
    stand.python(LISTENER)
    supervisor = stand.start()
    stand.wait_for_log("ready")
    supervisor.send_signal(number)
    supervisor.send_signal(signal.SIGTERM)
    assert stand.ended()["exit_code"] == 0


def ticks(pid: int) -> int:
    """CPU time a process has used, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_pause_freezes_the_whole_tree_and_stops_the_timebox(stand: Stand) -> None:
    busy = "(while :; do i=0; while [ $i -lt 9000 ]; do i=$((i+1)); done; sleep 0.02; done)"
    script = f"trap 'echo asked; kill $!; exit 0' INT; {busy} & echo $!; wait"
    stand.order("/bin/sh", "-c", script, timebox_s=5.0)
    supervisor = stand.start()
    wait_until(lambda: stand.log().endswith("\n"))
    leader, child = stand.leader(), int(stand.log())
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(lambda: (state(leader), state(child)) == ("T", "T"))
    used = ticks(child)
    deadline_s = stand.known()["started_monotonic_s"] + 5.0
    wait_until(lambda: time.monotonic() > deadline_s + 0.5)
    assert (state(leader), state(child), ticks(child)) == ("T", "T", used)
    assert supervisor.poll() is None
    supervisor.send_signal(signal.SIGUSR2)
    wait_until(lambda: ticks(child) > used)
    record = stand.ended()
    assert "asked" in stand.log()
    assert (record["asked"], record["exit_code"]) == ("timebox", 0)
    assert record["paused_s"] > 0.5
    assert record["running_s"] >= 5.0


def test_a_paused_leader_asked_to_end_is_let_run_to_save(stand: Stand) -> None:
    stand.python(LISTENER)
    supervisor = stand.start()
    stand.wait_for_log("ready")
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(lambda: state(stand.leader()) == "T")
    supervisor.send_signal(signal.SIGTERM)
    record = stand.ended()
    assert (record["asked"], record["exit_code"]) == ("asked", 0)
    assert stand.log() == "ready\nheard 1\n"


def test_a_leader_that_somebody_else_has_stopped_is_let_run_to_save(stand: Stand) -> None:
    stand.python(LISTENER)
    supervisor = stand.start()
    stand.wait_for_log("ready")
    os.kill(stand.leader(), signal.SIGSTOP)
    wait_until(lambda: state(stand.leader()) == "T")
    supervisor.send_signal(signal.SIGTERM)
    assert stand.ended()["exit_code"] == 0
    assert stand.log() == "ready\nheard 1\n"


@pytest.mark.parametrize("name", ["ask", "kill"])
def test_what_is_sent_before_it_is_up_waits_for_it(database: Database, tmp_path: Path, name: str) -> None:
    """It is an interpreter that takes its time to start; a worker may be told to stop in that very moment."""
    home = database.home
    spec = RunSpec(argv=("sleep", "600"), program="/bin/sleep", cwd=str(tmp_path))
    run = add_run(database, "r1", spec=spec)
    home.run_folder(run.id).mkdir()
    run_folder.write_spec(home.run_folder(run.id), run.id, run.name, spec, {}, 1.0)
    lock = locks.take(home.run_lock(run.id))
    assert lock is not None
    place = LocalExecutor(home)
    place.start(
        SegmentOrder(
            run=run, number=1, argv=spec.argv, environment={}, timebox_s=600.0, promised_mib=0, lock=lock
        )
    )
    getattr(place, name)(run.id, 1)
    wait_until(lambda: place.poll(run.id, 1)[0] is not Life.ALIVE, saw=lambda: place.poll(run.id, 1))
    life, record = place.poll(run.id, 1)
    assert life is Life.ENDED
    assert record is not None
    assert record.asked == "asked"
    assert record.signal in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    wait_until(lambda: (place.reap(), place.wake_fds())[1] == [])


def test_a_log_that_is_a_symbolic_link_is_refused(stand: Stand) -> None:
    target = stand.work / "precious"
    target.write_text("precious")
    (stand.segment / "log").symlink_to(target)
    stand.order("/bin/sh", "-c", "echo overwritten")
    stand.start()
    assert "symbolic links" in stand.ended()["could_not_start"]
    assert target.read_text() == "precious"


def test_an_order_that_cannot_be_read_leaves_no_record(stand: Stand) -> None:
    (stand.segment / "order.json").write_text("{")
    assert stand.start().wait(timeout=30) == 1
    assert not (stand.segment / "exit.json").exists()
    assert not stand.held()


def test_the_kernel_short_of_memory_would_end_the_leader_first(stand: Stand) -> None:
    stand.python(LISTENER)
    supervisor = stand.start()
    stand.wait_for_log("ready")
    scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (stand.leader(), supervisor.pid)]
    assert scores[0] > scores[1]
    supervisor.send_signal(signal.SIGTERM)
    stand.ended()


def test_it_idles_without_using_the_processor(stand: Stand) -> None:
    stand.order("/bin/sleep", "600")
    supervisor = stand.start()
    stand.leader()
    used = ticks(supervisor.pid)
    time.sleep(1.0)
    assert ticks(supervisor.pid) - used <= HZ // 10
    assert len(os.listdir(f"/proc/{supervisor.pid}/fd")) < 10  # noqa: PTH208
    supervisor.send_signal(signal.SIGTERM)
    stand.ended()


def test_a_reserve_ends_quietly_when_its_worker_dies_before_it_has_read_the_report(tmp_path: Path) -> None:
    """The socket is reset then. After a segment the words would be in that segment's `supervisor.log`."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        reserve = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), "--spare", str(far.fileno())],
            pass_fds=[far.fileno()],
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
    wait_until(lambda: select.select([near], [], [], 0)[0])
    near.close()
    assert reserve.communicate(timeout=10)[1] == b""
    assert reserve.returncode == 0
