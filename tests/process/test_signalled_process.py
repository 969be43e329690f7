"""The stop signal reaches the process that trains, once, below whatever started it; that has its whole grace."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from backprop.worker.supervisor import trainers
from tests.support.bare_supervisor import Stand
from tests.support.harness import SCRIPTS, Bench, alive, wait_until

TRAIN = """
import os, signal, sys, time
heard = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: heard.append(number))
print("trains", os.getpid(), flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(float(sys.argv[1]))
print("saved after", *heard, flush=True)
sys.exit(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
"""
PYTHON = sys.executable
RUN = f"{PYTHON} train.py 0.3"
LAUNCH = f'import subprocess, sys\ntrain = [{PYTHON!r}, "train.py", "0.3"]\n'
WRAPPERS = {
    "steps of a script": ("/bin/bash", "-c", f"echo first\n{RUN}\necho next step"),
    "sh": ("/bin/sh", "-c", f"{RUN}; echo next step"),
    "nested": ("/bin/sh", "-c", f"sh -c '{RUN}; echo next step'; echo next step"),
    "pipe": ("/bin/bash", "-c", f"{RUN} | tee copy; echo next step"),
    "pipes": ("/bin/sh", "-c", f"{RUN} 2>&1 | grep --line-buffered -v nothing | tee copy; echo next step"),
    "output of a subshell": ("/bin/bash", "-c", f"({RUN}; echo next step) > >(cat); echo next step"),
    "make": ("/usr/bin/make", "-s"),
    "timeout": ("/usr/bin/timeout", "60", *RUN.split()),
    "a shell with a trap": ("/bin/bash", "-c", f"trap 'echo next step' INT TERM EXIT\n{RUN}\necho next step"),
    "in the background": ("/bin/bash", "-c", f"{RUN} & wait\necho next step"),
    "beside a monitor": ("/bin/bash", "-c", f"while sleep 0.2; do :; done & {RUN}; echo next step"),
    "a launcher that waits": (PYTHON, "-c", LAUNCH + "subprocess.call(train)\nprint('next step')"),
    "one that passes on": (
        PYTHON,
        "-c",
        LAUNCH + "import signal\nchild = subprocess.Popen(train)\n"
        "signal.signal(signal.SIGINT, lambda number, _: child.send_signal(number))\n"
        "child.wait()\nprint('next step')",
    ),
    "one that reads": (
        PYTHON,
        "-uc",
        LAUNCH
        + "child = subprocess.Popen(train, stdout=-1, text=True)\nfor line in child.stdout: print(line, end='')",
    ),
}


@pytest.fixture
def stand(tmp_path: Path) -> Generator[Stand]:
    stand = Stand(tmp_path)
    (stand.work / "train.py").write_text(TRAIN)
    (stand.work / "Makefile").write_text(f"all:\n\t{RUN}\n\techo next step\n")
    yield stand
    stand.close()


def stop(stand: Stand) -> None:
    supervisor = stand.known()["supervisor"][0]
    os.kill(supervisor, signal.SIGTERM)


def was_sent(stand: Stand) -> bool:
    note = stand.segment / "stop.json"
    return note.exists() and json.loads(note.read_text())["sent"]


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_training_saves_once_and_no_next_step_begins(stand: Stand, name: str) -> None:
    stand.order(*WRAPPERS[name])
    stand.start()
    stand.wait_for_log("trains")
    stop(stand)
    record = stand.ended()
    assert "saved after 2\n" in stand.log(), stand.log()
    assert "next step" not in stand.log(), stand.log()
    assert (record["asked"], record["escalated"], record["survivors"]) == ("asked", "none", [])
    assert stand.left() == []


@pytest.mark.parametrize("name", ["steps of a script", "a launcher that waits"])
def test_its_exit_code_is_told_though_the_wrapper_was_ended(stand: Stand, name: str) -> None:
    stand.order(
        *(
            word.replace("train.py 0.3", "train.py 0.1 7").replace('"0.3"', '"0.1", "7"')
            for word in WRAPPERS[name]
        )
    )
    stand.start()
    stand.wait_for_log("trains")
    stop(stand)
    record = stand.ended()
    assert (record["exit_code"], record["signal"], record["seen_to_end"]) == (7, None, True)


def test_it_has_its_whole_grace_though_its_wrapper_dies(stand: Stand) -> None:
    """Longer than the five seconds that a TERM leaves."""
    stand.order("/bin/sh", "-c", f"{PYTHON} train.py 5.5; echo next step", grace_s=8.0)
    stand.start()
    stand.wait_for_log("trains")
    stop(stand)
    wait_until(lambda: was_sent(stand))
    os.kill(stand.leader(), signal.SIGKILL)
    assert stand.ended()["escalated"] == "none"
    assert "saved after 2\n" in stand.log(), stand.log()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_data_workers_below_a_wrapper_are_left_alone(stand: Stand, method: str) -> None:
    (stand.work / "train.py").write_text(
        f"""
import multiprocessing, signal, sys, time
heard = []
def note(number, _):
    print("worker heard", number, flush=True)
def load(queue):
    signal.signal(signal.SIGINT, note)
    while True:
        queue.put(sum(range(1000)))
if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    queue = context.Queue(2)
    workers = [context.Process(target=load, args=(queue,), daemon=True) for _ in range({1 if method == "spawn" else 2})]
    for worker in workers:
        worker.start()
    queue.get()
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    print("trains", flush=True)
    while not heard:
        queue.get()
        time.sleep(0.01)
    time.sleep(0.2)
    queue.get()
    print("saved after", *heard, flush=True)
"""
    )
    stand.order("/bin/sh", "-c", f"{RUN}; echo next step")
    stand.start()
    stand.wait_for_log("trains")
    stop(stand)
    stand.ended()
    assert "saved after 2\n" in stand.log(), stand.log()
    assert "worker heard" not in stand.log()


def test_a_launcher_that_hands_it_to_every_rank_is_signalled_itself(stand: Stand) -> None:
    stand.python(
        f"""
        import os, signal, subprocess
        environment = os.environ | {{"TORCHELASTIC_RUN_ID": "1"}}
        ranks = [subprocess.Popen([{PYTHON!r}, "train.py", "0.3"], env=environment) for _ in range(2)]
        def hand_on(number, _):
            print("handed on", flush=True)
            for rank in ranks:
                rank.send_signal(number)
        signal.signal(signal.SIGINT, hand_on)
        for rank in ranks:
            rank.wait()
        """
    )
    stand.start()
    wait_until(lambda: stand.log().count("trains") == 2)
    stop(stand)
    assert stand.ended()["exit_code"] == 0
    assert stand.log().count("handed on") == 1
    assert stand.log().count("saved after 2\n") == 2, stand.log()


def test_a_trap_takes_what_the_training_has_no_handler_for(stand: Stand) -> None:
    (stand.work / "train.py").write_text(
        "import os, time\nprint('trains', flush=True)\nwhile not os.path.exists('stop'): time.sleep(0.01)\n"
        "print('saved', flush=True)\n"
    )
    script = f"trap 'touch stop' TERM\n{RUN} & wait; wait"
    stand.order("/bin/bash", "-c", script, stop_signal=int(signal.SIGTERM))
    stand.start()
    stand.wait_for_log("trains")
    stop(stand)
    assert stand.ended()["escalated"] == "none"
    assert "saved" in stand.log()


def test_one_that_does_not_end_is_ended_with_its_wrapper(stand: Stand) -> None:
    stand.order("/bin/bash", "-c", f"{PYTHON} train.py 60; echo next step", grace_s=0.3)
    stand.start()
    stand.wait_for_log("trains")
    began_s = time.monotonic()
    stop(stand)
    record = stand.ended()
    assert (record["escalated"], record["survivors"]) == ("kill", [])
    assert time.monotonic() - began_s < 12
    assert "next step" not in stand.log()
    assert stand.left() == []


def test_a_supervisor_that_takes_over_neither_signals_again_nor_lets_the_wrapper_go_on(stand: Stand) -> None:
    stand.order("/bin/bash", "-c", f"{PYTHON} train.py 2; echo next step")
    first = stand.start()
    stand.wait_for_log("trains")
    stop(stand)
    wait_until(lambda: was_sent(stand))
    stand.replace(first)
    stand.ended()
    assert "saved after 2\n" in stand.log(), stand.log()
    assert "next step" not in stand.log()
    assert stand.left() == []


def test_a_paused_one_is_asked_too(stand: Stand) -> None:
    stand.order(*WRAPPERS["a launcher that waits"])
    supervisor = stand.start()
    stand.wait_for_log("trains")
    os.kill(supervisor.pid, signal.SIGUSR1)
    wait_until(lambda: (stand.segment / "pause.json").exists())
    stop(stand)
    stand.ended()
    assert "saved after 2\n" in stand.log(), stand.log()
    assert "next step" not in stand.log()


def test_leader_the_signal_goes_to_the_command_itself_and_the_training_has_the_grace(stand: Stand) -> None:
    command = f"{PYTHON} train.py 0.2; echo next step"
    stand.order("/bin/sh", "-c", command, grace_s=1.0, signal_to="leader", stop_signal=int(signal.SIGTERM))
    stand.start()
    stand.wait_for_log("trains")
    pid = int(stand.log().split()[1])
    began_s = time.monotonic()
    stop(stand)
    wait_until(lambda: not alive(stand.leader()))
    assert alive(pid)
    record = stand.ended()
    assert time.monotonic() - began_s >= 1.0, "its wrapper was gone at once"
    assert (record["escalated"], record["signal"]) == ("term", signal.SIGTERM)


def test_group_the_signal_goes_to_all_of_it(stand: Stand) -> None:
    stand.order(
        "/bin/bash",
        "-c",
        f"{RUN} & {RUN} & wait; wait; wait",
        signal_to="group",
        stop_signal=int(signal.SIGUSR1),
    )
    stand.start()
    wait_until(lambda: stand.log().count("trains") == 2)
    stop(stand)
    stand.ended()
    assert stand.log().count("saved after 10\n") == 2, stand.log()


def test_a_chain_behind_a_shell_script_resumes_and_show_says_what_is_signalled(bench: Bench) -> None:
    """Its steps go on from what it saved when asked; the last segment alone reaches the second step."""
    resume = '${BACKPROP_RESUME_FROM:+--resume-from "$BACKPROP_RESUME_FROM"}'
    train = f"{PYTHON} {SCRIPTS / 'trainer.py'} --save-every 0 --steps 300 {resume}"
    bench.script("train.sh", f"{train}\necho next step\n")
    planned = bench.backprop("run", "--dry-run", "--", "bash", "train.sh").stdout
    assert "SIGINT to what trains below bash" in planned
    run = bench.queue("-m", "0.06", "--at-timebox", "end", "--", "bash", "train.sh")
    bench.worker()
    bench.wait_for_log(run, '"step"')
    shown = bench.show(run)
    assert shown["signal_to"] == "trainer"
    assert [str(SCRIPTS / "trainer.py") in one["command"] for one in shown["signalled"]] == [True]
    assert f"SIGINT to {shown['signalled'][0]['pid']} (" in bench.backprop("show", run).stdout
    seen = bench.wait_for(run, "completed", "failed", "timeboxed")
    assert seen["state"] == "completed", seen["reason"]
    assert seen["segments"][0]["outcome"] == "timeboxed"
    assert all(one["checkpoint_used"] for one in seen["segments"][1:])
    assert [bench.log(run, number).count("next step") for number in (1, len(seen["segments"]))] == [0, 1]


@pytest.mark.parametrize(
    ("to", "said"),
    [("leader", "SIGINT to bash alone"), ("group", "SIGINT to every process in the group of bash")],
)
def test_signal_to_is_an_option_and_is_said(bench: Bench, to: str, said: str) -> None:
    assert said in bench.backprop("run", "--dry-run", "--signal-to", to, "--", "bash", "-c", "true").stdout


def test_where_nothing_can_be_told_the_leader_is_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_descriptors(_path: str) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "listdir", out_of_descriptors)
    assert trainers.find(1, signal.SIGINT) == trainers.Trainers((1,), (1,))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_shell_that_is_just_starting_its_sleep_is_not_taken_for_the_training(tmp_path: Path) -> None:
    """It would count as ended with that sleep, in the middle of the shell's grace. strace makes each exec late."""
    script = tmp_path / "wait.sh"
    script.write_text("trap '' INT\nwhile :; do sleep 0.3; done\n")
    late = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=execve:delay_enter=60000:when=1")
    with subprocess.Popen([*late, "sh", str(script)], start_new_session=True) as tracer:
        try:
            for _ in range(3):
                wait_until(lambda: len(forked(tracer.pid)) == 2)
                shell = forked(tracer.pid)[0]
                assert trainers.find(shell, signal.SIGINT).working == (shell,)
        finally:
            os.killpg(tracer.pid, signal.SIGKILL)


def forked(tracer: int) -> list[int]:
    """Return the processes below `tracer` that run its shell, the upper one first."""
    below = psutil.Process(tracer).children(recursive=True)
    return [one.pid for one in below if trainers.names(one.pid) & trainers.SHELLS]
