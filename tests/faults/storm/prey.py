"""Who is who among the processes of a home, and how one of them is signalled without ever hitting a bystander."""

import contextlib
import os
import signal
from pathlib import Path

from tests.support.harness import processes_with

ROLES = {
    "supervisor": b"worker/supervisor\0",
    "worker": b"backprop\0worker\0",
    "leader": b"ledger.py\0--steps\0",
}


def of_role(home: Path, role: str) -> list[int]:
    """The living processes of `home` that are workers, supervisors or leaders."""
    return [pid for pid in processes_with(f"BACKPROP_HOME={home}") if ROLES[role] in _command(pid) + b"\0"]


def reserves(home: Path, busy: set[int]) -> list[int]:
    """The supervisors that wait for a segment: none of `busy`, and none that took over from a dead one."""
    return [pid for pid in of_role(home, "supervisor") if pid not in busy and b"--spare" in _command(pid)]


def send(home: Path, pid: int, number: signal.Signals) -> bool:
    """Signal it if it is still of this home; a pid that somebody else has by now is left alone."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"BACKPROP_HOME={home}".encode() not in environment:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
