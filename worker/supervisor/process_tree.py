"""Which processes belong to a segment, and how are they all stopped?

Standard library only, imports nothing of ours: the supervisor runs it without a package around it.

A process is (pid, start ticks since boot), never a pid alone, and is signalled through a pidfd, so a reused pid
is never hit. A zombie is dead. With the supervisor as subreaper every orphan of the tree stays below it: freezing
all, looking again until nothing new appears and killing all then leaves no survivor. Both by pid and by group: a
group alone would miss those that made their own, pids alone those that fork faster than /proc can be read. That such a
look finds nobody proves nothing; that a subreaper has no child, living or dead, does.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True)
class Process:
    """One process of this boot. `start_ticks`: field 22 of /proc/PID/stat, clock ticks since boot. `group`: its
    process group when it was seen; 0 when unknown. Not part of who it is."""

    pid: int
    start_ticks: int
    group: int = field(default=0, compare=False)


Finder = Callable[[], list[Process]]
"""Finds the living processes of one segment, as of now."""


@dataclass(frozen=True)
class _Seen:
    process: Process
    parent: int
    session: int
    state: str
    exit_status: int


def boot_id() -> str:
    """The kernel's random id of this boot; pids and ticks mean nothing across two of them."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Process | None:
    """The living process that has `pid` now; None when there is none, or only its zombie."""
    seen = _look(pid)
    return seen.process if seen is not None and seen.state not in DEAD_STATES else None


def alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def stopped(process: Process) -> bool:
    """Whether this very process is stopped by a signal, or waits for a child that is: one that was stopped between
    vfork and exec holds its parent in a wait (state D) which only the child's going on ends."""
    seen = _look(process.pid)
    if seen is None or seen.process != process:
        return False
    if seen.state != "D":
        return seen.state == "T"
    below = (_look(pid) for pid in children(f"{process.pid}/task/{process.pid}"))
    return any(child is not None and child.state == "T" for child in below)


def zombie_status(process: Process) -> int | None:
    """The wait status of this very process while its parent has not collected it; None before and after."""
    seen = _look(process.pid)
    if seen is None or seen.process != process or seen.state not in DEAD_STATES:
        return None
    return seen.exit_status


def descendants(root: int) -> list[Process]:
    """All living processes below pid `root`, nearest first, without `root`."""
    children: dict[int, list[_Seen]] = {}
    for seen in _everybody():
        children.setdefault(seen.parent, []).append(seen)
    found: list[Process] = []
    level = [root]
    while level:
        below = [seen for parent in level for seen in children.get(parent, [])]
        found += [seen.process for seen in below if seen.state not in DEAD_STATES]
        level = [seen.process.pid for seen in below]
    return found


def members(leader: Process, cookie: tuple[bytes, ...]) -> list[Process]:
    """Processes of a segment whose supervisor is gone: the leader's session, everything below the leader, and
    whoever carries all of `cookie` ("NAME=value") in its environment. The caller itself is never one."""
    me = os.getpid()
    found = dict.fromkeys(carriers(cookie))
    # Somebody else under the leader's pid: then the session of that number is somebody else's too.
    if identify(leader.pid) in (leader, None):
        session = (seen for seen in _everybody() if seen.session == leader.pid)
        found |= dict.fromkeys(seen.process for seen in session if seen.state not in DEAD_STATES)
        found |= dict.fromkeys(descendants(leader.pid))
    return [process for process in found if process.pid != me]


def carriers(cookie: tuple[bytes, ...]) -> list[Process]:
    """Living processes whose environment holds every entry of `cookie`, oldest first. Evidence, not proof:
    a program may overwrite its environment."""
    found: list[Process] = []
    for seen in _everybody():
        with contextlib.suppress(OSError):
            entries = (PROC / str(seen.process.pid) / "environ").read_bytes().split(b"\0")
            if seen.state not in DEAD_STATES and all(entry in entries for entry in cookie):
                found.append(seen.process)
    return sorted(found, key=lambda process: process.start_ticks)


def send(process: Process, number: int) -> bool:
    """Signal this very process. False when it is gone or may not be signalled."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if identify(process.pid) != process:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def send_to_groups(found: list[Process], number: int) -> None:
    """Signal the groups of processes that were just seen, except our own.

    A program that forks and exits without end is gone from any list of pids before it is read, on a loaded machine
    always. The kernel signals a whole group at once, and a fork under way begins anew with the signal pending. A leader
    begins a session of its own, so the groups below it hold nobody else.
    """
    for group in dict.fromkeys(process.group for process in found):
        if group > 1 and group != os.getpgrp():
            with contextlib.suppress(OSError):
                os.killpg(group, number)


def freeze(find: Finder) -> list[Process]:
    """SIGSTOP everything that `find` sees until it sees nothing new. Returns what was stopped, in that order."""
    stopped: dict[Process, None] = {}
    while new := [process for process in find() if process not in stopped]:
        send_to_groups(new, signal.SIGSTOP)
        for process in new:
            send(process, signal.SIGSTOP)
            stopped[process] = None
    return list(stopped)


def thaw(find: Finder) -> None:
    """SIGCONT everything, the deepest first, so that no parent runs on beside a stopped child."""
    for process in reversed(find()):
        send(process, signal.SIGCONT)


def kill_all(
    find: Finder, cull: Callable[[], None], gone: Callable[[], bool], patience_s: float
) -> list[Process]:
    """`cull`, else freeze, look again and SIGKILL, until all are `gone` or `patience_s` is over. Returns those that
    were seen to survive. `cull`: ends and collects what this process knows without looking, its own children."""
    end = time.monotonic() + patience_s
    while True:
        cull()
        if gone():
            return []
        stopped = freeze(find)
        send_to_groups(stopped, signal.SIGKILL)
        for process in stopped:
            send(process, signal.SIGKILL)
        if time.monotonic() > end:
            return find() or [Process(pid, 0) for pid in children()]
        time.sleep(0.005)


def kill_children() -> bool:
    """SIGKILL to this process's children and their groups. False when there is none.

    One read, where a look at all of /proc takes longer than some programs keep a pid. A child that has died keeps its
    pid and its group until it is collected, so nobody else is hit; and its group still leads to those it has left.
    """
    found = children()
    for pid in found:
        with contextlib.suppress(OSError):
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGKILL)
            if group not in (0, 1, os.getpgrp()):
                os.killpg(group, signal.SIGKILL)
    return bool(found)


def children(thread: str = "thread-self") -> list[int]:
    """Pids of a thread's children, living or dead, this one's unless another is named below /proc; none where the
    kernel does not tell (CONFIG_PROC_CHILDREN)."""
    try:
        return [int(pid) for pid in (PROC / thread / "children").read_bytes().split()]
    except OSError:
        return []


def below() -> list[Process]:
    """Finds everything below this process: right for a subreaper."""
    return descendants(os.getpid())


def _everybody() -> list[_Seen]:
    found = (_look(int(entry)) for entry in os.listdir(PROC) if entry.isdecimal())  # noqa: PTH208
    return [seen for seen in found if seen is not None]


def _look(pid: int) -> _Seen | None:
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself: the fields start after the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    process = Process(pid, int(fields[19]), int(fields[2]))
    return _Seen(process, int(fields[1]), int(fields[3]), fields[0].decode(), int(fields[49]))
