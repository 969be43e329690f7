"""A supervisor dies after it has asked the leader to stop: its successor knows that, and how it ended."""

import json
import os
import signal

from tests.support.harness import Bench, wait_until

SLOW_TO_SAVE = """
    import json, os, signal, sys, time
    signals = []
    def note(*_):
        signals.append(1)
        print("signalled", len(signals), flush=True)
    signal.signal(signal.SIGINT, note)
    if os.environ.get("BACKPROP_RESUME_FROM"):
        sys.exit(0)
    while not signals:
        time.sleep(0.05)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        time.sleep(0.1)
    with open("saved", "w") as file:
        file.write("x")
    print(json.dumps({"event": "checkpoint_saved", "path": "saved", "step": 1}), flush=True)
    sys.exit(1)
"""


def test_the_stop_signal_is_sent_once_and_intent_outlives_the_supervisor(bench: Bench) -> None:
    bench.script("slow.py", SLOW_TO_SAVE)
    run = bench.queue("slow.py", "-m", "0.05", "--at-timebox", "end", "--grace-seconds", "30")
    bench.worker()
    wait_until(lambda: "signalled 1" in bench.log(run), saw=lambda: bench.log(run))
    # The script may hear the signal before its sender has noted that it sent it.
    wait_until(lambda: json.loads((bench.folder(run) / "stop.json").read_text())["sent"])
    dead = bench.supervisor(run)
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: bench.supervisor(run) not in (0, dead), saw=bench.output)
    seen = bench.wait_for(run, "completed", "failed", "timeboxed")
    assert "signalled 2" not in bench.log(run), "to many scripts a second signal means: drop everything"
    assert seen["state"] == "completed"
    assert seen["segments"][0]["outcome"] == "timeboxed", "not lost: why it ended is on disk"
    assert seen["segments"][1]["checkpoint_used"] == str(bench.project / "saved")
