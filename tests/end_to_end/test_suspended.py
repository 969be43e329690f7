"""Runs that save nothing share one slot: each is started once, stands still while others have their turn, completes."""

import json
import os
import re
import signal
from typing import Any

import pytest

from tests.support.harness import Bench, alive, wait_until
from tests.support.terminal import Terminal

BOX_MIN = "0.05"
"""Three seconds."""
SAVES_NOTHING = """
    import os, sys, time
    with open(f"starts-{os.environ['BACKPROP_RUN_ID']}", "a") as file:
        file.write("x")
    total = 0
    for step in range(int(sys.argv[1])):
        total += step
        print("at", step, flush=True)
        time.sleep(0.05)
    print("total", total, flush=True)
"""
LONG = "100000"


def starts(bench: Bench, run: str) -> int:
    path = bench.project / f"starts-{run}"
    return len(path.read_text()) if path.exists() else 0


def queue(bench: Bench, name: str, steps: str = LONG, *words: str) -> str:
    return bench.queue("plain.py", "-m", BOX_MIN, "-n", name, *words, "--", steps)


def stands_still(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] == "T"


def test_three_that_save_nothing_take_turns_in_one_slot(bench: Bench) -> None:
    bench.script("plain.py", SAVES_NOTHING)
    runs = [queue(bench, name, "110") for name in ("a", "b", "c")]
    bench.worker("-p", "1", "--drain")
    wait_until(lambda: bench.state(runs[0]) == "suspended", saw=bench.output)
    wait_until(lambda: bench.state(runs[1]) == "suspended", saw=bench.output)
    shown = [bench.wait_for(run, "completed", "failed", "timeboxed", "stopped") for run in runs]
    for run, one in zip(runs, shown, strict=True):
        assert one["state"] == "completed"
        ((outcome, boxes),) = [(segment["outcome"], segment["boxes"]) for segment in one["segments"]]
        assert (outcome, starts(bench, run)) == ("completed", 1)
        assert boxes >= 2
        assert f"total {sum(range(110))}\n" in bench.log(run)
    assert shown[0]["ended_at"] > shown[2]["started_at"]
    account_for(bench, runs[0])


def account_for(bench: Bench, run: str) -> None:
    """The books have each of the three in the one slot while it runs, and nowhere else."""
    suspensions = bench.show(run)["suspensions"]
    assert len(suspensions) >= 1
    assert all(
        one["ordered_at"] <= one["left_at"] <= one["claimed_at"] <= one["on_at"] for one in suspensions
    )
    told = json.loads(bench.backprop("report", "--since", "2m", "--json").stdout)
    (slot,) = told["units"]
    assert sum(slot["seconds"].values()) == told["wall_s"]
    assert slot["seconds"]["paused"] == 0
    shown = bench.backprop("show", run).stdout
    assert re.search(r"^suspended +\w+( times)?, [\d.]+s in all$", shown, re.MULTILINE), shown


def suspended(bench: Bench, *names: str) -> list[str]:
    """Have one run suspended beside another that runs, and one worker."""
    bench.script("plain.py", SAVES_NOTHING)
    runs = [queue(bench, name) for name in names]
    bench.worker("-p", "1")
    wait_until(lambda: bench.state(runs[0]) == "running", saw=bench.output)
    done = bench.backprop("suspend", runs[0])
    assert done.returncode == 0, done.stderr
    assert "it keeps" in done.stderr + done.stdout
    assert bench.state(runs[0]) == "suspended"
    assert stands_still(bench.leader(runs[0]))
    return runs


def stop(bench: Bench, run: str) -> None:
    """No end of a worker ends a suspended run."""
    assert bench.backprop("stop", run).returncode == 0
    bench.wait_for(run, "stopped")


def test_its_user_suspends_a_run_and_lets_it_go_on(bench: Bench) -> None:
    first, second = suspended(bench, "a", "b")
    wait_until(lambda: bench.state(second) == "running", saw=bench.output)
    assert "backprop unsuspend" in str(bench.column(first, "reason"))
    assert bench.backprop("unsuspend", first).returncode == 0
    assert bench.backprop("stop", second).returncode == 0
    wait_until(lambda: bench.state(first) == "running", saw=bench.output)
    wait_until(lambda: not stands_still(bench.leader(first)))
    assert bench.backprop("unsuspend", first).returncode == 10
    assert starts(bench, first) == 1
    assert bench.backprop("stop", first).returncode == 0
    assert len(bench.wait_for(first, "stopped")["segments"]) == 1


