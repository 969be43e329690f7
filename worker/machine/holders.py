"""Names the processes of others that hold a GPU: whose they are, what they run, what they take, and how long they have
done nothing.

Only what any user may read is read: the driver's list, and `/proc`. Of a command line the program and its script are
told and no other word, for there may be secrets in it.
"""

import time
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Final

import msgspec
import psutil

from backprop.scheduler.governor.model import amount
from backprop.scheduler.governor.snapshot import Gpu
from backprop.scheduler.store.connection import Database
from backprop.worker.machine.state import MachineState

GAP_S: Final = 400.0
"""Samples further apart than this leave a time of which nothing is known; a resting worker takes one in 300 s."""
BACK_S: Final = 86_400.0
LEAST_MIB: Final = 64
_SAMPLES: Final = """
    SELECT at_s, utilisation_pct FROM samples WHERE at_s > ? AND at_s <= ? AND gpu_uuid = ? ORDER BY at_s DESC
"""
_LONGEST: Final = 40
_INTERPRETERS: Final = ("python", "pypy")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds memory of a GPU and is none of ours. None: cannot be told. `command`: its program, and the
    script that runs in it. `idle_s`: for how long it has left the GPU idle. `known_as`: what kind of program it is."""

    pid: int
    user: str | None = None
    command: str | None = None
    vram_mib: int | None = None
    utilisation_pct: int | None = None
    idle_s: float | None = None
    known_as: str | None = None

    def sentence(self) -> str:
        """Return `python 4711, ada, 5.1 GiB, 0 % for 52 min: a Jupyter kernel`."""
        told = [f"{self.command or 'a process'} {self.pid}"]
        told += [self.user] if self.user is not None else []
        told += [amount(self.vram_mib)] if self.vram_mib is not None else []
        if self.utilisation_pct is not None:
            told.append(f"{self.utilisation_pct} %{_for(self.idle_s)}")
        return ", ".join(told) + (f": {self.known_as}" if self.known_as is not None else "")


def holders_of(
    gpu: Gpu, own: Collection[int], database: Database | None, now_s: float | None = None
) -> list[Holder]:
    """Return who holds a GPU beside us, the largest first. `own`: pids of our runs. `now_s`: Unix seconds. Raises
    DatabaseBusy."""
    now_s = time.time() if now_s is None else now_s
    others = [
        (pid, mib) for pid, mib in gpu.used_by_pid if pid not in own and (mib is None or mib >= LEAST_MIB)
    ]
    if not others:
        return []
    # Pids that do not exist here belong to another namespace, in which the others mean other processes too.
    if not all(psutil.pid_exists(pid) for pid, _ in gpu.used_by_pid):
        return [Holder(pid=pid, vram_mib=mib) for pid, mib in others]
    idle_s = _idle_s(gpu, database, now_s)
    found = [_holder(gpu, pid, mib, idle_s, now_s) for pid, mib in others]
    return sorted(found, key=lambda holder: -(holder.vram_mib or 0))


def own_pids(state: MachineState) -> frozenset[int]:
    """Return the processes of the live segments of this home."""
    return frozenset(pid for pids in state.processes.values() for pid in pids)


def _holder(gpu: Gpu, pid: int, mib: int | None, idle_s: float | None, now_s: float) -> Holder:
    busy = dict(gpu.busy_by_pid).get(pid, gpu.utilisation_pct if _says_of_each(gpu) else None)
    try:
        process = psutil.Process(pid)
        user, age_s = process.username(), now_s - process.create_time()
    except (psutil.Error, OSError):
        return Holder(pid=pid, vram_mib=mib)
    words = _words(process)
    return Holder(
        pid=pid,
        user=user,
        command=_command(process, words),
        vram_mib=mib,
        utilisation_pct=busy,
        idle_s=min(idle_s, max(age_s, 0.0)) if idle_s is not None and busy == 0 else None,
        known_as=_known_as(words),
    )


def _says_of_each(gpu: Gpu) -> bool:
    """Return whether the load of the whole GPU tells that of each process on it."""
    return gpu.utilisation_pct == 0 or len(gpu.used_by_pid) == 1


def _idle_s(gpu: Gpu, database: Database | None, now_s: float) -> float | None:
    """Return for how long the whole GPU was seen to do nothing; None where it works, or nobody has watched it."""
    if gpu.utilisation_pct != 0 or database is None:
        return None
    since_s = now_s
    for at_s, utilisation_pct in database.rows(_SAMPLES, now_s - BACK_S, now_s, gpu.uuid):
        if utilisation_pct != 0 or since_s - at_s > GAP_S:
            break
        since_s = at_s
    return now_s - since_s if since_s < now_s else None


def _words(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return ()


def _command(process: psutil.Process, words: Sequence[str]) -> str | None:
    try:
        name = process.name()
    except (psutil.Error, OSError):
        return None
    script = _script(words) if name.startswith(_INTERPRETERS) else None
    return f"{name} {script}"[:_LONGEST] if script is not None else name[:_LONGEST]


def _script(words: Sequence[str]) -> str | None:
    """Return the name of the script that an interpreter runs."""
    return next((PurePath(word).name for word in words[1:] if word.endswith(".py")), None)


def _known_as(words: Sequence[str]) -> str | None:
    if any("ipykernel" in word for word in words[1:4]):
        return "a Jupyter kernel"
    return None


def _for(idle_s: float | None) -> str:
    if idle_s is None or idle_s < 60:
        return ""
    if idle_s < 7200:
        return f" for {idle_s / 60:.0f} min"
    return f" for {idle_s / 3600:.0f} h"
