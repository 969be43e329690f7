"""The first minute: what gets to no step in it fails and holds its group, and all others lose nothing by it."""

import signal

from tests.support.harness import QUIET_LIMITS, Bench, wait_until

SILENT = """
    import time
    print("loading the data", flush=True)
    time.sleep(60)
"""
BEGINS = """
    import time
    for step in range(1, 30):
        print(f"step {step} loss {1 / step:.3f}", flush=True)
        time.sleep(0.2)
"""
SMOKE = ("--smoke", "--smoke-seconds", "1.5")


def test_what_gets_to_no_step_fails_and_holds_its_group(bench: Bench) -> None:
    bench.script("silent.py", SILENT)
    done = bench.backprop(
        "run", "-q", *QUIET_LIMITS, *SMOKE, "--retries", "3", "--array", "1-3", "--group", "g", "silent.py"
    )
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.split()
    bench.worker("-p", "1")
    failed = bench.wait_for(first, "failed", "completed")
    assert failed["reason"].startswith(
        "smoke test failed: no step and no checkpoint was seen in its first 1.5 s"
    )
    assert failed["segment_count"] == 1
    for run in others:
        held = bench.wait_for(run, "held", "failed")
        assert held["state"] == "held"
        assert f"a run of this group failed its smoke test (backprop show {first})" in held["reason"]
        assert "backprop release --group g" in held["reason"]
    wait_until(lambda: "2 more of group g" in bench.output(), saw=bench.output)


def test_what_gets_to_a_step_goes_on_in_the_same_process(bench: Bench) -> None:
    """It saves nothing, and nothing resumes it; its worker dies before its time is over."""
    bench.script("begins.py", BEGINS)
    run = bench.queue(*SMOKE, "begins.py")
    worker = bench.worker()
    wait_until(lambda: bench.show(run)["last_step"], saw=bench.output)
    bench.end_worker(worker, signal.SIGKILL)
    bench.worker()
    ended = bench.wait_for(run, "completed", "failed", "timeboxed")
    assert (ended["state"], ended["segment_count"], ended["reason"]) == ("completed", 1, "exited 0")
