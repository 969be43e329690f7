"""A run that hangs is ended, with its stacks, and goes on from its last checkpoint; one that works is left alone."""

import json
import signal

import pytest

from backprop.scheduler.lifecycle import Intent
from tests.support.harness import Bench, program, wait_until

HANGS = """
    import os, sys, time
    import backprop

    from pathlib import Path

    at = backprop.resume_from()
    first = int(Path(at).read_text()) if at else 0
    for step in range(first + 1, 200):
        backprop.log(step=step, loss=1.0)
        time.sleep(0.1)
        if step % 10 == 0:
            Path(sys.argv[2]).write_text(str(step))
            backprop.checkpoint(sys.argv[2], step=step)
        if step == int(sys.argv[1]) and not Path(f"hung-{sys.argv[2]}").exists():
            if sys.argv[2] == "once":
                Path("hung-once").touch()
            if sys.argv[2] == "validates":
                end = time.monotonic() + 8
                while time.monotonic() < end:
                    sum(range(100000))
                    time.sleep(0.03)
                continue
            print("hangs", flush=True)
            time.sleep(600)
        if step == int(sys.argv[1]) + 3:
            break
    print("finished", flush=True)
"""
QUICK = program("quick_watchdog")


def test_a_hang_ends_the_segment_and_the_run_goes_on_from_its_last_checkpoint(bench: Bench) -> None:
    bench.script("train.py", HANGS)
    run = bench.queue("--grace-seconds", "5", "train.py", "--", "42", "once")
    left = bench.queue("--no-watchdog", "--grace-seconds", "1", "train.py", "--", "42", "always")
    busy = bench.queue("train.py", "--", "42", "validates")
    bench.worker("-p", "3", command=QUICK)
    shown = bench.wait_for(run, "completed")
    assert [one["outcome"] for one in shown["segments"]] == ["hung", "completed"]
    said = shown["segments"][0]["reason"]
    assert said.startswith("hung: no step, output or work for ")
    assert said.endswith("; again from its last checkpoint in 1 s (1 of 2)")
    assert "once" in shown["segments"][1]["checkpoint_used"]
    assert json.loads((bench.folder(run) / "hang.json").read_text())["why"] in said
    assert bench.state(left) == "running", "without the watchdog nothing is ended"
    assert not (bench.folder(left) / "hang.json").exists()
    assert len(bench.wait_for(busy, "completed")["segments"]) == 1, "silent, and at work"
    bench.backprop("stop", left)
    bench.wait_for(left, "stopped")


@pytest.mark.long
def test_a_worker_that_dies_once_it_has_asked_leaves_the_rest_to_the_next(bench: Bench) -> None:
    bench.script("train.py", HANGS)
    run = bench.queue("--grace-seconds", "5", "train.py", "--", "42", "once")
    worker = bench.worker(command=QUICK)
    wait_until(lambda: bench.column(run, "intent") == Intent.YIELD)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    bench.worker("--drain", command=QUICK)
    shown = bench.wait_for(run, "completed")
    assert [one["outcome"] for one in shown["segments"]] == ["hung", "completed"]
