"""Measures decisions and readings with eight GPUs and 10,000 queued runs: `python -m benchmarks.governor`.

Decisions are made on a snapshot of eight GPUs that hold two runs each and have no room. That is the dearest case: every
rule is judged on every GPU, and every run gets its reasons. Readings go through the helper process, as in a worker: of
the real NVIDIA driver where there is one, else of the tests' fake driver (which needs a C compiler and pytest).
The fake driver costs next to nothing, so it shows the cost of the helper alone.
"""

import argparse
import contextlib
import os
import select
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backprop.cli.context import open_home
from backprop.cli.submit.enqueue import enqueue
from backprop.cli.submit.submission import SubmissionRequest, make_submission
from backprop.scheduler.config.settings import Settings
from backprop.scheduler.governor.decide import Limits, Need, Reservation, decide
from backprop.scheduler.governor.snapshot import Gpu, Host, Snapshot
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database
from backprop.worker.admission.admission import Admitter
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.machine.monitor import RuntimeMonitor
from backprop.worker.probes.client import GpuProbe
from backprop.worker.reactions.reactions import Reactions
from backprop.worker.segments.tracker import SegmentTracker
from benchmarks.resting import watch
from benchmarks.sample import OURS, Row, Sample, ours, table
from benchmarks.workbench import Workbench

GPUS = 8
QUEUED = 10_000
PICTURE = Snapshot(
    host=Host(64_000, 128_000, 1.0, 64, 500_000),
    gpus=tuple(
        Gpu(f"GPU-{at}", at, "GPU", 81_920, 1_000, 60, 90, False, 99, used_by_pid=((1, 40_000), (2, 40_000)))
        for at in range(GPUS)
    ),
    source="nvml",
    problem=None,
    taken_s=0.0,
)


def measure(times: int, queued: int, idle_s: float) -> list[Row]:
    """Measure decisions and readings. `times`: of each. `queued`: runs in the queue. `idle_s`: how long the helper is
    watched."""
    return [_one_decision(times), *_whole_queue(times, queued), *_reading(times, idle_s)]


def _one_decision(times: int) -> Row:
    limits = Limits(
        max_parallel=64,
        min_free_ram_mib=4096,
        max_cpu_load=4.0,
        min_free_disk_mib=1024,
        gpu_max_temp_c=85,
    )
    reservations = [
        Reservation(f"run{at}-{gpu.uuid}", gpu.uuid, 40_000, 40_000, 0.0, settled=True)
        for gpu in PICTURE.gpus
        for at in range(2)
    ]
    need = Need(vram_mib=20_000, source="declared")

    def once() -> None:
        decision = decide(need, limits, PICTURE, reservations, running_count=16)
        assert len(decision.denials) == GPUS

    return ours(f"one decision: {GPUS} GPUs, 16 reservations, all full", "ms", _timed(once, times), digits=3)


@dataclass
class StillPicture:
    """A machine that can be read without cost, and does not change."""

    def snapshot(self, _fresh_s: float | None = None, /) -> Snapshot:
        return PICTURE


def _whole_queue(times: int, queued: int) -> Iterator[Row]:
    with Workbench() as bench:
        bench.script("train.py", "")
        home, database = open_home()
        try:
            settings = _fill(home, database, queued)
            context = Context(
                home, database, LocalExecutor(home), "bench", settings, Clock(), Console(quiet=True)
            )
            sense = StillPicture()
            guard = RuntimeMonitor(context, sense)
            admitter = Admitter(
                context,
                sense,
                guard,
                SegmentTracker(context, guard, Reactions(context, lambda: None), sense.snapshot),
            )
            first = _timed(lambda: _refused(admitter), 1)
            later = _timed(lambda: _refused(admitter), times)
        finally:
            database.close()
    what = f"a worker's look at a queue of {queued} that all wait"
    yield ours(f"{what}: the first, writing down why", "ms", first)
    yield ours(f"{what}: each later one", "ms", later)


def _fill(home: Home, database: Database, queued: int) -> Settings:
    """Queue one run, then copies of its row: one transaction each would take half a minute."""
    wanted = make_submission(
        ("train.py",),
        {"minFreeRamGB": 0, "gpu.minFreeVramMB": 20_000, "maxCpuLoad": 1000},
        None,
        home,
        SubmissionRequest(),
    )
    run_id = enqueue(home, database, wanted, time.time())
    with contextlib.closing(sqlite3.connect(home.database)) as connection, connection:
        names = [str(row[1]) for row in connection.execute("PRAGMA table_info(runs)")]
        changed = {"id": "printf('copy%05d', n)", "queued_at_s": "queued_at_s + n"}
        values = ", ".join(changed.get(name, name) for name in names)
        connection.execute(
            "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?)"
            f" INSERT INTO runs ({', '.join(names)}) SELECT {values} FROM runs, counted WHERE id = ?",
            (queued - 1, run_id),
        )
    return wanted.settings


def _refused(admitter: Admitter) -> None:
    assert admitter.admit() == 0


def _reading(times: int, idle_s: float) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="backprop-bench-") as folder:
        environment, which = _driver(Path(folder))
        if environment is None:
            return
        probe = GpuProbe(interval_s=0.0, environment=environment)
        try:
            first = _timed(lambda: _read(probe), 1)
            seen = len(probe.latest.gpus)
            if not seen:
                return
            what = f"reading {seen} GPUs through the helper, {which}"
            yield ours(f"{what}: the first, with the helper's start", "ms", first)
            yield ours(f"{what}: each later one", "ms", _timed(lambda: _read(probe), times), digits=2)
            helper = _child_of_ours()
            yield from watch({"the helper, unasked": helper}, idle_s)
        finally:
            probe.close()


def _driver(folder: Path) -> tuple[Mapping[str, str] | None, str]:
    """Return the environment that a helper needs (None where there is no driver to read), and whose driver it sees."""
    if Path("/proc/driver/nvidia/version").exists():
        return os.environ, "NVIDIA's driver"
    try:
        from tests.support.fakes import FakeDriver, FakeGpu, build_driver

        driver = FakeDriver(folder / "driver", build_driver(folder / "library"))
    except BaseException as error:
        # pytest's own "skipped" is no Exception: no compiler. Without pytest there is nothing to build with either.
        if isinstance(error, KeyboardInterrupt):
            raise
        return None, ""
    driver.show(*(FakeGpu(f"GPU-{at}", used=1000) for at in range(GPUS)))
    return driver.environment(), "the tests' fake driver"


def _read(probe: GpuProbe) -> None:
    probe.request(time.monotonic())
    while probe.poll(time.monotonic()) is None:
        handle = probe.fileno()
        select.select([] if handle is None else [handle], [], [], 1.0)


def _child_of_ours() -> int:
    """Return the pid of this process's only child: the helper."""
    me = os.getpid()
    (pid,) = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    return int(pid)


def _timed(action: Callable[[], object], times: int) -> Sample:
    taken_ms: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        action()
        taken_ms.append((time.perf_counter() - begun) * 1000)
    return Sample(tuple(taken_ms))


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.governor",
        description="Measure what a decision and a reading of the GPUs cost.",
    ).parse_args()
    print(table(measure(100, QUEUED, 20.0), [OURS]))


if __name__ == "__main__":
    main()
