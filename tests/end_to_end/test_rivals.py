"""Runs that save where another one does: never at once, so that none goes on from another's work."""

from tests.support.harness import Bench, wait_until

SAVES = """
    import os, sys, time
    name, at = sys.argv[1], 0
    if "--load" in sys.argv:
        text = open(sys.argv[sys.argv.index("--load") + 1]).read().split()
        assert text[0] == name, f"{name} was given the work of {text[0]}"
        at = int(text[1])
    os.makedirs("out", exist_ok=True)
    while at < 40:
        at += 1
        time.sleep(0.05)
        if at % 5 == 0:
            path = f"out/{name}-{at}.txt"
            with open(path + "~", "w") as file:
                file.write(f"{name} {at}")
            os.replace(path + "~", path)
    print("done", flush=True)
"""
PLAN = ("-m", "0.02", "--checkpoint-glob", "out/*.txt", "--resume-arg", "--load {checkpoint}")


def test_they_take_turns_and_each_goes_on_from_its_own(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    runs = [bench.queue("saves.py", *PLAN, "--", name) for name in ("a", "b", "c")]
    bench.worker("-p", "3")
    wait_until(
        lambda: any("saves to the same place" in run["reason"] for run in bench.runs()), saw=bench.runs
    )
    for run in runs:
        seen = bench.wait_for(run, "completed", "failed")
        assert seen["state"] == "completed", bench.log(run, seen["segment_count"])
        assert seen["segment_count"] >= 2


def test_others_run_beside_them(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    bench.script("other.py", "import time\nprint('here', flush=True)\ntime.sleep(600)\n")
    first = bench.queue("saves.py", "-m", "5", *PLAN[2:], "--", "a")
    waits = bench.queue("saves.py", "-m", "5", *PLAN[2:], "--", "b")
    other = bench.queue("other.py")
    bench.worker("-p", "3")
    bench.wait_for_log(other, "here")
    assert bench.state(waits) == "queued" or bench.state(first) == "completed"
    bench.wait_for(waits, "completed")
    bench.backprop("stop", other)
    bench.wait_for(other, "stopped")
