"""Locates the home, checks that it can be trusted, and names the files inside it.

The home is `~/.backprop`, or `BACKPROP_HOME`: a real directory of this user, closed to all others, on a local file
system. Everything relies on SQLite's locks and on flock, and both are unsound on network file systems
(sqlite.org/howtocorrupt.html §2; flock(2), NOTES), so those are refused.
"""

import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.errors import HomeRefused

REMOTE_FILE_SYSTEMS: Final = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB",
    0xFF534D42: "CIFS",
    0x01021997: "9p",
    0x65735546: "FUSE",
    0x5346414F: "AFS",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
}
"""`f_type` of statfs(2) for file systems whose locks other machines, or nobody, may not honour."""

ADVICE: Final = "set BACKPROP_HOME to a private directory on a local disk"


class Home(msgspec.Struct, frozen=True):
    """The folder and the names inside it."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "backprop.db"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def batches(self) -> Path:
        return self.root / "batches"

    @property
    def packages(self) -> Path:
        """Lists of installed packages, each kept once."""
        return self.root / "packages"

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def requests(self) -> Path:
        return self.root / "requests.jsonl"

    @property
    def last_report(self) -> Path:
        """Holds when the last report was made, Unix seconds."""
        return self.root / "last-report"

    @property
    def vram_trials(self) -> Path:
        """Holds which drivers and GPUs were seen to move VRAM to RAM and back."""
        return self.root / "vram-trials.json"

    def batch_file(self, batch: str) -> Path:
        return self.batches / f"{batch}.jsonl"

    def batch_outcomes(self, batch: str) -> Path:
        return self.batches / f"{batch}.ends.jsonl"

    def batch_folder(self, batch: str) -> Path:
        """The code that the batch's members share, if a snapshot was asked for, and the notes of what they were queued
        with."""
        return self.batches / batch

    def run_folder(self, run_id: str) -> Path:
        return self.runs / run_id

    def run_lock(self, run_id: str) -> Path:
        """Where the run's lock lies: beside those of workers, where its folder lies on a share, whose locks may not be
        trusted."""
        folder = self.runs / run_id
        return self.locks / f"run-{run_id}.lock" if folder.is_symlink() else folder / "run.lock"

    def segment_folder(self, run_id: str, number: int) -> Path:
        return self.runs / run_id / str(number)


def locate() -> Home:
    """Return the home that this environment names, unchecked. Raises HomeRefused for a relative BACKPROP_HOME, and
    where there is no home directory."""
    named = os.environ.get("BACKPROP_HOME")
    if named is None or not named:
        try:
            return Home(Path.home() / ".backprop")
        except RuntimeError as error:  # no HOME, and a uid that the machine does not know
            raise HomeRefused(f"there is no home directory: HOME is not set; {ADVICE}") from error
    root = Path(named)
    if not root.is_absolute():
        raise HomeRefused(f"BACKPROP_HOME={named} is not an absolute path; {ADVICE}")
    return Home(root)


def check(home: Home) -> bool:
    """Return whether the home exists. Writes nothing.

    Raises HomeRefused when it exists and is a symbolic link, not a directory, another user's, or writable by others.
    """
    root = home.root
    try:
        status = root.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HomeRefused(f"{root}: {error.strerror}; {ADVICE}") from error
    if stat.S_ISLNK(status.st_mode):
        raise HomeRefused(
            f"{root} is a symbolic link; set BACKPROP_HOME to that path itself: {os.path.realpath(root)}"
        )
    if not stat.S_ISDIR(status.st_mode):
        raise HomeRefused(f"{root} is not a directory; {ADVICE}")
    if status.st_uid != os.geteuid():
        raise HomeRefused(f"{root} belongs to uid {status.st_uid}, you are {os.geteuid()}; {ADVICE}")
    if status.st_mode & stat.S_ISVTX:
        raise HomeRefused(f"{root} is a folder that users share (mode {status.st_mode & 0o7777:o}); {ADVICE}")
    if status.st_mode & 0o022:
        raise HomeRefused(
            f"{root} can be written by others (mode {status.st_mode & 0o777:o}); close it: chmod 700 {root}"
        )
    return True


def ensure(home: Home) -> Home:
    """Create or check the home and its folders, and close it to others. Raises HomeRefused."""
    exists = check(home)
    try:
        # Before the first lock or database is created in it. `backprop worker` checks at every start.
        if not home.database.exists():
            refuse_remote(home.root if exists else home.root.parent)
        home.root.mkdir(mode=0o700, parents=False, exist_ok=True)
        if home.root.stat().st_mode & 0o077:
            home.root.chmod(0o700)
        home.locks.mkdir(mode=0o700, exist_ok=True)
        home.runs.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError as error:
        raise HomeRefused(
            f"{home.root.parent} does not exist, so {home.root} cannot be made in it; {ADVICE}"
        ) from error
    except OSError as error:
        raise HomeRefused(f"{home.root}: {error.strerror}; {ADVICE}") from error
    check(home)
    return home


def refuse_remote(path: Path) -> None:
    """Refuse a network or FUSE file system, unless BACKPROP_ALLOW_REMOTE_HOME=1. Raises HomeRefused."""
    kind = REMOTE_FILE_SYSTEMS.get(file_system_type(path))
    if kind is not None and os.environ.get("BACKPROP_ALLOW_REMOTE_HOME") != "1":
        raise HomeRefused(f"{path} is on {kind}, where locks cannot be trusted; {ADVICE}")


def file_system_type(path: Path) -> int:
    """Return `f_type` of statfs(2), or 0 when it cannot be read. It is the structure's first long on every Linux
    ABI."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        return 0
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
