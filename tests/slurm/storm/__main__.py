"""Have a storm on a cluster: python -m tests.slurm.storm --minutes 10 --seed 1

Chains of jobs on a real Slurm of two nodes, and every two seconds a blow: a kill of the worker, a node agent, a
supervisor, a node's or the controller's daemon; a cancel, a preemption, a requeue by force, a drained node. Then it is
calm, and every run must complete, without a step done by two leaders at once. Ends with 1 where one does not.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.harness import Bench
from tests.support.lab import Lab
from tests.support.slurm_cluster import NODES, SlurmCluster, missing, running

EVERY_S = 2.0
CALM_S = 420.0


class Storm:
    """One storm. `blows`: how many of each kind came."""

    def __init__(self, lab: Lab, slurm: SlurmCluster, seed: int, runs: int) -> None:
        self.lab = lab
        self.slurm = slurm
        self.chance = random.Random(seed)
        self.blows: collections.Counter[str] = collections.Counter()
        lab.script()
        self.runs = [
            lab.queue("-m", "0.4", "--grace-seconds", "5", "--submit", f"-p {self.chance.choice(['low', 'main'])}",
                      "steps.py", "--", "--steps", "400", "--pause", "0.1", *self.chance.choice([(), ("--term",)]))
            for _ in range(runs)
        ]  # fmt: skip
        lab.bench.worker()

    def rage(self, for_s: float) -> None:
        """Deal blows for so long; resume whatever a cancel has stopped."""
        kinds: list[tuple[Callable[[], object], str]] = [
            (self._kill_worker, "worker killed"),
            (lambda: self._kill("started.json", "pid"), "node agent killed"),
            (lambda: self._kill("processes.json", "supervisor"), "supervisor killed"),
            (self._kill_both, "node agent and supervisor killed"),
            (lambda: self._job("scancel"), "job cancelled"),
            (lambda: self._job("scontrol", "requeue"), "job requeued by force"),
            (self._preempt, "preemption"),
            (lambda: self._daemon(self.chance.choice(NODES)), "node daemon killed"),
            (lambda: self._daemon("slurmctld"), "controller killed"),
            (self._drain, "node drained"),
        ]
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            deal, name = self.chance.choice(kinds)
            with contextlib.suppress(OSError, AssertionError):
                if deal() is not False:
                    self.blows[name] += 1
            self.resume_stopped()
            if not self.unfinished():
                print("all have completed before the storm was over", flush=True)
                return
            time.sleep(EVERY_S)

    def calm(self) -> list[str]:
        """Wait until every run has completed; return what is wrong."""
        for name in NODES:
            self.slurm.ask("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        end = time.monotonic() + CALM_S
        while (left := self.unfinished()) and time.monotonic() < end:
            self.resume_stopped()
            self._have_worker()
            time.sleep(1)
        faults = [f"{run} is {state}" for run, state in left.items()]
        for run in self.runs:
            if (self.lab.bench.project / f"steps-{run}" / "doubles").exists():
                faults.append(f"{run} had two leaders at once")
            done = [step for step, _ in self.lab.steps(run)]
            if run not in left and done != list(range(1, 401)):
                faults.append(f"{run} completed with {len(done)} of 400 steps")
        return faults

    def unfinished(self) -> dict[str, str]:
        return {run["id"]: run["state"] for run in self.lab.bench.runs() if run["state"] != "completed"}

    def resume_stopped(self) -> None:
        """What a cancel has stopped goes on at its user's word; so does what was held or failed for a blow."""
        for run, state in self.unfinished().items():
            if state in ("stopped", "held", "failed", "timeboxed"):
                self.blows[f"resumed after {state}"] += 1
                self.lab.bench.backprop("resume", run)

    def segments(self) -> int:
        return sum(run["segment_count"] for run in self.lab.bench.runs())

    def _have_worker(self) -> None:
        if self.lab.bench.workers[-1].poll() is not None:
            self.lab.bench.worker()

    def _kill_worker(self) -> None:
        worker = self.lab.bench.workers[-1]
        worker.kill()
        worker.wait()
        self.lab.bench.worker()

    def _live(self) -> list[Path]:
        found = [path.parent for path in self.lab.folder.glob("runs/*/*/started.json")]
        return [folder for folder in found if not (folder / "exit.json").exists()]

    def _kill(self, name: str, field: str) -> bool:
        live = [folder for folder in self._live() if (folder / name).exists()]
        if not live:
            return False
        value = json.loads((self.chance.choice(live) / name).read_text()).get(field)
        pid = value[0] if isinstance(value, list) else value
        if not isinstance(pid, int):
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def _kill_both(self) -> bool:
        live = [folder for folder in self._live() if (folder / "processes.json").exists()]
        if not live:
            return False
        folder = self.chance.choice(live)
        os.kill(json.loads((folder / "started.json").read_text())["pid"], signal.SIGKILL)
        os.kill(json.loads((folder / "processes.json").read_text())["supervisor"][0], signal.SIGKILL)
        return True

    def _job(self, *words: str) -> bool:
        jobs = [
            job for job, state, name in self.slurm.jobs() if name.startswith("bp-") and state == "RUNNING"
        ]
        if not jobs:
            return False
        self.slurm.ask(*words, self.chance.choice(jobs), check=False)
        return True

    def _preempt(self) -> None:
        self.slurm.ask(
            "sbatch", "-p", "high", "-n", "16", "-N1", "-o", "/dev/null", "--wrap", "sleep 3", check=False
        )

    def _daemon(self, name: str) -> None:
        self.slurm.end_daemon(name)
        time.sleep(self.chance.uniform(0, 4))
        self.slurm.start_daemon(name)

    def _drain(self) -> None:
        node = f"nodename={self.chance.choice(NODES)}"
        self.slurm.ask("scontrol", "update", node, "state=drain", "reason=storm", check=False)
        time.sleep(self.chance.uniform(0, 3))
        self.slurm.ask("scontrol", "update", node, "state=resume", check=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    if (why := missing()) is not None:
        print(f"no Slurm here: {why}")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="bp-storm-"))
    begun_s = time.monotonic()
    with running(folder / "slurm") as slurm:
        bench, share = Bench(folder / "bench"), folder / "share"
        share.mkdir(mode=0o700)
        storm = Storm(Lab(bench, slurm, share), slurm, options.seed, options.runs)
        try:
            storm.rage(options.minutes * 60)
            raged_s = time.monotonic() - begun_s
            faults = storm.calm()
            segments = storm.segments()
        finally:
            for worker in bench.workers:
                worker.kill()
                worker.wait()
    told = ", ".join(f"{count} {name}" for name, count in sorted(storm.blows.items()))
    print(f"seed {options.seed}: {raged_s / 60:.1f} min, {options.runs} runs in {segments} segments; {told}")
    for fault in faults:
        print(f"FAULT {fault}")
    if faults:
        print(f"kept: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
