"""Measures what a worker and supervisors take while nothing happens, beside suspended runs too."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.sample import Row, Sample, ours
from benchmarks.workbench import ALWAYS, Workbench, wait_until

SLEEPER = "import time\nprint('asleep', flush=True)\ntime.sleep(3600)\n"
KIB_IN_MIB = 1024


def measure(seconds: float) -> list[Row]:
    """Measure a worker with an empty queue, then with one sleeping run, and that run's supervisor."""
    with Workbench() as bench:
        bench.script("sleep.py", SLEEPER)
        with bench.worker() as worker:
            time.sleep(3)
            idle = watch({"worker, empty queue": worker}, seconds, "0.3")
            words = ("run", "-q", *ALWAYS, "--python", sys.executable, "-m", "60", "sleep.py")
            run_id = bench.backprop(*words).strip()
            known = Path(os.environ["BACKPROP_HOME"]) / "runs" / run_id / "1" / "processes.json"
            wait_until(known.exists)
            supervisor = int(json.loads(known.read_text())["supervisor"][0])
            time.sleep(3)
            busy = watch({"worker, one run asleep": worker, "its supervisor": supervisor}, seconds)
            bench.backprop("stop", run_id)
            wait_until(lambda: '"stopped"' in bench.backprop("show", run_id, "--json"))
    return idle + busy


def suspended(count: int, seconds: float) -> list[Row]:
    """Measure a worker and `count` suspended runs, their supervisors and what they keep themselves."""
    with Workbench() as bench:
        bench.home.mkdir(mode=0o700)
        (bench.home / "config.json").write_text(json.dumps({"maxParallel": count}))
        with bench.worker() as worker:
            words = ("run", "-q", *ALWAYS, "--gpu-probe", "none", "-m", "600", "--array", f"1-{count}")
            runs = bench.backprop(*words, shutil.which("sleep") or "sleep", "--", "36000").split()
            known = [bench.home / "runs" / run / "1" / "processes.json" for run in runs]
            wait_until(lambda: all(path.exists() for path in known), timeout_s=60 + count)
            with contextlib.suppress(subprocess.CalledProcessError):
                bench.backprop("suspend", *runs)  # which does not wait for so many
            wait_until(lambda: _suspended(bench) == count, timeout_s=60 + count, every_s=2.0)
            noted = [json.loads(path.read_text()) for path in known]
            supervisors = [int(one["supervisor"][0]) for one in noted]
            time.sleep(3)
            begun, before = time.monotonic(), [cpu_ms(pid) for pid in (worker, *supervisors)]
            time.sleep(seconds)
            passed = time.monotonic() - begun
            spent = [cpu_ms(pid) - was for pid, was in zip((worker, *supervisors), before, strict=True)]
            of, memory = f"{count} suspended runs", Sample(tuple(memory_mib(one)[0] for one in supervisors))
            shares = {"the worker": spent[0], "all supervisors": sum(spent[1:])}
            rows = [
                ours(
                    f"{of}, {who}: CPU over {passed:.0f} s",
                    "% of a core",
                    Sample((ms / passed / 10,)),
                    digits=3,
                )
                for who, ms in shares.items()
            ]
            rows += [
                ours(f"{of}, a supervisor: memory, PSS", "MiB", memory),
                ours(f"{of}, the worker: memory, PSS", "MiB", Sample((memory_mib(worker)[0],))),
            ]
            bench.backprop("stop", *runs)
            wait_until(lambda: _suspended(bench) == 0, timeout_s=60 + count, every_s=2.0)
    return rows


def _suspended(bench: Workbench) -> int:
    listed = json.loads(bench.backprop("list", "suspended", "-n", "0", "--json"))
    return len(listed)


def watch(processes: dict[str, int], seconds: float, target: str = "") -> list[Row]:
    """Measure CPU and memory of `processes` (pids by name) over `seconds`. `target`: of their CPU."""
    before = {name: cpu_ms(pid) for name, pid in processes.items()}
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    rows: list[Row] = []
    for name, pid in processes.items():
        share = Sample(((cpu_ms(pid) - before[name]) / passed / 10,))
        pss, rss = memory_mib(pid)
        most = "16 MB" if name == "its supervisor" else ""
        rows += [
            ours(f"{name}: CPU over {passed:.0f} s", "% of a core", share, target, digits=3),
            ours(f"{name}: memory, PSS", "MiB", Sample((pss,))),
            ours(f"{name}: memory, RSS", "MiB", Sample((rss,)), most),
        ]
    return rows


def cpu_ms(pid: int) -> float:
    """Return the CPU time of all threads so far: first field of schedstat, nanoseconds."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def memory_mib(pid: int) -> tuple[float, float]:
    """Return (PSS, RSS): with the proportional share of pages used with others, and all pages present."""
    fields = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Pss:"]) / KIB_IN_MIB, int(fields["Rss:"]) / KIB_IN_MIB
