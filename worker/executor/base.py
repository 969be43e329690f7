"""Where does a segment run? The one interface between the worker and whatever executes segments.

This machine today (`local.py`). A cluster engine can stand behind it later without touching queue or lifecycle.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from backprop.scheduler.records import RunRecord
from backprop.worker.executor.segment_files import ExitRecord


@dataclass(frozen=True, kw_only=True)
class SegmentOrder:
    """What one segment is to execute. `environment`: added to the run's own. `promised_mib`:
    VRAM reserved on each of its GPUs. `lock`: descriptor of the run lock,
    taken; the place hands it on and closes it."""

    run: RunRecord
    number: int
    argv: tuple[str, ...]
    environment: dict[str, str]
    timebox_s: float
    promised_mib: int
    lock: int


class Life(StrEnum):
    ALIVE = "alive"
    UNSUPERVISED = "unsupervised"
    """Its processes live, its supervisor does not."""
    ENDED = "ended"
    """Its end is on record."""
    LOST = "lost"
    """Nothing of it lives, and no end is on record."""


class Executor(Protocol):
    def prepare(self) -> None:
        """Nothing is to be done just now: make the next start a short one."""
        ...

    def close(self) -> None:
        """Let go of what `prepare` keeps."""
        ...

    def start(self, order: SegmentOrder) -> None:
        """Start a segment that has been claimed. Raises OSError when it cannot be started now."""
        ...

    def poll(self, run_id: str, number: int) -> tuple[Life, ExitRecord | None]:
        """How a segment is; the Exit comes with ENDED only."""
        ...

    def is_recording(self, run_id: str, number: int) -> bool:
        """Whether the process that the user's command became has ended, and its supervisor is at work on that."""
        ...

    def ask(self, run_id: str, number: int) -> None:
        """Let it checkpoint and end."""
        ...

    def kill(self, run_id: str, number: int) -> None:
        """End it now."""
        ...

    def pause(self, run_id: str, number: int) -> None: ...

    def unpause(self, run_id: str, number: int) -> None: ...

    def rouse(self, run_id: str, number: int) -> None:
        """Let a supervisor that was stopped run on."""
        ...

    def replace(self, run_id: str, number: int) -> None:
        """End a supervisor that does nothing any more; its segment lives on for the next one."""
        ...

    def supervise(self, run_id: str, number: int) -> None:
        """Put a new supervisor beside a segment that has lost its own."""
        ...

    def folder(self, run_id: str, number: int) -> Path:
        """Where the segment's log and events are."""
        ...

    def pids(self, run_id: str, number: int) -> frozenset[int]:
        """The processes of a segment now, as far as they are known."""
        ...

    def watch(self, run_id: str, number: int) -> None:
        """Be woken by the end of a segment that another worker started."""
        ...

    def reap(self) -> None:
        """Forget what has ended, so that its descriptor no longer wakes anybody. Call once a tick."""
        ...

    def wake_fds(self) -> list[int]:
        """Descriptors that become readable when a segment may have ended."""
        ...
