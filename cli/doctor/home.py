"""Checks that the home can be trusted, has room, and has working locks."""

import errno
import fcntl
import os
import signal
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from backprop.cli.doctor.finding import Finding, bad, note, ok
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import ADVICE, REMOTE_FILE_SYSTEMS, Home
from backprop.worker.probes.host import MIB

LOCAL_FILE_SYSTEMS: Final = {
    0xEF53: "ext4",
    0x58465342: "XFS",
    0x9123683E: "Btrfs",
    0x2FC12FC1: "ZFS",
    0xCA451A4E: "bcachefs",
    0xF2F52010: "F2FS",
    0xF15F: "eCryptfs",
    0x5346544E: "NTFS",
    0x7366746E: "NTFS",
    0x2011BAB0: "exFAT",
    0x4D44: "FAT",
}
"""By `f_type` of statfs(2). ext2 and ext3 share ext4's."""
TEMPORARY_FILE_SYSTEMS: Final = {
    0x01021994: ("tmpfs", "in memory: a reboot loses the queue and every run's folder"),
    0x858458F6: ("ramfs", "in memory: a reboot loses the queue and every run's folder"),
    0x794C7630: (
        "overlayfs",
        "probably inside a container: the queue is lost with it, unless it is on a volume",
    ),
}
SIZE_S: Final = 3.0
OLD_BACKUP_S: Final = 2 * 86400.0
REPAIR: Final = "backprop doctor --repair"


def check_home(home: Home) -> Finding:
    """Check for links, foreign owners and open modes. Raises HomeRefused, OSError."""
    if not layout.check(home):
        return ok("home", f"{home.root} does not exist yet; the first `backprop run` creates it")
    for folder in (home.locks, home.runs, home.root / "backups", home.database):
        if (wrong := _wrong(folder)) is not None:
            return bad("home", f"{folder} {wrong}", "check what it is, then move it away")
    mode = stat.S_IMODE(home.root.stat().st_mode)
    if mode & 0o077:
        return note("home", f"{home.root} can be read by others (mode {mode:o})", REPAIR)
    if home.database.exists() and not home.database.is_file():
        return bad("home", f"{home.database} is not a regular file", "check what it is, then move it away")
    missing = [folder.name for folder in (home.locks, home.runs) if not folder.exists()]
    if missing:
        return note("home", f"{home.root} lacks {' and '.join(missing)}; any `backprop run` creates them")
    return ok("home", f"{home.root}, private (mode {mode:o})")


def check_file_system(home: Home) -> Finding:
    """Check that the home is on a local and lasting file system."""
    path = home.root if home.root.exists() else home.root.parent
    kind = layout.file_system_type(path)
    if (remote := REMOTE_FILE_SYSTEMS.get(kind)) is not None:
        told = f"{path} is on {remote}, where locks cannot be trusted"
        if os.environ.get("BACKPROP_ALLOW_REMOTE_HOME") == "1":
            return note("file system", f"{told}; BACKPROP_ALLOW_REMOTE_HOME=1 accepts that")
        return bad("file system", told, ADVICE)
    if kind in TEMPORARY_FILE_SYSTEMS:
        name, why = TEMPORARY_FILE_SYSTEMS[kind]
        return note("file system", f"{name}; {why}", ADVICE)
    name = LOCAL_FILE_SYSTEMS.get(kind)
    return ok("file system", name or f"local, type 0x{kind:x}" if kind else "unknown")


def check_locks(home: Home) -> Finding:
    """Try flock on a nameless file in `locks/`, and a pidfd on this process. Raises OSError."""
    if not layout.check(home) or not home.locks.is_dir():
        return ok("locks", f"not tested: {home.locks} does not exist yet")
    try:
        excludes = _flock_excludes(home.locks)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        return bad("locks", f"cannot create a file in {home.locks}: {error.strerror}", "free some space")
    if not excludes:
        return bad("locks", f"file locks have no effect in {home.locks}", ADVICE)
    try:
        handle = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(handle, 0)
        finally:
            os.close(handle)
    except OSError as error:
        return bad("locks", f"the kernel has no pidfds ({error.strerror})", "use Linux 5.3 or newer")
    return ok("locks", "file locks and pidfds work")


def check_disk(home: Home, least_mib: int) -> Finding:
    """Check the free space on the home's disk against `minFreeDiskGB`. Raises OSError."""
    path = home.root if home.root.exists() else home.root.parent
    status = os.statvfs(path)
    free_mib = status.f_bavail * status.f_frsize // MIB
    if status.f_files and not status.f_favail:
        return bad("disk", f"cannot create files at {path}: no inodes left", "remove some files there")
    if free_mib < least_mib:
        return bad(
            "disk",
            f"{free_mib} MiB free at {path}; no run starts below {least_mib} MiB (minFreeDiskGB)",
            "free some space; running segments continue",
        )
    return ok(
        "disk", f"{free_mib / 1024:.1f} GiB free at {path}; runs need {least_mib / 1024:g} GiB to start"
    )


def check_size(home: Home) -> Finding:
    """Check the size of the home and of its logs, for `SIZE_S` at most."""
    from backprop.worker.maintenance import disk_usage

    use = disk_usage.measure(home, SIZE_S)
    told = f"{'' if use.whole else 'at least '}{use.total_bytes / disk_usage.GB:.1f} GB in {home.root}"
    warnings = use.sentences()
    return note("size", f"{told}; {'; '.join(warnings)}") if warnings else ok("size", told)


def check_backups(home: Home, now_s: float) -> Finding:
    """Check the age of the newest backup, and for damaged databases that recovery set aside."""
    times = [path.stat().st_mtime for path in (home.root / "backups").glob("backprop-*.db")]
    aside = sorted(path.name for path in home.root.glob("backprop.db.damaged-*"))
    kept = f"; {aside[-1]} is a damaged database that was set aside" if aside else ""
    if not times:
        if not home.database.exists():
            return ok("backup", f"nothing to back up yet{kept}")
        return note("backup", f"none yet; a worker makes one per day{kept}")
    age_s = max(now_s - max(times), 0.0)
    told = f"{len(times)} kept, the newest of {time.strftime('%Y-%m-%d %H:%M', time.localtime(max(times)))}{kept}"
    if age_s > OLD_BACKUP_S:
        return note("backup", f"{told}: {age_s / 86400:.0f} days ago; a worker makes one per day")
    return ok("backup", told)


def _wrong(path: Path) -> str | None:
    """Return why `path` cannot be trusted; None when it can, or does not exist. Raises OSError."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        return f"is a symbolic link, to {path.readlink()}"
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, you are {os.geteuid()}"
    return "can be written by others" if status.st_mode & 0o022 else None


def _flock_excludes(folder: Path) -> bool:
    """Return whether a lock on a file keeps a second opening of it out, and lets it in once released."""
    with tempfile.TemporaryFile(dir=folder) as first:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(f"/proc/self/fd/{first.fileno()}", "r+b") as second:  # noqa: PTH123
            try:
                fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(first, fcntl.LOCK_UN)
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False
