"""Describes the machine in one line."""

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Return versions, processor, memory, file system and load, for the head of a report."""
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
    """Return the type of the file system that holds `folder`."""
    mounts = [line.split() for line in _lines("/proc/self/mounts")]
    holding = [(mount[1], mount[2]) for mount in mounts if Path(folder).is_relative_to(mount[1])]
    return max(holding, key=lambda pair: len(pair[0]), default=("", "?"))[1]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
