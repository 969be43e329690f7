"""Starts the program beside each segment, and tells its versions apart."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

SUPERVISOR: Final = Path(__file__).parent.parent / "supervisor"
CONTROL_SIGNALS: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def program_version() -> list[tuple[int, int, int]]:
    """Return what tells this program's supervisor from another version's; less of it where files are missing."""
    found: list[tuple[int, int, int]] = []
    for path in sorted(SUPERVISOR.glob("*.py")):
        with contextlib.suppress(OSError):
            info = path.stat()
            found.append((info.st_ino, info.st_mtime_ns, info.st_size))
    return found


def start_standby(channel: int) -> "subprocess.Popen[bytes]":
    """Start one that waits at the other end of a socket. Raises OSError."""
    # The word must stay: a worker that is running during an upgrade starts the supervisor program of the new version.
    return start_supervisor(("--spare", str(channel)), (channel,), subprocess.DEVNULL)


def start_supervisor(
    arguments: tuple[str, ...], inherited: tuple[int, ...], errors: int
) -> "subprocess.Popen[bytes]":
    """Start the program of `supervisor/`. `inherited`: descriptors; `errors`: its stderr. Raises OSError."""
    with _blocked(CONTROL_SIGNALS):
        return subprocess.Popen(
            # Paths are UTF-8 whatever the locale, as for the worker.
            [sys.executable, "-I", "-S", "-X", "utf8", str(SUPERVISOR), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=inherited,
            start_new_session=True,
            cwd="/",
        )


@contextlib.contextmanager
def _blocked(signals: tuple[signal.Signals, ...]) -> Generator[None]:
    """Start children with these signals blocked: a signal to a supervisor that is still starting waits for it instead
    of ending it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
