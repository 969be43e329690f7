"""Reads from /proc what the processes of a segment have done so far."""

import contextlib
import os
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Final

from backprop.worker.segments.hang.watch import Work

MOST_THREADS: Final = 1024
"""Of one segment. Where there are more, nobody looks, and nothing is concluded."""
_WAITS: Final = frozenset("SIZX")
"""States of a thread that does nothing: asleep, idle or dead. Any other runs, waits for a disk, or is held by a signal
or a debugger."""
_WORKS_ELSEWHERE: Final = frozenset(
    {"docker", "podman", "nerdctl", "kubectl", "ssh", "mosh-client", "srun", "salloc", "sbatch", "ray"}
)
"""Programs that wait here for what other processes do, on this machine or another."""
_GPU_FILES: Final = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render")
_COUNTED: Final = ("rchar:", "wchar:", "read_bytes:", "write_bytes:")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def look_at(pids: Collection[int], gpu_idle: bool | None) -> Work | None:
    """Return what these processes have done; None where one of them cannot be seen, or waits for what others do.
    `gpu_idle`: as in `Work`."""
    cpu_s, moved, faults, at_work, threads = 0.0, 0, 0, False, 0
    try:
        for pid in pids:
            if Path(f"/proc/{pid}/comm").read_text(errors="replace").strip() in _WORKS_ELSEWHERE:
                return None
            fields = _stat(f"/proc/{pid}/stat")
            cpu_s += sum(int(field) for field in fields[11:15]) / _TICKS_PER_S
            faults += int(fields[9]) + int(fields[10])
            moved += _moved(pid)
            for name in islice(os.listdir(f"/proc/{pid}/task"), MOST_THREADS + 1):  # noqa: PTH208 - for each look
                threads += 1
                # A thread that has just ended did so by running.
                at_work = at_work or _stat(f"/proc/{pid}/task/{name}/stat")[0] not in _WAITS
            at_work = at_work or _is_frozen(pid)
            if threads > MOST_THREADS:
                return None
    except (OSError, ValueError, IndexError):
        return None
    return Work(frozenset(pids), cpu_s, moved, faults, at_work, gpu_idle)


def has_gpu_open(pids: Collection[int]) -> bool:
    """Return whether one of these processes has a GPU open, as far as that can be seen."""
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path).startswith(_GPU_FILES):  # noqa: PTH115 - for each of many
                        return True
    return False


def _stat(path: str) -> list[str]:
    """Return the fields from the state on. The name before them may hold spaces and parentheses."""
    return Path(path).read_text(errors="replace").rpartition(")")[2].split()


def _moved(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(_COUNTED))


def _is_frozen(pid: int) -> bool:
    """Return whether its control group is frozen: its processes look as if they slept."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                events = Path(f"/sys/fs/cgroup{line[3:]}") / "cgroup.events"
                return "frozen 1" in events.read_text().splitlines()
    return False
