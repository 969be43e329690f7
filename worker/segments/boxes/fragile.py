"""Tells which runs are likely to notice that they stood still for hours: the end of a box does not suspend those.

A limit on wall-clock time in the script, a `timeout` in front of it, several processes that wait for each other, or a
connection to another machine may all break at the thaw, and with it work that nothing else holds.
"""

import contextlib
import os
import re
from collections.abc import Collection
from pathlib import PurePath
from typing import Final

from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.worker.supervisor import process_tree

ESTABLISHED: Final = "01"
_LOCAL: Final = re.compile(
    r"(?:[0-9A-F]{6}7F|0{24}[0-9A-F]{6}7F|0{24}01000000|0000000000000000FFFF0000[0-9A-F]{6}7F)"
)
"""Addresses of this machine itself, as the kernel prints them: 127.0.0.0/8, ::1, and the former in IPv6."""
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")


def why_fragile(run: RunRecord, segment: SegmentRecord, pids: Collection[int]) -> str | None:
    """Return what speaks against freezing the run for long, in words; None for nothing. `pids`: its processes."""
    if len(segment.gpu_uuids) > 1:
        return "it runs on several GPUs"
    if run.spec.plan is not None and run.spec.plan.fragile:
        return run.spec.plan.fragile
    if PurePath(run.spec.program).name == "timeout" or any(_name(pid) == "timeout" for pid in pids):
        return "a timeout stands in front of it"
    if _sockets(pids) & _connected():
        return "it is connected to another machine"
    return None


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (process_tree.PROC / str(pid) / "comm").read_text().strip()
    return ""


def _sockets(pids: Collection[int]) -> set[str]:
    """Return the inodes of the sockets that these processes have open."""
    found: set[str] = set()
    for pid in pids:
        folder = process_tree.PROC / str(pid) / "fd"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    match = _SOCKET.fullmatch(str((folder / name).readlink()))
                    found |= {match[1]} if match is not None else set()
    return found


def _connected() -> set[str]:
    """Return the inodes of the TCP connections to other machines."""
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (process_tree.PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                remote = fields[2].partition(":")[0]
                if fields[3] == ESTABLISHED and not _LOCAL.fullmatch(remote):
                    found.add(fields[9])
    return found
