"""Reads RAM, load and disk of this machine. Cheap, local and unable to hang, so the worker itself does it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backprop.scheduler.governor.disk import Disks
from backprop.scheduler.governor.snapshot import Host
from backprop.scheduler.home.mounts import mounts

MIB: Final = 1024 * 1024
MOST_DISKS: Final = 32
_LOCAL: Final = (
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "overlay", "tmpfs", "vfat", "exfat",
    "ntfs", "ntfs3",
)  # fmt: skip
_NO_DISK: Final = ("proc", "sysfs", "squashfs", "devpts", "mqueue", "cgroup", "cgroup2", "autofs")
_SYSTEM: Final = ("/proc", "/sys", "/run", "/etc", "/boot", "/dev")
"""Where nobody saves. A container has files of /etc mounted one by one."""


def read_host(home: Path) -> Host:
    """Read the host. `home`: any folder on the file system whose space counts. Raises nothing."""
    ram_free_mib, ram_total_mib = _ram()
    return Host(
        ram_free_mib=ram_free_mib,
        ram_total_mib=ram_total_mib,
        load_1m=_load(),
        # Of the whole machine, as the load average: a worker confined to two cores sees everybody's load.
        cores=os.cpu_count() or 1,
        disk_free_mib=_disk(home),
        disks=_disks(),
    )


def _ram() -> tuple[int | None, int | None]:
    import psutil  # here, not above: commands that never read the host should not pay for it

    try:
        memory = psutil.virtual_memory()
    except (OSError, ValueError, RuntimeError, psutil.Error):
        return None, None
    free, total = memory.available, memory.total
    for limit, used in _cgroup_memory(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")):
        free, total = min(free, max(limit - used, 0)), min(total, limit)
    return free // MIB, total // MIB


def _cgroup_memory(own: Path, mounted: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit on memory of each cgroup v2 above this process, and what counts against it, in bytes. Files that
    are only cached give way."""
    try:
        entry = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    folder = mounted / entry.removeprefix("0::").lstrip("/")
    while folder == mounted or mounted in folder.parents:
        with contextlib.suppress(OSError, ValueError):
            limit, used = (
                int((folder / "memory.max").read_text()),
                int((folder / "memory.current").read_text()),
            )
            counts = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = next((int(value) for name, value in counts if name == "inactive_file"), 0)
            yield limit, used - cached
        folder = folder.parent


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _disks() -> Disks:
    """Return what is free on each local disk. A network mount is not asked: it may never answer."""
    try:
        table = mounts()
    except OSError:
        return ()
    found = {
        mount.folder: _disk(Path(mount.folder)) if mount.kind in _LOCAL else None
        for mount in table
        if not (mount.kind in _NO_DISK or mount.folder.startswith(_SYSTEM) or "ro" in mount.options)
    }
    return tuple(sorted(found.items())[:MOST_DISKS])


def _disk(home: Path) -> int | None:
    """Return what an ordinary user may still write: the blocks reserved for root do not count."""
    try:
        status = os.statvfs(home)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize // MIB
