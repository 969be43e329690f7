"""Notes that a worker ticks, and tells of another whether it does.

A worker that lives holds its lock; one that was stopped (Ctrl-Z) or hangs in a call holds it too. So each worker writes
into its lock file, every few seconds and without a sync, when it last ticked. That is a time of the monotonic clock,
which nobody sets and which stops while the machine sleeps. It means something in the same boot and container alone.

Standard library only: `backprop run` reads it.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from backprop.worker.executor import locks as file_locks
from backprop.worker.supervisor import process_tree

BEAT_S: Final = 5.0
SILENT_S: Final = 60.0
"""A tick takes less, even while it waits for a locked database."""
SIZE: Final = 200
"""Bytes of a note: each overwrites the one before in one write, which needs no room on the disk."""


class Heartbeat:
    """A worker's own. Raises OSError when it is made, if its lock file cannot be written."""

    def __init__(self, locks: Path, worker: str) -> None:
        path = file_locks.worker_lock_path(locks, worker)
        # A descriptor of its own: closed, it leaves the lock to the one that holds it.
        self._handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._place = _place()
        self._beaten_s: float | None = None
        self.beat()

    def beat(self) -> None:
        """Note that the worker ticks, now and then. Call at least once per tick."""
        now_s = time.monotonic()
        if self._beaten_s is None or now_s - self._beaten_s >= BEAT_S:
            self._beaten_s = now_s
            note = f"{now_s:.1f} {os.getpid()} {self._place}"[: SIZE - 1]
            with contextlib.suppress(OSError):
                os.pwrite(self._handle, note.encode().ljust(SIZE - 1) + b"\n", 0)

    def close(self) -> None:
        os.close(self._handle)


class Silence(msgspec.Struct, frozen=True):
    """A worker that lives and does not tick, for `silent_s` seconds now. `stopped`: by a signal."""

    worker: str
    pid: int
    silent_s: float
    stopped: bool

    def sentence(self) -> str:
        """Return which worker it is, and what to do."""
        if self.stopped:
            why = f"it is stopped (Ctrl-Z); bring it back with fg or kill -CONT {self.pid},"
        else:
            why = "it hangs, perhaps on a disk or share that does not answer; wait,"
        return f"worker {self.worker} has not ticked for {_words(self.silent_s)}: {why} or end it: kill -9 {self.pid}"


def silence(locks: Path, worker: str) -> Silence | None:
    """Return the silence of a living worker. None: it ticks, or that cannot be told here."""
    words = _note(locks, worker).decode(errors="replace").split(maxsplit=2)
    try:
        beat_s, pid, place = float(words[0]), int(words[1]), words[2].strip()
    except (ValueError, IndexError):
        return None
    silent_s = time.monotonic() - beat_s
    if place != _place() or silent_s < 0:
        return None
    process = process_tree.identify(pid)
    stopped = process is not None and process_tree.stopped(process)
    return Silence(worker, pid, silent_s, stopped) if stopped or silent_s >= SILENT_S else None


def silences(locks: Path) -> list[Silence]:
    """Return the living workers of this home that do not tick, as far as that can be told. Raises nothing."""
    found: list[Silence] = []
    paths: list[Path] = []
    with contextlib.suppress(OSError):  # a home that is away
        paths = sorted(locks.glob("worker-*.lock"))
    for path in paths:
        worker = path.stem.removeprefix("worker-")
        with contextlib.suppress(OSError):
            if (silent := silence(locks, worker)) is not None and file_locks.worker_alive(locks, worker):
                found.append(silent)
    return found


class Listener:
    """What one worker hears of the others.

    It counts by itself for how long a note has stood unchanged, so clocks of other containers do not matter. Between
    two looks it counts half of `SILENT_S` at most: who was stopped itself judges nobody at once.
    """

    def __init__(self, locks: Path) -> None:
        self._locks = locks
        self._heard: dict[str, tuple[bytes, float, float]] = {}

    def is_silent(self, worker: str) -> bool:
        """Return whether a worker's note has not changed for `SILENT_S`. Call now and then. Raises OSError."""
        note, now_s = _note(self._locks, worker), time.monotonic()
        before, looked_s, silent_s = self._heard.get(worker, (b"", now_s, 0.0))
        # Workers of older versions leave no note: nothing is known of them.
        silent_s = silent_s + min(now_s - looked_s, SILENT_S / 2) if note and note == before else 0.0
        self._heard[worker] = note, now_s, silent_s
        return silent_s >= SILENT_S


def _note(locks: Path, worker: str) -> bytes:
    try:
        handle = os.open(
            file_locks.worker_lock_path(locks, worker),
            os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
        )
    except FileNotFoundError:
        return b""
    try:
        return os.read(handle, SIZE)
    finally:
        os.close(handle)


def _place() -> str:
    """Return the boot and the container, which have their own times and pids."""
    spaces: list[str] = []
    for kind in ("pid", "time"):
        with contextlib.suppress(OSError):
            spaces.append(str(Path(f"/proc/self/ns/{kind}").readlink()))
    return " ".join([process_tree.boot_id(), *spaces])


def _words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
