"""`backprop logs` and `backprop stop`, with a worker and without."""

import signal
import subprocess
import time
from pathlib import Path

from tests.support.harness import COMMAND, Bench, wait_until
from tests.support.refusals import refused
from tests.support.terminal import Terminal

READY = "print('ready', flush=True)\nimport time\ntime.sleep(60)\n"


def test_logs_of_one_segment_and_of_all(bench: Bench) -> None:
    bench.script(
        "train.py",
        """
        import os, sys
        print("segment", os.environ["BACKPROP_SEGMENT"])
        open("c" + os.environ["BACKPROP_SEGMENT"], "w").write("x")
        print('{"event": "checkpoint_saved", "path": "c%s"}' % os.environ["BACKPROP_SEGMENT"])
        sys.exit(75 if os.environ["BACKPROP_SEGMENT"] == "1" else 0)
        """,
    )
    run = bench.queue("train.py")
    assert bench.backprop("logs", run).stdout == ""
    assert "has not started yet" in bench.backprop("logs", run).stderr
    bench.worker("--drain").wait(timeout=60)
    whole = bench.backprop("logs", run).stdout
    assert whole.index("==> segment 1 <==") < whole.index("segment 1\n") < whole.index("==> segment 2 <==")
    assert bench.backprop("logs", run, "--segment", "2").stdout.splitlines()[0] == "segment 2"
    assert "no segment 3" in refused(bench, 3, "logs", run, "--segment", "3")
    assert "ended" not in whole
    for env, begin, end in (({}, "\x1b[0;2m", "\x1b[0m"), ({"NO_COLOR": "1"}, "", "")):
        with Terminal(bench, 80, "logs", run, env=env) as terminal:
            shown = terminal.read_all(raw=True)
        assert f"{begin}==> segment 1 ended: exited 75 (run me again)" in shown, shown
        assert f"{begin}==> segment 2 <=={end}\n" in shown
        assert f"{begin}==> segment 2 ended: exited 0 <=={end}\n" in shown


def test_logs_follow_a_run_to_its_end(bench: Bench) -> None:
    bench.script(
        "train.py", "import time\nfor n in range(5):\n    print('line', n, flush=True)\n    time.sleep(0.2)\n"
    )
    run = bench.queue("train.py")
    bench.worker()
    done = bench.backprop("logs", "-f", run)
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("line")] == [
        f"line {n}" for n in range(5)
    ]


def test_stop_of_a_running_run_and_of_a_waiting_one(bench: Bench) -> None:
    bench.script("train.py", READY)
    run = bench.queue("train.py", "--grace-seconds", "5")
    waiting = bench.queue("train.py", "-n", "waits")
    bench.worker("-p", "1")
    wait_until(lambda: "ready" in bench.log(run), saw=bench.output)
    done = bench.backprop("stop", run, "waits")
    assert done.returncode == 0
    assert "it has 5 s to save" in done.stdout
    assert f"stopped waits ({waiting})" in done.stdout
    shown = bench.wait_for(run, "stopped")
    assert shown["reason"].startswith("stopped by the user")
    assert bench.show(waiting)["state"] == "stopped"


def test_stop_works_without_a_worker(bench: Bench) -> None:
    """Its worker was killed; the supervisor is asked directly, and the next worker finds the run stopped."""
    bench.script("train.py", READY)
    run = bench.queue("train.py", "--grace-seconds", "5")
    worker = bench.worker()
    wait_until(lambda: "ready" in bench.log(run), saw=bench.output)
    worker.kill()
    worker.wait()
    assert bench.backprop("stop", run).returncode == 0
    wait_until(lambda: (bench.home / "runs" / run / "1" / "exit.json").exists())
    bench.worker("--drain").wait(timeout=60)
    assert bench.show(run)["state"] == "stopped"


def test_ctrl_c_is_quiet(bench: Bench) -> None:
    bench.script("train.py", READY)
    run = bench.queue("train.py")
    reader = subprocess.Popen(
        [str(COMMAND), "logs", "-f", run],
        env=bench.environment,
        cwd=bench.project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: Path(f"/proc/{reader.pid}/wchan").exists() and _sleeps(reader.pid))
    reader.send_signal(signal.SIGINT)
    out, errors = reader.communicate(timeout=30)
    assert (reader.returncode, out, errors.strip()) == (130, "", "")


def _sleeps(pid: int) -> bool:
    """In its polling loop: a while of little use of the CPU tells."""
    before = _ticks(pid)
    time.sleep(0.4)
    return before > 0 and _ticks(pid) - before <= 1


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
