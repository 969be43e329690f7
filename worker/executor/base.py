"""Defines the one interface between the worker and whatever executes segments.

There are two kinds. This machine (`local.py`) implements all of `Executor`: its processes can be seen and signalled. A
cluster (`cluster/`) starts segments too, and tells what became of them by files and by the engine's word.
"""

from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from backprop.scheduler.governor.box_end import BoxRule
from backprop.scheduler.records import RunRecord
from backprop.worker.executor.board import Board
from backprop.worker.executor.segment_files import BeforeFile, ExitRecord


class SegmentOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What one segment is to execute. `environment`: added to the run's own. `promised_mib`: VRAM reserved on each of
    its GPUs. `lock`: descriptor of the run's lock, taken; `promise`: that of its GPUs' promise, None where none is
    posted. `at_timebox`: what the end of a box is for it. `before`: what lies where it may save, if that was
    looked for. `token`: of a job that it becomes. The executor hands both descriptors on, or closes them."""

    run: RunRecord
    number: int
    argv: tuple[str, ...]
    environment: dict[str, str]
    timebox_s: float
    promised_mib: int
    lock: int
    promise: int | None = None
    token: str | None = None
    at_timebox: BoxRule = BoxRule.END
    before: BeforeFile | None = None


class Life(StrEnum):
    WAITING = "waiting"
    """It is a job that has not begun."""
    ALIVE = "alive"
    UNSUPERVISED = "unsupervised"
    """Its processes live, its supervisor does not."""
    ENDED = "ended"
    """Its end is on record."""
    LOST = "lost"
    """Nothing of it lives, and no end is on record."""


class NoSupervisor(OSError):
    """This machine can start no supervisor now, whatever the segment."""


class EndUnreadable(OSError):
    """Nothing of a segment is found alive, and whether its end is on record cannot be read now."""


class Starts(Protocol):
    """What every executor does."""

    def start(self, order: SegmentOrder) -> None:
        """Start a segment that has been claimed. Raises OSError when it cannot be started now, NoSupervisor when that
        is the machine's fault."""
        ...

    def wake_fds(self) -> list[int]:
        """Return descriptors that become readable when a segment may have ended."""
        ...

    def close(self) -> None:
        """Release what it keeps, and leave live segments alone."""
        ...


class Executor(Starts, Protocol):
    """What this machine does: it starts, polls and signals segments, each named by its run's id and its number.
    `board`: where the promises of its GPUs are."""

    board: Board

    def prepare(self) -> None:
        """Make the next start a short one. Called at the end of a tick."""
        ...

    def make_ready(self, fresh: bool) -> bool:
        """Have a supervisor ready for the next segment; False while it is still starting. `fresh`: start one though
        another is ready, to see whether that can be done. Raises NoSupervisor."""
        ...

    def is_ready(self) -> bool:
        """Return whether a supervisor is ready for the next segment."""
        ...

    def is_replaced(self) -> bool:
        """Return whether the files of this program are others than those that the worker started with."""
        ...

    def poll(self, run_id: str, number: int) -> tuple[Life, ExitRecord | None]:
        """Return the segment's state; an ExitRecord comes with ENDED only. Raises OSError; EndUnreadable once nothing
        of the segment is found alive."""
        ...

    def has_begun(self, run_id: str, number: int) -> bool:
        """Return whether the segment's leader is known to have been started. Raises OSError."""
        ...

    def is_recording(self, run_id: str, number: int) -> bool:
        """Return whether the leader has ended and a running supervisor is about to record that."""
        ...

    def ask(self, run_id: str, number: int) -> None:
        """Ask the segment to checkpoint and end."""
        ...

    def kill(self, run_id: str, number: int) -> None:
        """End the segment now."""
        ...

    def pause(self, run_id: str, number: int) -> None:
        """Freeze the segment's processes."""
        ...

    def unpause(self, run_id: str, number: int) -> None:
        """Let a paused segment go on."""
        ...

    def rouse(self, run_id: str, number: int) -> None:
        """Continue a supervisor that was stopped by a signal."""
        ...

    def replace(self, run_id: str, number: int) -> None:
        """End an unresponsive supervisor; its segment lives on for the next one."""
        ...

    def supervise(self, run_id: str, number: int) -> None:
        """Start a new supervisor for a segment that has lost its own."""
        ...

    def folder(self, run_id: str, number: int) -> Path:
        """Return the folder that holds the segment's log and events."""
        ...

    def pids(self, run_id: str, number: int) -> frozenset[int]:
        """Return the segment's processes as far as they are known; empty when none is. Raises nothing."""
        ...

    def watch(self, run_id: str, number: int) -> None:
        """Add the end of a segment that another worker started to `wake_fds`."""
        ...

    def reap(self) -> None:
        """Forget what has ended, so that its descriptor no longer wakes the worker. Call once per tick."""
        ...
