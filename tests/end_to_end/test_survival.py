"""What dies costs a run nothing, or the work since its last checkpoint: worker, terminal, supervisor, leader.

Each test kills with real signals, mid-segment, and looks at what the next worker makes of it.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.fake_gpus import impatient
from tests.support.harness import COMMAND, SCRIPTS, Bench, alive, wait_until

TRAINER = str(SCRIPTS / "trainer.py")
SAVED = "checkpoint_saved"


def started(bench: Bench, *script_words: str, minutes: str = "10", words: tuple[str, ...] = ()) -> str:
    """A trainer that has saved once, under no worker yet but the one the test starts."""
    return bench.queue(
        TRAINER, "-m", minutes, "--at-timebox", "end", "--grace-seconds", "20", *words, "--", *script_words
    )


def checkpoints_told(bench: Bench, run: str, segment: int = 1) -> list[str]:
    lines = [line for line in bench.log(run, segment).splitlines() if SAVED in line]
    return [json.loads(line)["path"] for line in lines]


def assert_never_double(bench: Bench) -> None:
    assert not (bench.project / "doubles").exists(), (bench.project / "doubles").read_text()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))


def wait_for_step_after(bench: Bench, run: str, segment: int = 1) -> None:
    """Wait until the script has saved once more than it has now: it goes on."""
    before = len(checkpoints_told(bench, run, segment))
    wait_until(lambda: len(checkpoints_told(bench, run, segment)) > before)


def finish(bench: Bench, run: str) -> None:
    """End what a test leaves running, as a user would."""
    bench.backprop("stop", run)
    bench.wait_for(run, "stopped")


def go_on_without_worker(bench: Bench, run: str) -> None:
    """The segment saves, ends on time, and is resumed by the next worker from what it saved meanwhile."""
    before = checkpoints_told(bench, run)
    wait_for_step_after(bench, run)
    record = bench.exit_record(run)
    assert record["asked"] == "timebox"
    assert record["escalated"] == "none"
    wait_until(lambda: not bench.left(), saw=bench.left)
    assert bench.state(run) == "running", "nobody lives who could have settled it"
    newest = checkpoints_told(bench, run)[-1]
    assert newest not in before
    bench.worker()
    seen = bench.wait_for(run, "completed")
    first, second = seen["segments"][:2]
    assert first["outcome"] == "timeboxed"
    assert 3.0 <= first["running_s"] < 3.0 + 20
    assert second["checkpoint_used"] == str(bench.project / newest)
    assert_never_double(bench)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_segment_goes_on_without_its_worker_and_is_resumed_by_the_next(
    bench: Bench, number: signal.Signals
) -> None:
    run = started(bench, "--steps", "150", minutes="0.05")
    worker = bench.worker()
    bench.wait_for_log(run, SAVED)
    code = bench.end_worker(worker, number)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert alive(bench.leader(run))
    assert alive(bench.supervisor(run))
    go_on_without_worker(bench, run)


def test_another_worker_takes_over_what_a_dead_one_leaves(bench: Bench) -> None:
    run = started(bench, "--steps", "150", minutes="0.04")
    first = bench.worker()
    bench.wait_for_log(run, SAVED)
    bench.worker(command=impatient("worker.loop.RECONCILE_EVERY_S=0.5"))
    wait_until(lambda: "ready" in bench.output(1), saw=lambda: bench.output(1))
    bench.end_worker(first, signal.SIGKILL)
    seen = bench.wait_for(run, "completed")
    assert "adopted" in bench.output(1)
    assert len(seen["segments"]) >= 2
    assert_never_double(bench)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_segment_outlives_its_tmux_server(bench: Bench, tmp_path: Path) -> None:
    socket = f"backprop-test-{os.getpid()}"
    environment = bench.environment | {"TMUX_TMPDIR": str(tmp_path)}
    environment.pop("TMUX", None)

    def tmux(*words: str) -> None:
        subprocess.run(["tmux", "-L", socket, "-f", "/dev/null", *words], env=environment, check=True, timeout=30,
                       cwd=bench.project)  # fmt: skip

    run = started(bench, "--steps", "150", minutes="0.05")
    tmux("new-session", "-d", f"exec {COMMAND} worker")
    try:
        bench.wait_for_log(run, SAVED)
        leader, supervisor = bench.leader(run), bench.supervisor(run)
    finally:
        tmux("kill-server")
    wait_until(lambda: set(bench.left()) == {leader, supervisor}, saw=bench.left)
    go_on_without_worker(bench, run)


def test_a_worker_under_nohup_stays_when_its_terminal_goes(bench: Bench) -> None:
    script = bench.script("nohup.sh", f"trap '' HUP\nexec {COMMAND} worker\n")
    worker = subprocess.Popen(["sh", str(script)], env=bench.environment, cwd=bench.project,
                              stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    try:
        run = started(bench, "--steps", "3")
        bench.wait_for(run, "completed")
        worker.send_signal(signal.SIGHUP)
        again = started(bench, "--steps", "3")
        bench.wait_for(again, "completed")
        assert worker.poll() is None
    finally:
        worker.terminate()
        assert worker.wait(timeout=30) == 0


def test_a_dead_supervisor_is_replaced_and_the_deadline_still_holds(bench: Bench) -> None:
    run = started(bench, "--steps", "150", minutes="0.05")
    bench.worker()
    bench.wait_for_log(run, SAVED)
    leader, supervisor = bench.leader(run), bench.supervisor(run)
    kill(supervisor)
    wait_until(lambda: bench.supervisor(run) not in (0, supervisor))
    assert bench.leader(run) == leader
    assert alive(leader), "recovery never touches a leader that lives"
    seen = bench.wait_for(run, "completed")
    first, second = seen["segments"][:2]
    assert first["outcome"] == "timeboxed"
    assert first["running_s"] >= 3.0
    assert second["checkpoint_used"] == str(bench.project / checkpoints_told(bench, run)[-1])
    assert_never_double(bench)


def test_a_leader_that_ends_well_after_its_supervisor_died_is_not_called_a_failure(bench: Bench) -> None:
    """Who is not its parent may not learn its exit code; its script, resumed, tells by ending again."""
    run = started(bench, "--steps", "60")
    bench.worker()
    bench.wait_for_log(run, SAVED)
    kill(bench.supervisor(run))
    seen = bench.wait_for(run, "completed", "failed")
    assert seen["state"] == "completed", seen["reason"]
    assert_never_double(bench)


def test_a_stop_asked_while_the_supervisor_is_dead_is_delivered_by_the_next(bench: Bench) -> None:
    run = started(bench)
    bench.worker()
    bench.wait_for_log(run, SAVED)
    kill(bench.supervisor(run))
    assert bench.backprop("stop", run).returncode == 0
    seen = bench.wait_for(run, "stopped")
    assert seen["segments"][0]["outcome"] == "stopped"
    assert "stops at step" in bench.log(run)


def test_a_lost_segment_costs_the_work_since_its_last_checkpoint(bench: Bench) -> None:
    run = started(bench, "--steps", "120")
    bench.worker()
    bench.wait_for_log(run, SAVED)
    supervisor, leader = bench.supervisor(run), bench.leader(run)
    os.kill(supervisor, signal.SIGSTOP)  # so that it cannot record the end it would see
    kill(leader)
    kill(supervisor)
    seen = bench.wait_for(run, "completed")
    first, second = seen["segments"]
    assert first["outcome"] == "lost"
    assert "segment 1 disappeared (killed" in first["reason"]
    assert second["checkpoint_used"] == str(bench.project / checkpoints_told(bench, run)[-1])
    assert_never_double(bench)


def test_everything_killed_at_once_is_resumed_by_the_next_worker(bench: Bench) -> None:
    run = started(bench, "--steps", "120")
    worker = bench.worker()
    bench.wait_for_log(run, SAVED)
    for pid in (worker.pid, bench.supervisor(run), bench.leader(run)):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not bench.left(), saw=bench.left)
    assert not (bench.folder(run) / "exit.json").exists()
    told = checkpoints_told(bench, run)
    worker.wait()
    bench.worker()
    seen = bench.wait_for(run, "completed")
    assert [one["outcome"] for one in seen["segments"]] == ["lost", "completed"]
    assert seen["segments"][1]["checkpoint_used"] == str(bench.project / told[-1])
    assert_never_double(bench)


def test_a_straggler_of_a_dead_segment_is_ended_before_the_run_goes_on(bench: Bench) -> None:
    """Supervisor and leader killed, a child of the leader's lives on and holds the log."""
    bench.script(
        "parent.py",
        """
        import json, os, subprocess, sys, time
        if os.environ["BACKPROP_SEGMENT"] == "2":
            sys.exit(0)
        open("ckpt", "w").write("1")
        subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 0.1; done"])
        print(json.dumps({"event": "checkpoint_saved", "path": "ckpt", "step": 1}), flush=True)
        time.sleep(600)
        """,
    )
    run = bench.queue("parent.py")
    bench.worker()
    bench.wait_for_log(run, SAVED)
    supervisor, leader = bench.supervisor(run), bench.leader(run)
    os.kill(supervisor, signal.SIGSTOP)
    kill(leader)
    kill(supervisor)
    seen = bench.wait_for(run, "completed")
    assert [one["outcome"] for one in seen["segments"]] == ["lost", "completed"]


