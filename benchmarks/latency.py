"""Measures how soon a queued run starts, and the gap between two segments.

Both are measured from a moment in one process to a moment in another, on the same wall clock. Both include the start of
the script's interpreter, which is Python's cost and not ours: its median is measured with the same script and
subtracted. The queue is written and watched from inside this process, so the moment of the commit is known and no
command of ours keeps a core busy meanwhile.
"""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from backprop.cli.context import open_home
from backprop.cli.submit.enqueue import enqueue
from backprop.cli.submit.submission import SubmissionRequest, make_submission
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.wakeup import wake_workers
from benchmarks.sample import Row, Sample, ours
from benchmarks.workbench import Workbench, wait_until

FIRST_LINE = "import time; first = time.time()\n"
STAMP = FIRST_LINE + "import sys; open(sys.argv[1], 'a').write(f'{first}\\n')\n"
CHAIN = (
    FIRST_LINE
    + """\
import json, os, sys
stamps, last = sys.argv[1], int(sys.argv[2])
resumed = os.environ.get("BACKPROP_RESUME_FROM")
step = int(open(resumed).read()) + 1 if resumed else 1
with open(f"checkpoint-{step}", "w") as file:
    file.write(str(step))
print(json.dumps({"event": "checkpoint_saved", "path": f"checkpoint-{step}", "step": step}), flush=True)
with open(stamps, "a") as file:
    file.write(f"{first} {time.time()}\\n")
os._exit(0 if step == last else 75)
"""
)


def measure(starts: int, segments: int) -> list[Row]:
    """Measure an idle worker's start latency over `starts` runs, the gaps of a chain of `segments`, and the
    interpreter's start."""
    with Workbench() as bench, bench.worker():
        home, database = open_home()
        try:
            interpreter = _interpreter_ms(bench, starts)
            started = _start_latency_ms(bench, home, database, starts).less(interpreter.median)
            gaps = _gaps_ms(bench, home, database, segments).less(interpreter.median)
        finally:
            database.close()
    return [
        ours("interpreter's own start, from spawn to the script's first line", "ms", interpreter),
        ours("idle worker: from the queue's commit to the script's first line", "ms", started, "50"),
        ours("chain: from a segment's last instruction to the next one's first line", "ms", gaps, "150"),
    ]


def _interpreter_ms(bench: Workbench, count: int) -> Sample:
    script, out = bench.script("bare.py", STAMP), bench.project / "bare.out"
    begun: list[float] = []
    for _ in range(count):
        begun.append(time.time())
        subprocess.run([sys.executable, script, out], check=True)
    return Sample(tuple((first - at) * 1000 for first, at in zip(_stamps(out), begun, strict=True)))


def _start_latency_ms(bench: Workbench, home: Home, database: Database, count: int) -> Sample:
    bench.script("start.py", STAMP)
    out = bench.project / "start.out"
    committed = [_run_to_its_end(home, database, "start.py", str(out)) for _ in range(count)]
    return Sample(tuple((first - at) * 1000 for first, at in zip(_stamps(out), committed, strict=True)))


def _gaps_ms(bench: Workbench, home: Home, database: Database, segments: int) -> Sample:
    bench.script("chain.py", CHAIN)
    out = bench.project / "chain.out"
    _run_to_its_end(home, database, "chain.py", str(out), str(segments))
    stamps = [tuple(map(float, line.split())) for line in out.read_text().splitlines()]
    return Sample(tuple((after[0] - before[1]) * 1000 for before, after in pairwise(stamps)))


def _run_to_its_end(home: Home, database: Database, *words: str) -> float:
    """Queue a run as `backprop run` does and wait for its end. Return the moment of the commit, in Unix seconds."""
    limits = {"minFreeRamGB": 0, "maxCpuLoad": 1000, "python": sys.executable}
    wanted = make_submission(words, limits, None, home, SubmissionRequest())
    run_id = enqueue(home, database, wanted, time.time())
    committed_s = time.time()
    wake_workers(home.locks)

    def ended() -> bool:
        run = queries.run_by_id(database, run_id)
        return run is not None and run.state in FINAL

    wait_until(ended, timeout_s=300)
    run = queries.run_by_id(database, run_id)
    if run is None or run.state is not State.COMPLETED:
        raise RuntimeError(f"the benchmark's own run did not complete: {run}")
    time.sleep(0.2)  # the worker goes back to sleep
    return committed_s


def _stamps(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines()]
