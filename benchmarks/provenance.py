"""Measures what `run` waits longer because its code is noted: `python -m benchmarks.provenance`.

In repositories of some sizes, `run` in turn with noting and without, so that other load hits both. The note itself
comes beside it; when it is there is measured, too.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.machine import machine
from benchmarks.sample import Row, Sample, ours, table
from benchmarks.workbench import Workbench, wait_until

SIZES: Final = (0, 100, 10_000)
"""Files in the repository; 0: no repository."""
PER_FOLDER: Final = 100
MOST_MS: Final = "30"
WITH: Final = "from backprop.cli.main import main; main()"
WITHOUT: Final = (
    "from backprop.worker.environment.provenance import recorder;"
    f" recorder.begin = recorder.look = recorder.keep = lambda *_, **__: None; {WITH}"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.provenance", description="Measure the noting of code."
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that it works")
    pairs = 3 if parser.parse_args().quick else 15
    print(machine(), end="\n\n", flush=True)
    rows = [row for size in SIZES for row in measure(size, pairs)]
    print(table(rows, ["backprop"]))


def measure(size: int, pairs: int) -> list[Row]:
    """Measure beside `size` files, one of them changed."""
    with Workbench() as bench:
        bench.script("train.py", "print('hello')\n")
        _fill(bench.project, size)
        bench.script("train.py", "print('changed')\n")
        _run(WITH)
        with_ms: list[float] = []
        without_ms: list[float] = []
        noted_ms: list[float] = []
        for _ in range(pairs):
            without_ms.append(_run(WITHOUT)[0])
            spent_ms, begun_s, run = _run(WITH)
            with_ms.append(spent_ms)
            note = bench.home / "runs" / run / "provenance.json"
            wait_until(note.exists)
            noted_ms.append((note.stat().st_mtime - begun_s) * 1000)
        longer = tuple(one - other for one, other in zip(with_ms, without_ms, strict=True))
        where = f"{size:,} files" if size else "no repository"
        return [
            ours(f"`backprop run`, {where}, noting nothing", "ms", Sample(tuple(without_ms))),
            ours(f"the same, with the note: longer by, {where}", "ms", Sample(longer), MOST_MS),
            ours(f"from its start to the note, {where}", "ms", Sample(tuple(noted_ms))),
        ]


def _fill(project: Path, size: int) -> None:
    for number in range(size):
        folder = project / f"part{number // PER_FOLDER}"
        folder.mkdir(exist_ok=True)
        (folder / f"module{number}.py").write_text(f"value = {number}\n" * 20)
    if size:
        who = ("-c", "user.name=me", "-c", "user.email=me@example.com")
        for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all")):
            subprocess.run(["git", *who, *words], cwd=project, check=True)


def _run(code: str) -> tuple[float, float, str]:
    """Queue a run; return the wall time in ms, when it began in Unix seconds, and the run's id."""
    begun_s, begun = time.time(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "-q", "train.py"], check=True, capture_output=True, text=True
    )
    return (time.perf_counter() - begun) * 1000, begun_s, done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
