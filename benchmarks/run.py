"""All measurements, one after the other, as one table: `python -m benchmarks.run`, from the repository's root.

Needs an installed `backprop` (not an editable one, whose finder costs every command some milliseconds) and nothing
else. Takes about three minutes; `--quick` takes a tenth of the trouble and is for seeing that it works.
"""

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import commands, latency, resting
from benchmarks.sample import table


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what Backprop costs on this machine.")
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that it works")
    quick = parser.parse_args().quick
    print(machine(), end="\n\n", flush=True)
    rows = commands.measure(3 if quick else 30)
    rows += latency.measure(3 if quick else 20, 4 if quick else 21)
    rows += resting.measure(3.0 if quick else 30.0)
    print(table(rows))


def machine() -> str:
    """The machine in a line."""
    names = [
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    ]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    folder = tempfile.gettempdir()
    return (
        f"backprop-scheduler {version('backprop-scheduler')}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, Linux {platform.release()}, {len(os.sched_getaffinity(0))} cores of "
        f"{names[0] if names else platform.machine()}, {memory_gib:.0f} GiB RAM, {folder} on {_file_system(folder)}, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def _file_system(folder: str) -> str:
    """The type of the file system that holds `folder`."""
    mounts = [line.split() for line in _lines("/proc/self/mounts")]
    holding = [(mount[1], mount[2]) for mount in mounts if Path(folder).is_relative_to(mount[1])]
    return max(holding, key=lambda pair: len(pair[0]), default=("", "?"))[1]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


if __name__ == "__main__":
    sys.exit(main())
