"""Finds the processes that train, below shells and launchers that only wait for them.

What people queue is often a shell script, `make train`, `python train.py | tee log` or `accelerate launch`. A signal to
such a leader never reaches the training, or ends the leader alone. The walk goes down from the leader as long as a
process only passes on: one known by its name, or one that waits for its only child. It stops at the first process that
works itself, so data workers are never found. torchrun hands a signal on to every rank and is taken itself.

Standard library only, imports nothing of Backprop: the supervisor and `backprop show` share it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from typing import NamedTuple

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox"})
LAUNCHERS = frozenset({"accelerate", "deepspeed", "torchrun", "mpirun", "mpiexec", "orterun", "prterun"})
"""Ranks may need theirs to the end. So it is held only while it does nothing but wait for one child."""
PASS_ON = frozenset(
    {
        *SHELLS, *LAUNCHERS, "make", "gmake", "time", "env", "nice", "ionice", "nohup", "stdbuf", "timeout", "taskset",
        "numactl", "setsid", "uv", "uvx", "poetry", "pipenv", "pdm", "hatch", "rye", "pixi", "conda", "mamba",
        "micromamba",
    }
)  # fmt: skip
FILTERS = frozenset(
    {
        "tee", "cat", "grep", "egrep", "sed", "awk", "gawk", "mawk", "tail", "head", "tr", "ts", "cut", "sort", "uniq",
        "logger", "gzip", "zstd", "pv", "sleep", "nvidia-smi", "rocm-smi",
    }
)  # fmt: skip
DATA_WORKERS = (b"multiprocessing.spawn", b"multiprocessing.forkserver", b"multiprocessing.resource_tracker",
                b"multiprocessing-fork", b"popen_loky", b"compile_worker")  # fmt: skip
GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
FORK_S = 0.25
"""How long a forked shell may take to become another program. Taken for the training, a `sleep` in a loop would end the
grace with itself."""
LOOK_EVERY_S = 0.01
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Trainers(NamedTuple):
    """Pids. `signalled`: those to signal. `working`: those that train. `held`: the waiting ones above them, the deepest
    first. `readers`: those that read the output of the training and write it elsewhere."""

    signalled: tuple[int, ...]
    working: tuple[int, ...]
    held: tuple[int, ...] = ()
    readers: tuple[int, ...] = ()


def find(leader: int, number: int) -> Trainers:
    """Return what the stop signal `number` is for, in the tree below `leader`; the leader alone where that cannot be
    told: out of descriptors, for example, it must be asked all the same. Raises nothing."""
    try:
        return _find(leader, number)
    except (OSError, ValueError, LookupError, RecursionError):
        return Trainers((leader,), (leader,))


def _find(leader: int, number: int) -> Trainers:
    table = _Table()
    leaves = _Walk(table, leader, number).leaves
    end_s = time.monotonic() + FORK_S
    while _is_forking(table, leaves) and time.monotonic() < end_s:
        time.sleep(LOOK_EVERY_S)
        table = _Table()
        leaves = _Walk(table, leader, number).leaves
    # A shell without a child of its own kind is a loop around `sleep`, or the end of a pipe.
    leaves = {pid: path for pid, path in leaves.items() if not names(pid) & SHELLS} or leaves
    leaves = _without_pipe_ends(table, leaves)
    leaves = {pid: path for pid, path in leaves.items() if catches(pid, number)} or leaves
    signalled = {pid: path for pid, path in leaves.items() if catches(pid, number)}
    for pid, path in leaves.items():
        if pid not in signalled:
            taker = next((one for one in reversed(path) if _takes_for(one, pid, number)), pid)
            signalled[taker] = path[: path.index(taker)] if taker in path else path
    readers = _readers(table, leader, tuple(leaves))
    above = dict.fromkeys(pid for path in signalled.values() for pid in reversed(path))
    held = tuple(pid for pid in above if pid not in readers and _only_waits(pid))
    return Trainers(tuple(signalled), tuple(leaves), held, readers)


def _is_forking(table: "_Table", leaves: Iterable[int]) -> bool:
    """Return whether a shell below is seen that may become another program at once, and nothing else that trains."""
    return all(names(pid) & SHELLS for pid in leaves) and any(map(table.is_forked, leaves))


def names(pid: int) -> set[str]:
    """Return what a process may be called: its program, the script that Python runs, the package after `-m`."""
    words = [os.path.basename(word).decode(errors="replace") for word in command_line(pid)[:3]]  # noqa: PTH119
    if not words:
        return set()
    found = {words[0].lstrip("-")}
    if words[0].startswith("python") and len(words) > 1:
        found.add(words[2].partition(".")[0] if words[1] == "-m" and len(words) > 2 else words[1])
    return found


def command_line(pid: int) -> list[bytes]:
    """Return the words of a process's command; none for a dead one."""
    text = _read(f"{pid}/cmdline").rstrip(b"\0")
    return text.split(b"\0") if text else []


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal. Python has one for SIGINT from its start."""
    return _has(pid, b"SigCgt", number)


def ignores(pid: int, number: int) -> bool:
    """Return whether a process ignores a signal."""
    return _has(pid, b"SigIgn", number)


class _Entry(NamedTuple):
    """`stack`: where its stack begins, which a fork keeps and an exec draws anew. `ticks`: of CPU time."""

    parent: int
    ticks: int
    stack: int


class _Table:
    """All living processes, read once."""

    def __init__(self) -> None:
        self.entries: dict[int, _Entry] = {}
        self.children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):  # noqa: PTH208
            text = _read(f"{name}/stat") if name.isdecimal() else b""
            fields = text[text.rfind(b")") + 2 :].split()
            if len(fields) > 25 and fields[0] not in (b"Z", b"X", b"x"):
                ticks = int(fields[11]) + int(fields[12])
                self.entries[int(name)] = _Entry(int(fields[1]), ticks, int(fields[25]))
                self.children.setdefault(int(fields[1]), []).append(int(name))

    def is_forked(self, pid: int) -> bool:
        """Return whether a process still runs the program of its parent."""
        entry = self.entries.get(pid)
        parent = self.entries.get(entry.parent) if entry is not None else None
        return parent is not None and entry is not None and entry.stack == parent.stack

    def below(self, pid: int) -> list[int]:
        """Return a process and all below it."""
        found = {pid: None}
        level = [pid]
        while level:
            level = [one for parent in level for one in self.children.get(parent, []) if one not in found]
            found |= dict.fromkeys(level)
        return list(found)

    def ticks(self, pid: int) -> int:
        """Return the CPU time of a process and all below it."""
        return sum(self.entries[one].ticks for one in self.below(pid) if one in self.entries)

    def weight(self, pid: int) -> tuple[bool, int]:
        """Return what tells which of two processes trains."""
        return any(map(_uses_gpu, self.below(pid))), self.ticks(pid)


class _Walk:
    """`leaves`: where the walk ended, with the processes above each, from the leader on."""

    def __init__(self, table: _Table, leader: int, number: int) -> None:
        self._table, self._number = table, number
        self.leaves: dict[int, tuple[int, ...]] = {}
        self._down(leader, ())

    def _down(self, pid: int, path: tuple[int, ...]) -> None:
        children = (one for one in self._table.children.get(pid, []) if one not in path)
        below = [child for child in children if self._is_program(child)]
        if _is_elastic_agent(pid, below):
            passes_on = not catches(pid, self._number)
        else:
            passes_on = names(pid) & PASS_ON or (len(below) == 1 and self._waits_for(pid, below[0]))
        below = below if passes_on else []
        for child in below:
            self._down(child, (*path, pid))
        if not below:
            self.leaves[pid] = path

    def _is_program(self, child: int) -> bool:
        """Return whether a child is a program of its own rather than a data worker or a filter."""
        words, known = command_line(child), names(child)
        if not words or known & FILTERS or (self._table.is_forked(child) and not known & SHELLS):
            return False
        return not any(mark in word for word in words for mark in DATA_WORKERS)

    def _waits_for(self, pid: int, child: int) -> bool:
        if pid not in self._table.entries or _uses_gpu(pid):
            return False
        own, (gpu, its) = self._table.entries[pid].ticks, self._table.weight(child)
        waits = _in_wait(pid) or _reads_from(pid, child)
        return gpu or (own <= its + TICKS_PER_S if waits else its >= 4 * own + TICKS_PER_S)


def _without_pipe_ends(table: _Table, leaves: dict[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Leave out what only feeds or reads another one through a pipe."""
    dropped: set[int] = set()
    for pid in leaves:
        for other in leaves:
            if pid != other and _pipes(other, (1, 2)) & _pipes(pid):
                dropped.add(min(pid, other, key=table.weight))
    return {pid: path for pid, path in leaves.items() if pid not in dropped} or leaves


