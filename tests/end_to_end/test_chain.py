"""The chain: one run, queued with the installed command, resumed by a worker until it is done."""

from tests.support.harness import Bench

COUNTER = """
    import argparse, json, os, signal, sys, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume-from")
    options = parser.parse_args()
    step = int(open(options.resume_from).read()) if options.resume_from else 0
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    while step < 12:
        time.sleep(0.1)
        step += 1
        print(json.dumps({"step": step, "loss": 1 / step}))
        if stop or step == 12:
            with open("count.tmp", "w") as file:
                file.write(str(step))
            os.replace("count.tmp", f"count-{step}")
            print(json.dumps({"event": "checkpoint_saved", "path": f"count-{step}", "step": step}))
        if stop:
            sys.exit(0)
"""


def test_a_run_is_resumed_from_its_checkpoints_until_it_is_completed(bench: Bench) -> None:
    bench.script("count.py", COUNTER)
    run = bench.queue("count.py", "-m", "0.01", "--at-timebox", "end")
    bench.worker()
    seen = bench.wait_for(run, "completed")
    segments = seen["segments"]
    assert len(segments) >= 3
    assert [one["outcome"] for one in segments[:-1]] == ["timeboxed"] * (len(segments) - 1)
    assert segments[0]["checkpoint_used"] is None
    assert all(one["checkpoint_used"] for one in segments[1:])
    assert seen["last_step"] == 12
    assert seen["exit_code"] == 0
