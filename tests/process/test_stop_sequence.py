"""How a segment is ended: as gently as the script lets us, within its grace, and with nothing left alive."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

from tests.support.harness import COMMAND, SCRIPTS, Bench, alive, wait_until
from tests.support.variants import some

TRAINER = str(SCRIPTS / "trainer.py")
BOX = ("-m", "0.025", "--at-timebox", "end", "--grace-seconds")
LINGER_S = 5.0
SLACK_S = 10.0
"""A loaded machine may be late; that much late would still be a bug."""


def assert_only_the_worker_is_left(bench: Bench, worker: subprocess.Popen[str]) -> None:
    wait_until(lambda: bench.busy() == [worker.pid], timeout_s=5, saw=bench.left)


@pytest.mark.parametrize(
    ("deaf", "escalated", "signal_number"),
    [(("INT",), "term", signal.SIGTERM), (("INT", "TERM"), "kill", signal.SIGKILL)],
)
def test_a_script_that_ignores_the_stop_signal_is_ended_within_its_grace(
    bench: Bench, deaf: tuple[str, ...], escalated: str, signal_number: int
) -> None:
    words = [word for name in deaf for word in ("--deaf", name)]
    run = bench.queue(TRAINER, *BOX, "1", "--no-auto-resume", "--", *words)
    worker = bench.worker()
    seen = bench.wait_for(run, "timeboxed")
    record = bench.exit_record(run)
    assert (record["escalated"], record["signal"], record["asked"]) == (escalated, signal_number, "timebox")
    assert 2.5 <= record["running_s"] < 2.5 + LINGER_S + SLACK_S
    assert record["survivors"] == []
    assert seen["segments"][0]["outcome"] == "timeboxed"
    assert seen["last_checkpoint"], "what it had saved before counts"
    assert_only_the_worker_is_left(bench, worker)


def test_a_killed_script_goes_on_from_what_it_had_saved(bench: Bench) -> None:
    run = bench.queue(TRAINER, *BOX, "0.5", "--", "--deaf", "INT", "--steps", "100")
    bench.worker()
    seen = bench.wait_for(run, "completed")
    assert seen["segments"][0]["outcome"] == "timeboxed"
    assert bench.exit_record(run)["escalated"] == "term"
    told = [json.loads(line)["path"] for line in bench.log(run).splitlines() if "checkpoint_saved" in line]
    assert seen["segments"][1]["checkpoint_used"] == str(bench.project / told[-1])


def test_data_workers_are_left_alone_until_the_leader_has_saved(bench: Bench) -> None:
    """They die of INT and TERM, and the leader needs one more batch of theirs before it can save."""
    bench.script(
        "loader.py",
        """
        import json, os, signal, subprocess, sys
        if os.environ.get("BACKPROP_RESUME_FROM"):
            sys.exit(0)
        stop = []
        worker = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)\\n"
        worker += "for line in sys.stdin: print('batch', line, end='', flush=True)"
        child = [sys.executable, "-c", worker]
        workers = [subprocess.Popen(child, stdin=-1, stdout=-1, text=True) for _ in range(2)]
        signal.signal(signal.SIGINT, lambda *_: stop.append(1))
        step = 0
        while not stop:
            for one in workers:
                print(step, file=one.stdin, flush=True)
                assert one.stdout.readline() == f"batch {step}\\n"
            step += 1
            signal.sigtimedwait([], 0.02)
        import time
        time.sleep(0.5)  # time enough for a signal to the whole group to have killed them
        for one in workers:
            print("last", file=one.stdin, flush=True)
            assert one.stdout.readline() == "batch last\\n", "no batch: the data workers are dead"
        open("ckpt", "w").write(str(step))
        print(json.dumps({"event": "checkpoint_saved", "path": "ckpt", "step": step}), flush=True)
        """,
    )
    run = bench.queue("loader.py", *BOX, "20")
    worker = bench.worker()
    seen = bench.wait_for(run, "completed")
    assert [one["outcome"] for one in seen["segments"]] == ["timeboxed", "completed"], bench.log(run)
    assert seen["segments"][0]["exit_code"] == 0, bench.log(run)
    assert seen["segments"][1]["checkpoint_used"] == str(bench.project / "ckpt")
    assert_only_the_worker_is_left(bench, worker)


FAMILY = """
    import json, os, signal, subprocess, sys, time
    if os.environ.get("BACKPROP_RESUME_FROM"):
        sys.exit(0)
    deaf = "trap '' TERM INT HUP; while :; do sleep 0.1; done"
    subprocess.Popen(["sh", "-c", deaf])
    subprocess.Popen(["sh", "-c", deaf], start_new_session=True)
    subprocess.Popen(["sh", "-c", deaf], process_group=0)
    if os.fork() == 0:  # a daemon by the book
        os.setsid()
        if os.fork():
            os._exit(0)
        os.closerange(0, 64)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with open("daemon.pid", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
        os._exit(0)
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    while not (stop and os.path.exists("daemon.pid")):
        time.sleep(0.02)
    open("ckpt", "w").write("1")
    print(json.dumps({"event": "checkpoint_saved", "path": "ckpt", "step": 1}), flush=True)
"""


def test_nothing_that_the_script_started_survives_its_end(bench: Bench) -> None:
    """Children, a grandchild in a session of its own, a daemon that closed every descriptor: all deaf to TERM."""
    bench.script("family.py", FAMILY)
    run = bench.queue("family.py", *BOX, "20")
    worker = bench.worker()
    seen = bench.wait_for(run, "completed")
    assert [one["outcome"] for one in seen["segments"]] == ["timeboxed", "completed"]
    record = bench.exit_record(run)
    assert record["exit_code"] == 0
    assert record["escalated"] == "none", "the leader itself did as asked"
    assert record["survivors"] == []
    assert not alive(int((bench.project / "daemon.pid").read_text()))
    assert_only_the_worker_is_left(bench, worker)


def any_of(group: int) -> bool:
    """Whether a process group has members. The kernel knows at once; a look at /proc may miss all of one that forks."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("alone", some([True, False], 2), ids=["in new ones", "in one group"])
def test_a_program_that_forks_as_fast_as_it_can_is_ended(bench: Bench, alone: bool) -> None:
    bench.script(
        "churn.py",
        """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if os.fork() == 0:  # its pid changes every 2 ms, and it leaves its session behind each time
            os.setsid()
            print(os.getpgrp(), file=open("groups", "a"))
            print("churns", flush=True)
            born = 0
            while True:
                if os.fork():
                    os._exit(0)
                if {alone} and born % 50 == 0:
                    os.setsid()
                    print(os.getpgrp(), file=open("groups", "a"))
                born += 1
                time.sleep(0.002)
        time.sleep(600)
        """.replace("{alone}", str(alone)),
    )
    run = bench.queue("churn.py", *BOX, "0.2")
    worker = bench.worker()
    try:
        bench.wait_for(run, "timeboxed")
        assert "churns" in bench.log(run)
        wait_until(lambda: not any(map(any_of, groups_of(bench))), saw=lambda: groups_of(bench))
    finally:
        # One that gets away is not found by what it carries, and keeps the machine busy for ever.
        for group in groups_of(bench):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
    record = bench.exit_record(run)
    assert record["escalated"] == "kill"
    assert record["survivors"] == []
    assert record["running_s"] < 1.5 + 0.2 + LINGER_S + SLACK_S
    assert_only_the_worker_is_left(bench, worker)


def groups_of(bench: Bench) -> list[int]:
    """Those that the program says it has had."""
    told = bench.project / "groups"
    return [int(line) for line in told.read_text().splitlines()] if told.exists() else []


def test_stop_lets_a_running_run_save_and_ends_it(bench: Bench) -> None:
    run = bench.queue(TRAINER)
    worker = bench.worker()
    bench.wait_for_log(run, "checkpoint_saved")
    done = bench.backprop("stop", run)
    assert (done.returncode, done.stderr) == (0, "")
    seen = bench.wait_for(run, "stopped")
    assert seen["segments"][0]["outcome"] == "stopped"
    assert "stopped by the user" in seen["reason"]
    assert "backprop resume" in seen["reason"]
    last = [line for line in bench.log(run).splitlines() if "checkpoint_saved" in line][-1]
    assert seen["last_checkpoint"] == str(bench.project / json.loads(last)["path"])
    assert_only_the_worker_is_left(bench, worker)
    again = bench.backprop("stop", run)
    assert again.returncode == 10, "it has ended: an illegal move"


def test_stop_reaches_a_segment_whose_worker_is_dead(bench: Bench) -> None:
    run = bench.queue(TRAINER)
    bench.end_worker(start_until_saved(bench, run), signal.SIGKILL)
    assert bench.backprop("stop", run).returncode == 0
    record = bench.exit_record(run)
    assert record["asked"] == "asked"
    assert "stops at step" in bench.log(run)
    wait_until(lambda: not bench.left(), saw=bench.left)
    bench.worker()
    assert bench.wait_for(run, "stopped")["segments"][0]["outcome"] == "stopped"


def test_stop_reaches_a_dead_workers_segment_while_another_worker_lives(bench: Bench) -> None:
    """That one looks for orphans every 30 s only."""
    run = bench.queue(TRAINER)
    first = start_until_saved(bench, run)
    bench.worker("-p", "1")
    wait_until(lambda: "ready" in bench.output(1), saw=lambda: bench.output(1))
    bench.end_worker(first, signal.SIGKILL)
    assert bench.backprop("stop", run).returncode == 0
    assert bench.exit_record(run, timeout_s=15)["asked"] == "asked"
    bench.worker()
    assert bench.wait_for(run, "stopped")["segments"][0]["outcome"] == "stopped"


def start_until_saved(bench: Bench, run: str) -> subprocess.Popen[str]:
    worker = bench.worker()
    bench.wait_for_log(run, "checkpoint_saved")
    return worker


@pytest.mark.parametrize("code", [0, 1, 143])
def test_what_was_asked_wins_over_the_exit_code(bench: Bench, code: int) -> None:
    boxed = bench.queue(
        TRAINER, *BOX, "20", "-n", "boxed", "--max-segments", "1", "--", "--stop-code", str(code)
    )
    stopped = bench.queue(TRAINER, "-n", "stopped", "--", "--stop-code", str(code))
    worker = bench.worker()
    bench.wait_for_log(stopped, "checkpoint_saved")
    bench.backprop("stop", stopped)
    for run, state in ((boxed, "timeboxed"), (stopped, "stopped")):
        seen = bench.wait_for(run, state, "completed", "failed")
        assert seen["state"] == state, seen["reason"]
        assert seen["segments"][0]["outcome"] == state
        assert seen["segments"][0]["exit_code"] == code, "kept beside the outcome"
    yielded = bench.queue(TRAINER, "-n", "yielded", "--at-timebox", "end", "--", "--stop-code", str(code))
    bench.wait_for_log(yielded, "checkpoint_saved")
    assert bench.end_worker(worker) == 0
    assert bench.show(yielded)["state"] == "queued"
    assert bench.show(yielded)["segments"][0]["outcome"] == "yielded"


def test_exit_code_75_means_run_me_again_and_is_no_strike(bench: Bench) -> None:
    bench.script(
        "again.py",
        """
        import json, os, sys
        step = int(os.environ["BACKPROP_SEGMENT"])
        open(f"ckpt-{step}", "w").write(str(step))
        print(json.dumps({"event": "checkpoint_saved", "path": f"ckpt-{step}", "step": step}), flush=True)
        sys.exit(75 if step < 5 else 0)
        """,
    )
    run = bench.queue("again.py")
    bench.worker()
    seen = bench.wait_for(run, "completed", "failed", "timeboxed")
    assert [one["outcome"] for one in seen["segments"]] == ["tempfail"] * 4 + ["completed"]
    assert [one["exit_code"] for one in seen["segments"]] == [75] * 4 + [0]
    used = [one["checkpoint_used"] for one in seen["segments"]]
    assert used == [None] + [str(bench.project / f"ckpt-{step}") for step in (1, 2, 3, 4)]
    assert (bench.column(run, "stalled"), bench.column(run, "retries_used")) == (0, 0)


@pytest.mark.parametrize(
    ("code", "stop", "state"),
    [(0, False, "completed"), (3, False, "failed"), (0, True, "completed"), (3, True, "stopped")],
)
def test_a_script_that_ended_by_itself_just_before_was_not_asked(
    bench: Bench, code: int, stop: bool, state: str
) -> None:
    """Its supervisor, frozen meanwhile, finds the deadline, the user's stop and the end at once: the end was first."""
    run = bench.queue(TRAINER, "-m", "0.03", "--", "--steps", "30", "--end-code", str(code))
    bench.worker()
    bench.wait_for_log(run, "checkpoint_saved")
    leader, supervisor = bench.leader(run), bench.supervisor(run)
    os.kill(supervisor, signal.SIGSTOP)
    wait_until(lambda: not alive(leader))
    started_s = json.loads((bench.folder(run) / "processes.json").read_text())["started_monotonic_s"]
    wait_until(lambda: time.monotonic() > started_s + 1.9)
    if stop:
        assert bench.backprop("stop", run).returncode == 0
    os.kill(supervisor, signal.SIGCONT)
    seen = bench.wait_for(run, "completed", "failed", "timeboxed", "stopped")
    assert bench.exit_record(run)["asked"] is None
    assert seen["segments"][0]["exit_code"] == code
    assert seen["state"] == state


def test_the_stop_signal_is_heard_under_a_worker_that_ignores_every_signal(bench: Bench) -> None:
    """A worker started with `&` by a shell script is deaf to INT, and would hand that down."""
    script = bench.script(
        "start.sh", f"trap '' INT QUIT TERM CHLD USR1 USR2 PIPE TSTP\nexec {COMMAND} worker\n"
    )
    bench.script(
        "deaf.py",
        """
        import signal, sys, time
        names = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGTSTP"]
        deaf = [name for name in names if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN]
        print("deaf to", deaf, "blocked", signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            print("heard", flush=True)
        """,
    )
    with subprocess.Popen(["sh", str(script)], env=bench.environment, cwd=bench.project,
                          stdout=subprocess.DEVNULL, start_new_session=True) as worker:  # fmt: skip
        run = bench.queue("deaf.py", *BOX, "30")
        bench.wait_for(run, "timeboxed")
        worker.terminate()
        assert worker.wait(timeout=30) == 0
    assert "deaf to [] blocked set()" in bench.log(run)
    assert "heard" in bench.log(run)
    assert bench.exit_record(run)["escalated"] == "none"


@pytest.mark.parametrize("name", ["TERM", "USR1", "HUP"])
def test_another_stop_signal_can_be_chosen(bench: Bench, name: str) -> None:
    bench.script(
        "other.py",
        f"""
        import signal, sys, time
        signal.signal(signal.SIG{name}, lambda *_: sys.exit("heard {name}"))
        time.sleep(600)
        """,
    )
    run = bench.queue("other.py", *BOX, "30", "--stop-signal", name)
    bench.worker()
    bench.wait_for(run, "timeboxed")
    assert f"heard {name}" in bench.log(run)
    assert bench.exit_record(run)["escalated"] == "none"
