"""Queues runs on fake GPUs, and reads what they were given and what `why` and `status` say."""

import json
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.fakes import FakeDriver
from tests.support.harness import SCRIPTS, Bench, alive, wait_until

GPU_TRAINER = SCRIPTS / "gpu_trainer.py"
HOST_IS_FINE = ("--min-free-ram", "0", "--max-cpu-load", "1000")
"""A small or busy test machine must not hold a run back; the GPU rules stay."""
QUICK = ("worker.machine.monitor.CHECK_EVERY_S=0.4", "worker.machine.reader.FRESH_S=0.4")
"""For `impatient`: a worker that looks at the GPUs five times as often, so that a scene takes seconds."""


def queue(bench: Bench, *words: str, script: Path = GPU_TRAINER) -> str:
    """Queue the trainer with `words`; what follows "--" in them is its own. Returns the run's id."""
    at = words.index("--") if "--" in words else len(words)
    return bench.queue(*HOST_IS_FINE, *words[:at], str(script), *words[at:], quiet_limits=False)


def impatient(*settings: str) -> tuple[str, ...]:
    """Return a command that stands in for `backprop`, see `scripts/impatient.py`."""
    return (sys.executable, str(SCRIPTS / "impatient.py"), *settings, "--")


def reason(bench: Bench, run: str) -> str:
    return str(bench.column(run, "reason"))


def wait_for_reason(bench: Bench, run: str, *texts: str, timeout_s: float = 60.0) -> str:
    """Wait until the run's reason contains all `texts`, and return what `why` then says."""
    wait_until(
        lambda: all(text in reason(bench, run) for text in texts),
        timeout_s=timeout_s,
        saw=lambda: f"{bench.state(run)}: {reason(bench, run)}\n{bench.output()[-3000:]}",
    )
    return bench.backprop("why", run).stdout


def wait_for_state(bench: Bench, run: str, state: str, timeout_s: float = 60.0) -> None:
    wait_until(
        lambda: bench.state(run) == state,
        timeout_s=timeout_s,
        saw=lambda: f"{bench.state(run)}: {reason(bench, run)}\n{bench.output()[-3000:]}",
    )


def peak_mib(bench: Bench, run: str, segment: int = 1) -> int | None:
    """Return the most VRAM that a segment was seen to use, as the database has it."""
    query = f"SELECT peak_mib FROM segments WHERE run_id = '{run}' AND number = {segment}"
    return _rows(bench, query)[0][0]


def given(bench: Bench, run: str, segment: int = 1) -> list[str]:
    """Return the UUIDs that a segment of the trainer found in CUDA_VISIBLE_DEVICES."""
    bench.wait_for_log(run, "takes ", segment, timeout_s=60)
    return bench.log(run, segment).partition("takes ")[2].partition(", begins")[0].split(",")


def beats(bench: Bench, run: str, segment: int = 1) -> int:
    return sum(line.startswith("beat ") for line in bench.log(run, segment).splitlines())


def status(bench: Bench) -> dict[str, Any]:
    done = bench.backprop("status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def allocated(driver: FakeDriver) -> dict[str, list[int]]:
    """Return what living processes hold, by GPU, in MiB, as the driver counts."""
    held: dict[str, list[int]] = {}
    for path in (driver.folder / "alloc").glob("[0-9]*"):
        try:
            uuid, pid, mib = path.read_text().split()
        except (OSError, ValueError):
            continue
        if alive(int(pid)):
            held.setdefault(uuid, []).append(int(mib))
    return held


def promised_mib(bench: Bench) -> Counter[str]:
    """Return what is reserved on each GPU for live segments, in one consistent read."""
    promised: Counter[str] = Counter()
    for uuids, mib in _rows(bench, "SELECT gpu_uuids, promised_mib FROM segments WHERE ended_at_s IS NULL"):
        promised.update(dict.fromkeys(json.loads(uuids), mib))
    return promised


def _rows(bench: Bench, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(bench.home / "backprop.db", timeout=10)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()
