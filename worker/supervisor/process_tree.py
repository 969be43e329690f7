"""Finds the processes of a segment, and freezes, continues or kills all of them.

A process is (pid, start ticks since boot), never a pid alone, and is signalled through a pidfd, so a reused pid
is never hit. A zombie is dead. With the supervisor as subreaper every orphan of the tree stays below it: freezing
all, scanning again until nothing new appears and then killing all leaves no survivor. Both by pid and by group: a
group alone would miss processes that made their own, pids alone those that fork faster than /proc can be read. A scan
that finds nobody proves nothing; a subreaper without any child, living or dead, does.

Standard library only, imports nothing of Backprop: the supervisor runs it without a package around it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
DEAD_STATES = frozenset("ZXx")


class Process:
    """One process of this boot. `start_ticks`: field 22 of /proc/PID/stat, clock ticks since boot. `group`: its
    process group when it was scanned; 0 when unknown. Not part of its identity."""

    __slots__ = ("group", "pid", "start_ticks")

    def __init__(self, pid: int, start_ticks: int, group: int = 0) -> None:
        self.pid = pid
        self.start_ticks = start_ticks
        self.group = group

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and self.pid == other.pid and self.start_ticks == other.start_ticks

    def __hash__(self) -> int:
        return hash((self.pid, self.start_ticks))


Finder = Callable[[], list[Process]]
"""Returns the living processes of one segment."""


class _Entry(NamedTuple):
    """What /proc/PID/stat says of a process, zombies included."""

    process: Process
    parent: int
    session: int
    state: str
    exit_status: int


def boot_id() -> str:
    """Return the kernel's random id of this boot; pids and ticks mean nothing in another boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def pid_namespace(pid: int | str = "self") -> str | None:
    """Return the namespace that a process has its pid in; a pid means another process in any other. None where that
    cannot be told."""
    try:
        return str((PROC / str(pid) / "ns/pid").readlink())
    except OSError:
        return None


def is_from_elsewhere(noted: object) -> bool:
    """Return whether pids were noted in another namespace, such as another container's. `noted`: None in a note of
    0.1.0, which counts as one from here."""
    own = pid_namespace()
    return isinstance(noted, str) and own is not None and noted != own


def of_this_boot(note: dict[str, object], field: str) -> float | None:
    """Return the seconds in a field of a note, if it was written in this boot: the monotonic clock begins with it."""
    value = note.get(field)
    if not isinstance(value, int | float) or note.get("boot_id") != boot_id():
        return None
    return float(value)


def identify(pid: int) -> Process | None:
    """Return the living process that has `pid` now; None when there is none, or only its zombie."""
    entry = _entry(pid)
    return entry.process if entry is not None and entry.state not in DEAD_STATES else None


def alive(process: Process) -> bool:
    """Return whether this very process still lives."""
    return identify(process.pid) == process


def stopped(process: Process) -> bool:
    """Return whether this very process is stopped by a signal, or waits for a child that is.

    A child that was stopped between vfork and exec holds its parent in a wait (state D) until the child goes on.
    """
    entry = _entry(process.pid)
    if entry is None or entry.process != process:
        return False
    if entry.state != "D":
        return entry.state == "T"
    below = (_entry(pid) for pid in children(f"{process.pid}/task/{process.pid}"))
    return any(child is not None and child.state == "T" for child in below)


def zombie_status(process: Process) -> int | None:
    """Return the wait status of this very process while its parent has not collected it; None before and after."""
    entry = _entry(process.pid)
    if entry is None or entry.process != process or entry.state not in DEAD_STATES:
        return None
    return entry.exit_status


def descendants(root: int) -> list[Process]:
    """Return all living processes below pid `root`, nearest first, without `root`."""
    children: dict[int, list[_Entry]] = {}
    for entry in _all_entries():
        children.setdefault(entry.parent, []).append(entry)
    processes: list[Process] = []
    level = [root]
    while level:
        below = [entry for parent in level for entry in children.get(parent, [])]
        processes += [entry.process for entry in below if entry.state not in DEAD_STATES]
        level = [entry.process.pid for entry in below]
    return processes


