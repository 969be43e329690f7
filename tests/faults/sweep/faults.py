"""What is done to a process at which of its system calls, in strace's words."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KILL = "signal=SIGKILL"
CALLS = (
    "flock", "pwrite64", "write", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "mkdir", "chmod", "vfork",
    "clone3", "clone", "wait4", "waitid", "pidfd_open", "pidfd_send_signal", "kill", "poll", "rt_sigtimedwait", "prctl",
    "umask", "chdir", "mknodat",
)  # fmt: skip
"""What is left out reads, maps or asks, and changes nothing that another process could see: a kill there is one at the
next of these."""
OF_FILES = ("openat", "close", "pread64", "read", "newfstatat")
"""Looked at only where they touch our files: an interpreter makes hundreds of them before it comes to us."""
NO_KILL = ("pread64", "read", "newfstatat")
ERRORS = {
    "ENOSPC": ("pwrite64", "write", "openat", "mkdir", "mknodat", "fdatasync", "fsync"),
    "EIO": (
        "pwrite64", "fsync", "fdatasync", "rename", "unlink", "pread64", "ftruncate", "openat", "read", "newfstatat",
    ),
    "EMFILE": ("openat", "pidfd_open"),
    "ENFILE": ("openat",),
    "ENOMEM": ("openat", "newfstatat"),
    "EACCES": ("openat", "newfstatat"),
    "ESTALE": ("openat", "read", "newfstatat"),
    "ENOTCONN": ("openat", "newfstatat"),
    "EAGAIN": ("vfork", "clone3", "clone"),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """The fault `what` at the `nth` call of `call`, counted among those that touch our files where `filed`."""

    call: str
    nth: int
    what: str
    filed: bool = False

    def __str__(self) -> str:
        return f"{self.what.removeprefix('signal=')} at {self.call} {self.nth}"

    def strace(self, trace: Path, files: Sequence[Path]) -> list[str]:
        inject = f"inject={self.call}:{self.what}:when={self.nth}"
        return _strace(trace, files if self.filed else (), ["-e", f"trace={self.call}", "-e", inject])


def counting(trace: Path, files: Sequence[Path]) -> list[str]:
    """Words before a command that let its calls be counted, all of them or those that touch `files`."""
    calls = OF_FILES if files else CALLS
    # A question mark: not every architecture has every call.
    return _strace(trace, files, ["-e", "trace=" + ",".join(f"?{call}" for call in calls)])


def points(trace: Path, filed: bool) -> list[Point]:
    """Every fault there is for the calls in a trace made by `counting`."""
    counted = Counter(re.findall(r"^(\w+)\(", trace.read_text(errors="replace"), re.M))
    found: list[Point] = []
    for call, count in sorted(counted.items()):
        whats = [f"error={name}" for name, calls in ERRORS.items() if call in calls]
        whats += [] if call in NO_KILL else [KILL]
        found += [Point(call, nth, what, filed) for what in whats for nth in range(1, count + 1)]
    return found


def struck(trace: Path) -> bool:
    """Whether the fault came to pass."""
    try:
        text = trace.read_text(errors="replace")
    except OSError:
        return False
    return "INJECTED" in text or "killed by SIGKILL" in text


def unusable() -> str | None:
    """Why there can be no sweep here; None if there can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = [
        *_strace(Path("/dev/null"), (), ["-e", "trace=fsync", "-e", f"inject=fsync:{KILL}:when=1"]),
        "true",
    ]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=30, check=False)
    return None if done.returncode == 0 else f"strace cannot trace here: {done.stderr.strip()}"


def tracing(trace: Path) -> list[str]:
    """strace without a word of what to trace. -D: the traced program keeps its parent and its pid."""
    return ["strace", "-D", "-qqq", "-o", str(trace)]


def _strace(trace: Path, files: Sequence[Path], what: list[str]) -> list[str]:
    only = [word for path in files for word in ("-P", str(path))]
    return [*tracing(trace), *only, *what, "--"]