def test_a_leader_killed_from_outside_takes_its_children_along_and_says_so(bench: Bench) -> None:
    bench.script(
        "parent.py",
        """
        import subprocess, time
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        print("ready", flush=True)
        time.sleep(600)
        """,
    )
    run = bench.queue("parent.py")
    worker = bench.worker()
    bench.wait_for_log(run, "ready")
    os.kill(bench.leader(run), signal.SIGKILL)
    seen = bench.wait_for(run, "failed")
    assert "SIGKILL" in seen["reason"]
    assert "out of memory" in seen["reason"]
    assert bench.busy() == [worker.pid]


def test_a_frozen_supervisor_disturbs_nothing_and_ends_the_segment_once_it_runs_again(bench: Bench) -> None:
    run = started(bench, "--steps", "200", minutes="0.03")
    bench.worker()
    bench.wait_for_log(run, SAVED)
    supervisor = bench.supervisor(run)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        bench.wait_for_log(run, '"step": 110,')  # past its deadline at 0.02 s a step, and not blocked
        assert bench.state(run) == "running"
    finally:
        os.kill(supervisor, signal.SIGCONT)
    seen = bench.wait_for(run, "completed")
    assert seen["segments"][0]["outcome"] == "timeboxed"
    assert_never_double(bench)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_supervisor_that_stays_frozen_is_roused_or_replaced_by_the_worker(
    bench: Bench, replaced: bool
) -> None:
    """Replaced at once where its patience is taken away altogether."""
    run = bench.queue(
        TRAINER, "-m", "0.03", "--at-timebox", "end", "--grace-seconds", "1", "--max-segments", "1"
    )
    patience = (
        "worker.segments.supervisor_watchdog.LINGER_S=0",
        "worker.segments.supervisor_watchdog.MARGIN_S=0",
    )
    bench.worker(
        command=impatient(
            *patience, f"worker.segments.supervisor_watchdog.REPLACE_AFTER_S={-1 if replaced else 60}"
        )
    )
    bench.wait_for_log(run, SAVED)
    supervisor = bench.supervisor(run)
    os.kill(supervisor, signal.SIGSTOP)
    seen = bench.wait_for(run, "timeboxed")
    assert seen["segments"][0]["outcome"] == "timeboxed"
    assert ("replaced" in bench.output()) == replaced
    assert bench.exit_record(run)["escalated"] == "none"
    assert "stops at step" in bench.log(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_to_a_worker_asks_segments_to_checkpoint_and_requeues_them(
    bench: Bench, number: signal.Signals
) -> None:
    run = started(bench)
    other = bench.queue(TRAINER, "-m", "10", "-p", "1")
    worker = bench.worker()
    bench.wait_for_log(run, SAVED)
    assert bench.end_worker(worker, number) == 0
    seen = bench.show(run)
    assert seen["state"] == "queued"
    assert seen["segments"][0]["outcome"] == "yielded"
    assert "the worker was stopped" in seen["reason"]
    assert "stops at step" in bench.log(run)
    assert seen["last_checkpoint"] == str(bench.project / checkpoints_told(bench, run)[-1])
    assert bench.show(other)["segments"] == [], "nothing is claimed any more"
    assert bench.left() == []


def test_the_second_signal_to_a_worker_ends_segments_at_once(bench: Bench) -> None:
    run = bench.queue(TRAINER, "-m", "10", "--grace-seconds", "600", "--", "--deaf", "INT", "--deaf", "TERM")
    worker = bench.worker()
    bench.wait_for_log(run, SAVED)
    worker.send_signal(signal.SIGINT)
    wait_until(lambda: "asked to checkpoint" in bench.output(), saw=bench.output)
    assert bench.end_worker(worker, signal.SIGINT) == 0
    seen = bench.show(run)
    assert seen["state"] == "queued"
    assert seen["segments"][0]["outcome"] == "yielded"
    assert bench.exit_record(run)["escalated"] == "kill"
    assert bench.left() == []


def test_a_stop_that_comes_before_the_supervisor_is_up_is_not_its_death(bench: Bench) -> None:
    """The supervisor is an interpreter that needs its time to start; TERM must wait for it."""
    run = started(bench)
    worker = bench.worker()
    wait_until(lambda: bench.state(run) == "running", timeout_s=10)
    assert bench.end_worker(worker) == 0
    seen = bench.show(run)
    assert seen["state"] == "queued"
    assert [one["outcome"] for one in seen["segments"]] == ["yielded"]
    assert bench.exit_record(run)["asked"] == "asked"