def members(leader: Process, cookie: tuple[bytes, ...]) -> list[Process]:
    """Return the living processes of a segment whose supervisor is gone, without the caller.

    They are the leader's session, everything below the leader, and the carriers of `cookie`.
    """
    own_pid = os.getpid()
    processes = dict.fromkeys(carriers(cookie))
    # If another process has the leader's pid, the session of that number is not the segment's either.
    if identify(leader.pid) in (leader, None):
        session = (entry for entry in _all_entries() if entry.session == leader.pid)
        processes |= dict.fromkeys(entry.process for entry in session if entry.state not in DEAD_STATES)
        processes |= dict.fromkeys(descendants(leader.pid))
    return [process for process in processes if process.pid != own_pid]


def carriers(cookie: tuple[bytes, ...]) -> list[Process]:
    """Return the living processes whose environment holds every "NAME=value" of `cookie`, oldest first.

    Evidence, not proof: a program may overwrite its environment.
    """
    processes: list[Process] = []
    for entry in _all_entries():
        with contextlib.suppress(OSError):
            environment = (PROC / str(entry.process.pid) / "environ").read_bytes().split(b"\0")
            if entry.state not in DEAD_STATES and all(variable in environment for variable in cookie):
                processes.append(entry.process)
    return sorted(processes, key=lambda process: process.start_ticks)


def send(process: Process, number: int) -> bool:
    """Signal this very process; False when it is gone or may not be signalled."""
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


def send_to_groups(processes: list[Process], number: int) -> None:
    """Signal the groups of processes that were just found, except the caller's own group.

    A program that forks and exits without end is gone before a list of pids can be used, on a loaded machine always.
    The kernel signals a whole group at once, and a fork under way begins anew with the signal pending. A leader
    begins a session of its own, so the groups below it hold no other processes.
    """
    for group in dict.fromkeys(process.group for process in processes):
        if group > 1 and group != os.getpgrp():
            with contextlib.suppress(OSError):
                os.killpg(group, number)


def freeze(find: Finder) -> list[Process]:
    """Send SIGSTOP to everything that `find` returns until nothing new appears. Return what was stopped, in order."""
    stopped: dict[Process, None] = {}
    while new := [process for process in find() if process not in stopped]:
        send_to_groups(new, signal.SIGSTOP)
        for process in new:
            send(process, signal.SIGSTOP)
            stopped[process] = None
    return list(stopped)


def thaw(find: Finder) -> None:
    """Send SIGCONT to everything, the deepest first, so that no parent runs on beside a stopped child."""
    for process in reversed(find()):
        send(process, signal.SIGCONT)


def kill_all(
    find: Finder, cull: Callable[[], None], gone: Callable[[], bool], patience_s: float
) -> list[Process]:
    """Kill until all are `gone` or `patience_s` is over; return the survivors.

    `cull`: kills and collects this process's own children, which needs no scan of /proc. What is left is frozen,
    searched again and killed.
    """
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
    """Send SIGKILL to this process's children and their groups; False when there is none.

    One read, where a scan of all of /proc takes longer than some programs keep a pid. A child that has died keeps its
    pid and its group until it is collected, so no other process is hit; its group still leads to those it left behind.
    """
    pids = children()
    for pid in pids:
        with contextlib.suppress(OSError):
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGKILL)
            if group not in (0, 1, os.getpgrp()):
                os.killpg(group, signal.SIGKILL)
    return bool(pids)


def children(thread: str = "thread-self") -> list[int]:
    """Return the pids of a thread's children, living or dead. `thread`: its folder below /proc, the caller's own by
    default. Empty without CONFIG_PROC_CHILDREN in the kernel."""
    try:
        return [int(pid) for pid in (PROC / thread / "children").read_bytes().split()]
    except OSError:
        return []


def below() -> list[Process]:
    """Return everything below this process: the whole tree for a subreaper."""
    return descendants(os.getpid())


def _all_entries() -> list[_Entry]:
    entries = (_entry(int(name)) for name in os.listdir(PROC) if name.isdecimal())  # noqa: PTH208
    return [entry for entry in entries if entry is not None]


def _entry(pid: int) -> _Entry | None:
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself: the fields start after the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    process = Process(pid, int(fields[19]), int(fields[2]))
    return _Entry(process, int(fields[1]), int(fields[3]), fields[0].decode(), int(fields[49]))
