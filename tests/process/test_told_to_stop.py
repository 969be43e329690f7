"""`should_stop()` leaves a note when it first says yes, and exit code 0 after it is the timebox."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.harness import Bench, wait_until

ASKS = """
    import os, sys, time, backprop
    from pathlib import Path
    step = int(Path(backprop.resume_from()).read_text()) if backprop.resume_from() else 0
    while step < 200:
        step += 1
        time.sleep(0.02)
        backprop.log(step=step, loss=1 / step)
        if backprop.should_stop():
            Path(f"ckpt-{step}").write_text(str(step))
            backprop.checkpoint(f"ckpt-{step}", step=step)
            sys.exit(0)
"""


def test_a_script_that_was_told_to_stop_and_exits_0_is_requeued(bench: Bench) -> None:
    """After a pause its deadline comes before the end of its timebox."""
    bench.script("asks.py", ASKS)
    run = bench.queue("asks.py", "-m", "0.05", "--at-timebox", "end")
    bench.worker()
    supervisor = bench.supervisor(run)
    wait_until((bench.folder(run) / "events.jsonl").exists)
    os.kill(supervisor, signal.SIGUSR1)
    wait_until((bench.folder(run) / "pause.json").exists)
    time.sleep(1.5)  # how long the pause is, not something to wait for
    os.kill(supervisor, signal.SIGUSR2)
    seen = bench.wait_for(run, "completed", "failed", "timeboxed")
    assert seen["state"] == "completed", seen["reason"]
    first, *_, last = seen["segments"]
    assert (first["outcome"], first["exit_code"]) == ("timeboxed", 0)
    assert bench.exit_record(run)["asked"] is None, "no signal was sent"
    assert (bench.folder(run) / "told-to-stop").exists()
    assert last["outcome"] == "completed"
    assert not (bench.folder(run, last["number"]) / "told-to-stop").exists()


@pytest.mark.parametrize("name", ["events.jsonl", "mine.jsonl"])
def test_the_note_is_left_beside_the_events_of_a_segment_alone(tmp_path: Path, name: str) -> None:
    code = "import backprop; print(backprop.should_stop(), backprop.should_stop())"
    inside = {"BACKPROP_RUN_ID": "r", "BACKPROP_EVENTS": str(tmp_path / name)}
    for deadline_s, told in (("9999999999", False), ("1", True)):
        environment = os.environ | inside | {"BACKPROP_DEADLINE": deadline_s}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{told} {told}\n"
        assert (tmp_path / "told-to-stop").exists() == (told and name == "events.jsonl")


def test_a_folder_that_takes_no_note_does_no_harm() -> None:
    code = "import backprop; print(backprop.should_stop())"
    inside = {"BACKPROP_RUN_ID": "r", "BACKPROP_EVENTS": "/nowhere/events.jsonl", "BACKPROP_DEADLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | inside, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_callback_that_goes_on_leaves_no_note(tmp_path: Path) -> None:
    """Under torchrun the callbacks wait for the signal, so that a deadline that has passed tells nothing."""
    code = "from backprop.integrations import _saving; print(_saving.asked_to_stop())"
    inside = {
        "BACKPROP_RUN_ID": "r",
        "BACKPROP_EVENTS": str(tmp_path / "events.jsonl"),
        "BACKPROP_DEADLINE": "1",
    }
    for ranks, told in (({"TORCHELASTIC_RUN_ID": "1"}, False), ({}, True)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | inside | ranks,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{told}\n"
        assert (tmp_path / "told-to-stop").exists() == told
