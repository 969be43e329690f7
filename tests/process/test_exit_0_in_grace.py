"""Exit 0 within the grace completes a run whose output shows its end alone; of others the user is asked."""

import signal

from tests.support.harness import Bench
from tests.support.refusals import refused

FINISHES = """
    import signal, time
    stopped = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
    for step in range(1, 31):
        print(f"step {step}/30 loss {1 / step:.3f}", flush=True)
        while step == 20 and not stopped:
            time.sleep(0.02)
    print("result written")
"""
LEAVES = """
    import sys, time
    print("Epoch 1/1", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted: exiting early")
        sys.exit(0)
"""
FINAL_PART = """
    import sys, time
    print("Training complete in 0m 1s", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("test accuracy 0.9")
"""
TOLD = """
    import os, time
    os.environ["BACKPROP_DEADLINE"] = "1"
    import backprop
    for step in range(1, 6):
        backprop.log(step=step, total=5)
    assert backprop.should_stop()
"""


def test_what_shows_its_end_is_completed_and_what_does_not_waits_for_its_user(bench: Bench) -> None:
    for name, body in (("finishes", FINISHES), ("leaves", LEAVES), ("final", FINAL_PART), ("told", TOLD)):
        bench.script(f"{name}.py", body)
    bench.script("next.py", "print('next')")
    box = ("-m", "0.04", "--at-timebox", "end")
    done = {name: bench.queue(f"{name}.py", *box) for name in ("finishes", "final")}
    done["told"] = bench.queue("told.py", *box)
    leaves = bench.queue("leaves.py", *box)
    after = bench.queue("next.py", "--after", leaves)
    worker = bench.worker("-p", "4")

    reasons = {name: bench.wait_for(run, "completed", "timeboxed", "failed") for name, run in done.items()}
    assert {name: seen["state"] for name, seen in reasons.items()} == dict.fromkeys(done, "completed"), (
        reasons
    )
    assert reasons["finishes"]["reason"] == "finished: step 30/30; exited 0 within its grace"
    assert "it had said that training was over" in reasons["final"]["reason"]
    assert "step 5/5" in reasons["told"]["reason"]

    seen = bench.wait_for(leaves, "completed", "timeboxed", "failed")
    assert (seen["state"], seen["exit_code"]) == ("timeboxed", 0)
    assert (
        f"it exited 0 within its grace: if it had finished, backprop resume --done {leaves}" in seen["reason"]
    )
    assert f"backprop resume {leaves}" in seen["reason"]
    assert bench.state(after) == "queued"
    late = bench.queue("next.py", "--after", leaves)
    assert f"backprop resume --done {leaves}" in bench.backprop("why", late).stdout

    told = bench.backprop("resume", "--done", leaves)
    assert (told.returncode, told.stdout) == (0, f"leaves ({leaves}) counts as completed\n")
    assert bench.show(leaves)["state"] == "completed"
    assert '"completed"' in (bench.folder(leaves).parent / "outcome.json").read_text()
    for run in (after, late):
        assert bench.wait_for(run, "completed", "stopped", "failed")["state"] == "completed"
    assert bench.end_worker(worker, signal.SIGTERM) == 0


def test_only_what_has_ended_otherwise_can_be_declared_done(bench: Bench) -> None:
    bench.script("next.py", "print('next')")
    queued, stopped = bench.queue("next.py"), bench.queue("next.py", "--group", "g")
    assert "only a run that is held, or has ended and is not completed" in refused(
        bench, 10, "resume", "--done", queued
    )
    bench.backprop("stop", stopped)
    for words in (("--from-scratch",), ("-m", "5")):
        assert "--done queues nothing" in refused(bench, 2, "resume", "--done", stopped, *words)
    assert "can be declared done: 1 stopped" in refused(bench, 3, "resume", "--done", "g")
    assert bench.backprop("resume", "--done", stopped, "--dry-run").stdout.startswith("would declare done")
    assert bench.state(stopped) == "stopped"
    assert bench.backprop("resume", "--done", "--group", "g", "--state", "stopped").returncode == 0
    assert bench.state(stopped) == "completed"
    assert "can be declared done" in refused(bench, 10, "resume", "--done", stopped)
