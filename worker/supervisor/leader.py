"""Starts and watches the leader: the process that the user's command became.

There are three kinds. `Spawned` is a child, and its status comes from wait. `Found` had a supervisor that died; it is
watched through a pidfd, and its status comes from newer kernels only. `Gone` ended while nobody watched, and only its
stragglers are left. Standard library only, imports nothing of Backprop.
"""

import contextlib
import fcntl
import functools
import os
import select
import signal
import struct
from collections.abc import Mapping, Sequence

import process_tree

RESET = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
PIDFD_INFO = struct.Struct("=QQ11Ii")
"""`struct pidfd_info` of <linux/pidfd.h>, first version: mask, cgroup id, eleven ids, exit status."""
PIDFD_GET_INFO = 3 << 30 | PIDFD_INFO.size << 16 | 0xFF << 8 | 11
PIDFD_INFO_EXIT = 1 << 3
CULLS = 1000
"""Scans in a row of this process's children, of some 50 µs each, before all of /proc is scanned again."""
OOM_SCORE_ADJ = 300
"""So that the kernel, short of memory, ends training rather than the supervisor or the user's desktop."""


class Leader:
    """A living or ended leader. `find`: finds the living processes of its segment."""

    process: process_tree.Process
    find: process_tree.Finder
    poll_s: float | None = None
    """How often to check whether it has ended; None when SIGCHLD reports it."""

    def ended(self) -> bool:
        """Return whether the leader itself has ended."""
        raise NotImplementedError

    def cull(self) -> None:
        """Send SIGKILL to the processes that can be reached without a scan of /proc."""

    def gone(self) -> bool:
        """Return whether nothing of the tree lives, the leader included."""
        return not self.find()

    def status(self) -> int | None:
        """Return the wait status; None while the leader lives, or when its status is unknown."""
        return None


class Spawned(Leader):
    """A child of this process. Collects every child: as subreaper this process inherits the orphans of the tree."""

    def __init__(self, program: str, argv: Sequence[str], environment: Mapping[str, str], log: int) -> None:
        """Start it in a session of its own, with `log` as stdout and stderr and no signal ignored. Raises OSError."""
        self._status: int | None = None
        pid = os.posix_spawn(
            program,
            list(argv),
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=RESET,
        )
        self.process = process_tree.identify(pid) or process_tree.Process(pid, 0)
        self.find = _below_if_any
        with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write(str(OOM_SCORE_ADJ))

    def ended(self) -> bool:
        self.reap()
        return self._status is not None

    def reap(self) -> None:
        """Collect every child that has died."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.process.pid:
                self._status = status

    def cull(self) -> None:
        """Kill the children again and again: those that a dead child leaves behind become children in turn."""
        for _ in range(CULLS):
            more = process_tree.kill_children()
            self.reap()
            if not more:
                return

    def gone(self) -> bool:
        self.reap()
        return _childless()

    def status(self) -> int | None:
        return self._status


def _below_if_any() -> list[process_tree.Process]:
    """Return the living processes below this one. Without a child there is none, and /proc need not be read: orphans
    of the tree become children of this process."""
    return [] if _childless() else process_tree.below()


def _childless() -> bool:
    """Return whether this process has no child, living or dead."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


class Found(Leader):
    """Another process's child, watched through a pidfd. Raises ProcessLookupError when it is gone already."""

    poll_s = 0.2

    def __init__(self, process: process_tree.Process, cookie: tuple[bytes, ...]) -> None:
        self._pidfd = os.pidfd_open(process.pid)
        if process_tree.identify(process.pid) != process:
            os.close(self._pidfd)
            raise ProcessLookupError(process.pid)
        self.process = process
        self.find = functools.partial(process_tree.members, process, cookie)

    def ended(self) -> bool:
        readable, _, _ = select.select([self._pidfd], [], [], 0)
        return bool(readable)

    def status(self) -> int | None:
        zombie = process_tree.zombie_status(self.process)
        return zombie if zombie is not None else _reaped_status(self._pidfd)


class Gone(Leader):
    """Another process's child whose end nobody saw. What it left behind is still to be ended."""

    def __init__(self, process: process_tree.Process, cookie: tuple[bytes, ...]) -> None:
        self.process = process
        self.find = functools.partial(process_tree.members, process, cookie)

    def ended(self) -> bool:
        return True


def _reaped_status(pidfd: int) -> int | None:
    """Return the wait status of a process that its parent has collected; None before kernel 6.15, which first keeps
    it."""
    body = bytearray(PIDFD_INFO.pack(PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, body)
    except OSError:
        return None
    mask, *_, status = PIDFD_INFO.unpack(body)
    return status if mask & PIDFD_INFO_EXIT else None