def test_what_other_verbs_do_to_a_suspended_run(bench: Bench) -> None:
    (run,) = suspended(bench, "a")
    leader = bench.leader(run)
    for verb in ("rm", "edit", "resume"):
        assert bench.backprop(verb, run).returncode == 10
    assert bench.backprop("hold", run).returncode == 0
    assert bench.backprop("move", run, "--first").returncode == 0
    assert bench.state(run) == "suspended"
    assert stands_still(leader)
    for words in (("list",), ()):  # the overview, and the frame of `top`
        with Terminal(bench, 100, *words) as terminal:
            shown = terminal.read_all()
        rows = [line for line in shown.splitlines() if line.startswith("a ")]
        assert len(rows) == 1, f"{words} shows it once: {shown}"
    assert bench.backprop("release", run).returncode == 0
    wait_until(lambda: bench.state(run) == "running", saw=bench.output)
    assert bench.backprop("suspend", "--all", "--for", "1s").returncode == 0
    wait_until(lambda: bench.state(run) == "running", saw=bench.output)
    assert bench.backprop("suspend", run).returncode == 0
    assert bench.backprop("stop", run).returncode == 0
    assert bench.wait_for(run, "stopped")["segments"][0]["outcome"] == "stopped"
    wait_until(lambda: not alive(leader))
    assert bench.backprop("rm", run).returncode == 0


def test_the_next_worker_keeps_a_suspended_run_as_it_is(bench: Bench) -> None:
    (run,) = suspended(bench, "a")
    leader = bench.leader(run)
    (worker,) = bench.workers
    assert bench.end_worker(worker, signal.SIGINT) in (0, 130)
    assert stands_still(leader)
    second = bench.worker("-p", "1")
    wait_until(lambda: "adopted" in bench.output(1), saw=lambda: bench.output(1))
    os.kill(bench.supervisor(run), signal.SIGKILL)
    wait_until(lambda: "no supervisor" in bench.output(1), saw=lambda: bench.output(1))
    assert stands_still(leader)
    assert bench.state(run) == "suspended"
    second.kill()
    second.wait()
    (bench.home / "backprop.db").unlink()
    for path in bench.home.glob("backups/*"):
        path.unlink()
    bench.worker("-p", "1")
    wait_until(lambda: "put back from its folder" in bench.output(2), saw=lambda: bench.output(2))
    assert bench.state(run) == "suspended"
    assert bench.backprop("unsuspend", run).returncode == 0
    wait_until(lambda: bench.state(run) == "running", saw=lambda: bench.output(2))
    wait_until(lambda: not stands_still(leader))
    assert bench.leader(run) == leader
    assert starts(bench, run) == 1
    stop(bench, run)


@pytest.mark.parametrize(
    "failpoint",
    [
        "recording suspension",
        "thaw claimed",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in (
                "ordering suspension", "ordered suspension", "recorded suspension", "box given", "thaw ordered",
            )
        ),
    ],
)  # fmt: skip
def test_a_worker_is_killed_at_any_step(bench: Bench, failpoint: str) -> None:
    """Of two runs that share a slot: no second copy is started, and both complete."""
    bench.script("plain.py", SAVES_NOTHING)
    runs = [queue(bench, name, "90") for name in ("a", "b")]
    worker = bench.worker("-p", "1", "--drain", env={"BACKPROP_FAILPOINT": f"{failpoint}:kill"})
    worker.wait(timeout=60)
    leaders: dict[str, Any] = {run: bench.leader(run) for run in runs if starts(bench, run)}
    bench.worker("-p", "1", "--drain")
    for run in runs:
        assert bench.wait_for(run, "completed", "failed", "timeboxed")["state"] == "completed"
        assert starts(bench, run) == 1
        assert f"total {sum(range(90))}\n" in bench.log(run)
    assert all(bench.leader(run) == pid for run, pid in leaders.items())
