"""Measures runs on a cluster: python -m benchmarks.cluster [--runs 200]

On a Slurm of two nodes on this host (root, with Debian's slurmctld, slurmd, slurm-client and munge): how long trivial
runs take through sixteen slots, how soon a stop reaches a run while the controller is down, and how often it is asked.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.support.harness import Bench, wait_until
from tests.support.lab import Lab
from tests.support.slurm_cluster import SlurmCluster, missing, running

POLL_S = 15
SLOTS = 16


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    if (why := missing()) is not None:
        print(f"no Slurm here: {why}")
        return 2
    with tempfile.TemporaryDirectory(prefix="bp-cluster-") as name, running(Path(name) / "slurm") as slurm:
        bench, share = Bench(Path(name) / "bench"), Path(name) / "share"
        share.mkdir(mode=0o700)
        lab = Lab(bench, slurm, share)
        lab.configure(pollSeconds=POLL_S, maxJobs=SLOTS, leaseSeconds=120)
        try:
            _hand_over(lab, options.runs)
            _stop(lab, slurm)
        finally:
            bench.close()
    return 0


def _hand_over(lab: Lab, runs: int) -> None:
    """Print how long so many runs of `true` take, from the command that queues them to the last one's end."""
    begun_s = time.monotonic()
    done = lab.bench.backprop(
        "run", "-q", "--on", "lab", "--gpus", "0", "--array", f"1-{runs}", "true", timeout_s=120
    )
    assert done.returncode == 0, done.stderr
    queued_s = time.monotonic() - begun_s
    lab.bench.worker()
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, len(lab.slurm.jobs()))
        return lab.bench.states().get("completed", 0) == runs

    wait_until(over, timeout_s=3600, saw=lab.bench.states)
    took_s = time.monotonic() - begun_s
    segments = sum(run["segment_count"] for run in lab.bench.runs())
    print(
        f"{runs} runs through {SLOTS} slots: queued in {queued_s:.2f} s, all completed after {took_s:.1f} s"
        f" ({runs / took_s:.2f} a second), {segments} jobs, at most {most} in Slurm at once"
    )
    polls = int(3600 / POLL_S)
    print(
        f"while any job is live, squeue is asked at most {polls} times an hour, for all jobs at once; else never"
    )


def _stop(lab: Lab, slurm: SlurmCluster) -> None:
    """Print how soon a stop reaches a running job and is settled while the controller is down."""
    lab.script()
    run = lab.queue("steps.py", "--", "--steps", "100000")
    wait_until(lambda: lab.steps(run), timeout_s=60)
    lab.bench.wait_for(run, "running")
    slurm.end_daemon("slurmctld")
    try:
        begun_s = time.monotonic()
        lab.bench.backprop("stop", run)
        folder = lab.bench.folder(run)
        wait_until((folder / "stop.json").exists)
        told_s = time.monotonic() - begun_s
        lab.bench.wait_for(run, "stopped")
        settled_s = time.monotonic() - begun_s
        asked = json.loads((folder / "exit.json").read_text())["asked"]
    finally:
        slurm.start_daemon("slurmctld")
        slurm.wait_for_nodes()
    assert re.fullmatch("asked", asked)
    print(
        f"stop of a running job without a controller: told after {told_s:.2f} s, settled after {settled_s:.2f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
