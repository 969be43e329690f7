"""`backprop run --follow`: the run's output live, its end as the exit code, and Ctrl-C with and without a worker."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.harness import COMMAND, QUIET_LIMITS, Bench, program, wait_until
from tests.support.terminal import Terminal

CHAIN = """
    import json, os, signal, sys, time
    path = os.environ.get("BACKPROP_RESUME_FROM")
    step = int(open(path).read()) if path else 0
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    while step < 30 and not stop:
        time.sleep(0.05)
        step += 1
        print("step", step)
    with open(f"{step}.tmp", "w") as file:
        file.write(str(step))
    os.replace(f"{step}.tmp", f"{step}.ckpt")
    print(json.dumps({"event": "checkpoint_saved", "path": f"{step}.ckpt", "step": step}))
    sys.exit(130 if stop else 0)
"""
ENDLESS = CHAIN.replace("step < 30", "step < 100000")


def follow(bench: Bench, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return bench.backprop("run", "--follow", *QUIET_LIMITS, *words, timeout_s=timeout_s)


def steps(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("step ")]


def test_without_a_worker_it_is_one_for_its_whole_chain(bench: Bench) -> None:
    bench.script("train.py", CHAIN)
    done = follow(bench, "train.py", "-m", "0.01", "--at-timebox", "end")
    assert done.returncode == 0, done.stderr
    assert steps(done.stdout) == list(range(1, 31)), "every line of every segment, once and in order"
    assert "==> segment 2 <==" in done.stdout
    (run,) = bench.runs()
    assert (run["state"], run["last_step"]) == ("completed", 30)
    assert run["segment_count"] >= 2
    times = "once" if run["segment_count"] == 2 else f"{run['segment_count'] - 1} times"
    *_, told, last = done.stderr.splitlines()
    assert told.startswith(f"{run['segment_count']} segments: stopped and resumed {times}, ")
    assert told.endswith("; step 30")
    assert last == f"{run['id']} completed: exited 0"


def test_a_terminal_sees_one_line_for_all_events_and_where_each_segment_resumes(bench: Bench) -> None:
    bench.script("train.py", CHAIN.replace('print("step", step)', 'print(json.dumps({"step": step}))'))
    words = ("run", "--follow", *QUIET_LIMITS, "train.py", "-m", "0.01", "--at-timebox", "end")
    with Terminal(bench, 100, *words) as terminal:
        shown = terminal.read_all()
    assert terminal.process.returncode == 0, shown
    assert '{"' not in shown
    assert "  step 30  saved at step 30" in shown
    assert re.search(r"==> segment 2, resumes from \d+\.ckpt <==", shown), shown


@pytest.mark.parametrize(
    ("body", "words", "code", "state"),
    [
        ("import sys; sys.exit('bad data')", (), 20, "failed"),
        ("import time; print('on'); time.sleep(60)", ("-m", "0.01", "--at-timebox", "end"), 21, "timeboxed"),
    ],
)
def test_its_exit_code_is_the_outcome(
    bench: Bench, body: str, words: tuple[str, ...], code: int, state: str
) -> None:
    bench.script("train.py", body)
    done = follow(bench, "train.py", *words)
    assert done.returncode == code
    (run,) = bench.runs()
    assert run["state"] == state
    assert done.stderr.splitlines()[-1] == f"{run['id']} {state}: {run['reason']}"


def test_a_run_that_somebody_stops_ends_its_follower(bench: Bench) -> None:
    """We are its worker; the stop comes from another terminal."""
    bench.script("train.py", ENDLESS)
    with Terminal(bench, 100, "run", "--follow", *QUIET_LIMITS, "train.py") as terminal:
        terminal.read_until("step 3")
        assert bench.backprop("stop", "train").returncode == 0
        shown = terminal.read_all()
    assert terminal.process.returncode == 22, shown
    assert bench.runs()[0]["state"] == "stopped"
    assert "stopped: stopped by the user" in shown


def test_one_that_cannot_start_says_what_it_waits_for(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    words = ["run", "--follow", *QUIET_LIMITS, "train.py"]
    words[words.index("--min-free-ram") + 1] = _more_ram_than_free()
    with Terminal(bench, 150, *words) as terminal:
        terminal.read_until("of free RAM")
        terminal.press("\x03")
        shown = terminal.read_all()
    assert terminal.process.returncode == 130
    assert "stays queued" in shown


def test_as_its_worker_it_outlives_its_database(bench: Bench) -> None:
    """Deleted under it: the worker repairs it, and whoever asks for the outcome afterwards asks the new one."""
    bench.script("train.py", CHAIN)
    with Terminal(bench, 150, "run", "--follow", *QUIET_LIMITS, "train.py") as terminal:
        terminal.read_until("step 3")
        (bench.home / "backprop.db").unlink()
        shown = terminal.read_all()
    assert terminal.process.returncode == 0, shown
    (run,) = bench.runs()
    assert (run["state"], run["last_step"], run["segment_count"]) == ("completed", 30, 1)
    assert f"{run['id']} completed: exited 0" in shown


def test_ctrl_c_as_its_worker_lets_it_save_and_stay_queued(bench: Bench) -> None:
    bench.script("train.py", ENDLESS)
    with Terminal(bench, 100, "run", "--follow", *QUIET_LIMITS, "train.py") as terminal:
        terminal.read_until("step 3")
        terminal.press("\x03")
        shown = terminal.read_all()
    assert terminal.process.returncode == 130, shown
    (run,) = bench.runs()
    assert f"{run['id']} stays queued; continue with: backprop worker" in shown
    assert run["state"] == "queued"
    assert run["last_checkpoint"] is not None
    assert Path(run["last_checkpoint"]).read_text() == str(run["last_step"]), "saved after the signal"
    assert "Traceback" not in bench.log(run["id"])


def test_beside_a_worker_it_only_watches(bench: Bench) -> None:
    bench.script("train.py", CHAIN)
    worker = bench.worker()
    wait_until(lambda: "ready" in bench.output())
    done = follow(bench, "train.py", "-m", "0.01", "--at-timebox", "end")
    assert done.returncode == 0, done.stderr
    assert steps(done.stdout) == list(range(1, 31))
    assert "completed" in bench.output(), "it was the worker that ran it"
    assert bench.end_worker(worker) == 0


def test_a_worker_that_is_quicker_than_the_watcher_hides_nothing(bench: Bench) -> None:
    """It had begun, and even ended, before `run --follow` looked for the first time."""
    bench.script("train.py", CHAIN)
    run = bench.queue("train.py", "-m", "0.01")
    worker = bench.worker()
    bench.wait_for(run, "completed")
    done = subprocess.run([*program("follow"), run], env=bench.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert steps(done.stdout) == list(range(1, 31))
    assert bench.end_worker(worker) == 0


def test_it_is_a_worker_for_its_run_however_many_wait_before_it(bench: Bench) -> None:
    bench.script("train.py", CHAIN)
    assert bench.backprop("run", "-q", *QUIET_LIMITS, "--array", "1-250", "train.py").returncode == 0
    done = follow(bench, "train.py")
    assert done.returncode == 0, done.stderr
    assert steps(done.stdout) == list(range(1, 31))
    assert bench.backprop("list", "--state", "queued", "-n", "0", "--json").stdout.count('"id"') == 250


def test_ctrl_c_beside_a_worker_leaves_the_run_alone(bench: Bench) -> None:
    bench.script("train.py", ENDLESS)
    bench.worker()
    wait_until(lambda: "ready" in bench.output())
    with Terminal(bench, 100, "run", "--follow", *QUIET_LIMITS, "train.py") as terminal:
        terminal.read_until("step 3")
        terminal.press("\x03")
        shown = terminal.read_all()
    assert terminal.process.returncode == 130
    (run,) = bench.runs()
    assert f"{run['id']} continues; watch it with: backprop logs -f {run['id']}" in shown
    assert run["state"] == "running"
    before = len(bench.log(run["id"]))
    wait_until(lambda: len(bench.log(run["id"])) > before)
    bench.backprop("stop", run["id"])
    bench.wait_for(run["id"], "stopped")


def test_a_closed_terminal_leaves_the_run_alone(bench: Bench) -> None:
    """We were its worker: the segment goes on, and the next worker takes it over."""
    bench.script("train.py", CHAIN)
    follower = subprocess.Popen(
        [str(COMMAND), "run", "--follow", *QUIET_LIMITS, "train.py"],
        env=bench.environment,
        cwd=bench.project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: bench.runs() and "step 1" in bench.log(bench.runs()[0]["id"]), saw=bench.runs)
    follower.send_signal(signal.SIGHUP)
    assert follower.wait(timeout=30) == 130
    bench.worker("--drain").wait(timeout=60)
    (run,) = bench.runs()
    assert (run["state"], run["segment_count"]) == ("completed", 1)


def test_nobody_relies_on_a_follower_to_start_anything_else(bench: Bench) -> None:
    """It is a worker for its own run alone: another one is told to start a worker, and is followed by its own."""
    bench.script("train.py", ENDLESS)
    bench.script("short.py", "print('short')")
    with Terminal(bench, 100, "run", "--follow", *QUIET_LIMITS, "train.py") as terminal:
        terminal.read_until("step 3")
        second = bench.backprop("run", *QUIET_LIMITS, "short.py", "-n", "second")
        assert "no worker is running" in second.stderr
        third = follow(bench, "short.py", "-n", "third")
        assert third.returncode == 0
        assert "short" in third.stdout
        assert bench.show("second")["state"] == "queued"
        terminal.press("\x03")
        terminal.read_all()


def _more_ram_than_free() -> str:
    """GB: less than the machine has, so that waiting makes sense, and more than is free."""
    found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {name: int(value.split()[0]) for name, value in found.items()}
    return f"{(kib['MemTotal'] + kib['MemAvailable']) / 2 / 1024**2:.3f}"