def _readers(table: _Table, leader: int, working: tuple[int, ...]) -> tuple[int, ...]:
    inside = {pid for one in working for pid in table.below(one)}
    outside = [pid for pid in table.below(leader) if pid not in inside]
    pipes = {pipe for pid in working for pipe in _pipes(pid, (1, 2))}
    found: dict[int, None] = {}
    while new := [pid for pid in outside if pid not in found and pipes and pipes & _pipes(pid)]:
        found |= dict.fromkeys(new)
        pipes |= {pipe for pid in new for pipe in _pipes(pid, (1, 2))}
    return tuple(found)


def _pipes(pid: int, written: tuple[int, ...] = ()) -> set[str]:
    """Return the pipes that a process reads, or those behind the descriptors `written`."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for name in written or os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/fd/{name}"
                # The link's own mode tells how the file was opened.
                if (target := os.readlink(path)).startswith("pipe:") and (  # noqa: PTH115
                    written or os.lstat(path).st_mode & 0o400
                ):
                    found.add(target)
    return found


def _takes_for(wrapper: int, pid: int, number: int) -> bool:
    """Return whether a wrapper has a trap for a signal that the process below has no handler for.

    Every shell that waits catches SIGINT, so that one counts only where the process ignores it.
    """
    return catches(wrapper, number) and (
        number != signal.SIGINT or not names(wrapper) & SHELLS or ignores(pid, number)
    )


def _only_waits(pid: int) -> bool:
    return bool(names(pid) & PASS_ON - LAUNCHERS) or _in_wait(pid)


def _in_wait(pid: int) -> bool:
    """Return whether it waits for a child to end, as far as can be told while it is paused."""
    return _read(f"{pid}/wchan").startswith((b"do_wait", b"do_signal_stop"))


def _reads_from(pid: int, child: int) -> bool:
    """Return whether it waits for the next line of a child that takes nothing from it."""
    waits = b"pipe_read" in _read(f"{pid}/wchan")
    return waits and bool(_pipes(child, (1, 2)) & _pipes(pid)) and not _pipes(child, (0,))


def _is_elastic_agent(pid: int, below: list[int]) -> bool:
    mark = b"TORCHELASTIC_RUN_ID="
    return mark not in _read(f"{pid}/environ") and any(mark in _read(f"{one}/environ") for one in below)


def _uses_gpu(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith(GPU_DEVICES):  # noqa: PTH115
                    return True
    return False


def _has(pid: int, field: bytes, number: int) -> bool:
    _, _, rest = _read(f"{pid}/status").partition(field + b":")
    return bool(rest) and bool(int(rest.split(None, 1)[0], 16) >> (number - 1) & 1)


def _read(path: str) -> bytes:
    try:
        with open(f"/proc/{path}", "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""
