"""Tells which paths a process holds open for writing, from /proc (proc(5): fd, fdinfo)."""

import contextlib
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


def in_use(paths: Sequence[str]) -> frozenset[str]:
    """Return those of `paths` (absolute, without links) that any process of this user has open or mapped, however; of a
    folder, a file in it. A process that the kernel does not let us inspect counts as using none. Raises OSError where
    there is no /proc."""
    used: set[str] = set()
    for pid in own_processes() if paths else ():
        mapped = b""
        with contextlib.suppress(OSError):
            mapped = Path(f"/proc/{pid}/maps").read_bytes()
        used.update(path for path in paths if os.fsencode(path) in mapped)
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            targets = [target_of(entry.path) for entry in islice(entries, MAX_DESCRIPTORS)]
            used.update(path for path in paths for target in targets if _within(target, path))
    return frozenset(used)


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
                target = target_of(entry.path)
                if any(_within(target, path) for path in paths) and is_writable(pid, entry.name) is not None:
                    yield target
    except OSError:
        return


def _within(target: str, path: str) -> bool:
    return target == path or target.startswith(f"{path}/")


def target_of(link: str) -> str:
    """Return what a link below /proc leads to; "" for none."""
    try:
        return os.readlink(link)  # noqa: PTH115 - no path: "pipe:[7]", or a name with bytes of any kind
    except OSError:
        return ""


def is_writable(pid: int, descriptor: str) -> int | None:
    """Return the inode of a descriptor that can be written to, 0 where the kernel does not tell it; else None."""
    try:
        text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(encoding="ascii")
        fields = dict(
            line.split(None, 1) for line in text.splitlines() if line.startswith(("flags:", "ino:"))
        )
        writable = int(fields["flags:"], 8) & os.O_ACCMODE != os.O_RDONLY
        return int(fields.get("ino:", 0)) if writable else None
    except (OSError, ValueError, KeyError):
        return None
