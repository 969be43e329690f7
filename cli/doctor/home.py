"""Is the home a place that can be trusted, and do locks work in it?"""

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
"""`f_type` of statfs(2), by their usual names (ext2 and ext3 share ext4's)."""
PASSING_FILE_SYSTEMS: Final = {
    0x01021994: ("tmpfs", "it is in memory: a reboot loses the queue and every run's folder"),
    0x858458F6: ("ramfs", "it is in memory: a reboot loses the queue and every run's folder"),
    0x794C7630: (
        "overlayfs",
        "probably inside a container: what is queued goes with it, unless kept on a volume",
    ),
}
SIZE_S: Final = 3.0
OLD_BACKUP_S: Final = 2 * 86400.0
REPAIR: Final = "backprop doctor --repair"


def check_home(home: Home) -> Finding:
    """Link, owner, mode. Raises HomeRefused, OSError."""
    if not layout.check(home):
        return ok("home", f"{home.root} does not exist yet; the first `backprop run` makes it")
    for folder in (home.locks, home.runs, home.root / "backups", home.database):
        if (wrong := _wrong(folder)) is not None:
            return bad("home", f"{folder} {wrong}", "look at what is there, then move it away")
    mode = stat.S_IMODE(home.root.stat().st_mode)
    if mode & 0o077:
        return note("home", f"{home.root} can be read by others (mode {mode:o})", REPAIR)
    if home.database.exists() and not home.database.is_file():
        return bad("home", f"{home.database} is no regular file", "look at what is there, then move it away")
    missing = [folder.name for folder in (home.locks, home.runs) if not folder.exists()]
    if missing:
        return note("home", f"{home.root} lacks {' and '.join(missing)}; any `backprop run` makes them")
    return ok("home", f"{home.root}, ours alone (mode {mode:o})")


def check_file_system(home: Home) -> Finding:
    """The kind it is on, by name."""
    place = home.root if home.root.exists() else home.root.parent
    kind = layout.file_system_type(place)
    if (remote := REMOTE_FILE_SYSTEMS.get(kind)) is not None:
        told = f"{place} is on {remote}, where locks cannot be trusted"
        if os.environ.get("BACKPROP_ALLOW_REMOTE_HOME") == "1":
            return note("file system", f"{told}; BACKPROP_ALLOW_REMOTE_HOME=1 accepts that")
        return bad("file system", told, ADVICE)
    if kind in PASSING_FILE_SYSTEMS:
        name, why = PASSING_FILE_SYSTEMS[kind]
        return note("file system", f"{name}; {why}", ADVICE)
    name = LOCAL_FILE_SYSTEMS.get(kind)
    return ok("file system", name or f"a local one of type 0x{kind:x}" if kind else "cannot be told")


def check_locks(home: Home) -> Finding:
    """Tries flock and pidfds for real: in a nameless file in `locks/`, on this process. Raises OSError."""
    if not layout.check(home) or not home.locks.is_dir():
        return ok("locks", f"not tried: there is no {home.locks} yet")
    try:
        excludes = _flock_excludes(home.locks)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        return bad("locks", f"no file can be made in {home.locks}: {error.strerror}", "free some space")
    if not excludes:
        return bad("locks", f"flock excludes nobody in {home.locks}", ADVICE)
    try:
        handle = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(handle, 0)
        finally:
            os.close(handle)
    except OSError as error:
        return bad("locks", f"the kernel has no pidfds ({error.strerror})", "Linux 5.3 or newer is needed")
    return ok("locks", "flock excludes, pidfds work")


def check_disk(home: Home, least_mib: int) -> Finding:
    """Room on the home's disk, against `minFreeDiskGB`. Raises OSError."""
    place = home.root if home.root.exists() else home.root.parent
    told = os.statvfs(place)
    free_mib = told.f_bavail * told.f_frsize // MIB
    if told.f_files and not told.f_favail:
        return bad(
            "disk", f"no file can be made at {place}: it has no inodes left", "remove some files there"
        )
    if free_mib < least_mib:
        return bad(
            "disk",
            f"{free_mib} MiB free at {place}; below {least_mib} MiB (minFreeDiskGB) no run starts",
            "free some space; what is running goes on",
        )
    return ok("disk", f"{free_mib / 1024:.1f} GiB free at {place}; runs start from {least_mib / 1024:g} GiB")


def check_size(home: Home) -> Finding:
    """What the home takes, and logs that are out of hand. Looks for a few seconds at most."""
    from backprop.worker.maintenance import disk_usage

    use = disk_usage.look(home, SIZE_S)
    told = f"{'' if use.whole else 'at least '}{use.total_bytes / disk_usage.GB:.1f} GB in {home.root}"
    warnings = use.sentences()
    return note("size", f"{told}; {'; '.join(warnings)}") if warnings else ok("size", told)


def check_backups(home: Home, now_s: float) -> Finding:
    """How old the newest backup is; what recovery has set aside."""
    times = [path.stat().st_mtime for path in (home.root / "backups").glob("backprop-*.db")]
    aside = sorted(path.name for path in home.root.glob("backprop.db.damaged-*"))
    kept = f"; {aside[-1]} is a damaged database that was set aside" if aside else ""
    if not times:
        if not home.database.exists():
            return ok("backup", f"nothing to back up yet{kept}")
        return note("backup", f"none yet; a worker makes one a day{kept}")
    age_s = max(now_s - max(times), 0.0)
    told = f"{len(times)} kept, the newest of {time.strftime('%Y-%m-%d %H:%M', time.localtime(max(times)))}{kept}"
    if age_s > OLD_BACKUP_S:
        return note("backup", f"{told}: {age_s / 86400:.0f} days ago; a worker makes one a day")
    return ok("backup", told)


def _wrong(path: Path) -> str | None:
    """Why what is at `path` is not ours to trust; None when it is, or nothing is there. Raises OSError."""
    try:
        seen = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(seen.st_mode):
        return f"is a symbolic link, to {path.readlink()}"
    if seen.st_uid != os.geteuid():
        return f"belongs to uid {seen.st_uid}, you are {os.geteuid()}"
    return "can be written by others" if seen.st_mode & 0o022 else None


def _flock_excludes(folder: Path) -> bool:
    """Whether a second opening of one file is kept out while the first holds it, and let in afterwards."""
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
