"""A run that would fill its disk waits, says why, and goes on once it would not."""

from tests.support.harness import Bench, stays_true, wait_until

GROWS = """
    import json, os, pathlib, sys
    number = int(os.environ["BACKPROP_SEGMENT"])
    path = pathlib.Path(f"step-{number}.bin")
    with path.open("wb") as file:
        file.write(b"weights")
        file.truncate(1 << 43)  # eight TiB that take no room
    print(json.dumps({"event": "checkpoint_saved", "path": str(path), "step": number}), flush=True)
    sys.exit(75 if number < 2 else 0)
"""


def test_a_run_is_not_started_where_it_would_fill_the_disk(bench: Bench) -> None:
    bench.script("grows.py", GROWS)
    run = bench.queue("grows.py")
    bench.worker()

    def waits() -> list[str]:
        done = bench.backprop("why", run)
        return [line for line in done.stdout.splitlines() if "would fill /" in line]

    wait_until(waits, saw=lambda: bench.backprop("why", run).stdout)
    assert "8192 GiB a segment so far" in waits()[0]
    assert "--keep-checkpoints" in waits()[0]
    stays_true(lambda: bench.state(run) == "queued", 2.0)
    assert "would fill /" in bench.backprop("worker", "--dry-run").stdout
