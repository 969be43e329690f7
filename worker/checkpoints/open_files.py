"""Tells which paths a process holds open for writing, from /proc (proc(5): fd, fdinfo)."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

MAX_PROCESSES: Final = 4096
MAX_DESCRIPTORS: Final = 4096
"""Per process. A file beyond them is judged by its size and time alone."""


def open_for_writing(paths: Sequence[str], pids: Iterable[int]) -> frozenset[str]:
    """Return those of `paths` (absolute, without links) that one of `pids` can write to now; of a folder, to any file.

    A process that is gone, or that the kernel does not let us inspect, counts as holding none. Raises nothing.
    """
    written: set[str] = set()
    if paths:
        for pid in islice(pids, MAX_PROCESSES):
            for target in _written(pid, paths):
                written.update(path for path in paths if _within(target, path))
    return frozenset(written)


def own_processes() -> Iterator[int]:
    """Yield the pid of every process of this user."""
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == os.geteuid():
                yield int(entry.name)
        except OSError:
            continue


def _written(pid: int, paths: Sequence[str]) -> Iterator[str]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in islice(entries, MAX_DESCRIPTORS):
                target = _target(entry.path)
                if any(_within(target, path) for path in paths) and _writable(pid, entry.name):
                    yield target
    except OSError:
        return


def _within(target: str, path: str) -> bool:
    return target == path or target.startswith(f"{path}/")


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - no path: "pipe:[7]", or a name with bytes of any kind
    except OSError:
        return ""


def _writable(pid: int, descriptor: str) -> bool:
    try:
        text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(encoding="ascii")
        flags = next(line.split()[1] for line in text.splitlines() if line.startswith("flags:"))
        return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError, IndexError, StopIteration):
        return False
