"""Runs that save where another one does: told apart by who writes, and in turns where they write one file."""

from tests.support.harness import Bench, wait_until

SAVES = """
    import os, sys, time
    name, place, at = sys.argv[1], sys.argv[2], 0
    if "--load" in sys.argv:
        text = open(sys.argv[sys.argv.index("--load") + 1]).read().split()
        assert text[0] == name, f"{name} was given the work of {text[0]}"
        at = int(text[1])
    os.makedirs("out", exist_ok=True)
    while at < 80:
        at += 1
        time.sleep(0.04 + 0.01 * len(name))
        if at % 10 == 0:
            path = place.format(name=name, at=at)
            with open(path + "~", "w") as file:
                file.write(f"{name} {at} " + "x" * 200_000)
            os.replace(path + "~", path)
    print("done", flush=True)
"""
RESUMED = ("--resume-arg", "--load {checkpoint}")


def test_in_one_folder_they_run_together_and_each_goes_on_from_its_own(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    plan = ("-m", "0.05", "--at-timebox", "end", "--checkpoint-glob", "out/*.txt", *RESUMED)
    runs = [bench.queue("saves.py", *plan, "--", name, "out/{name}-{at}.txt") for name in ("a", "bb", "ccc")]
    bench.worker("-p", "3")
    wait_until(lambda: sum(run["state"] == "running" for run in bench.runs()) > 1, saw=bench.runs)
    for run in runs:
        seen = bench.wait_for(run, "completed", "failed", "timeboxed")
        assert seen["state"] == "completed", (seen["reason"], bench.log(run, seen["segment_count"]))
        assert seen["segment_count"] >= 2


def test_into_one_file_they_take_turns_and_each_goes_on_from_its_own_copy(bench: Bench) -> None:
    bench.script("saves.py", SAVES)
    bench.script("other.py", "import time\nprint('here', flush=True)\ntime.sleep(600)\n")
    plan = ("-m", "0.04", "--at-timebox", "end", "--checkpoint-glob", "out/last.txt", *RESUMED)
    runs = [bench.queue("saves.py", *plan, "--", name, "out/last.txt") for name in ("a", "bb")]
    other = bench.queue("other.py")
    bench.worker("-p", "3")
    bench.wait_for_log(other, "here")
    wait_until(
        lambda: any("writes the same files, or may" in run["reason"] for run in bench.runs()), saw=bench.runs
    )
    for run in runs:
        seen = bench.wait_for(run, "completed", "failed", "timeboxed", "held")
        assert seen["state"] == "completed", (seen["reason"], bench.log(run, seen["segment_count"]))
    bench.backprop("stop", other)
    bench.wait_for(other, "stopped")
