"""Brings one process's VRAM out to its RAM, or back in, from wherever an earlier try has left it.

    out   running: lock, checkpoint     locked: checkpoint            checkpointed: done
    in    checkpointed: restore, unlock   locked: unlock              running: done

After an error of the way out, a process that is locked is unlocked, so that it goes on. A restore that failed is tried
once more, where the driver still has the process as checkpointed; not one that met a full GPU: on an H100 every later
one failed too, whatever room there was by then.
Standard library only, imports nothing of Backprop.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import failpoint
from libcuda import CHECKPOINTED, FAILED, LOCKED, RUNNING, CudaError

OUT_OF_MEMORY = 2
RESTORE_AGAIN_S = 2.0
GONE_S = 0.2
"""A process that a call has ended takes a moment to be gone."""
NAMES = {RUNNING: "running", LOCKED: "locked", CHECKPOINTED: "checkpointed", FAILED: "failed"}
UNKNOWN, GONE = "unknown", "gone"
"""Where a process stands of which the driver does not say, and of one that is no more."""


class Calls(Protocol):
    """What is asked of the driver, see `libcuda.Driver`."""

    def state(self, pid: int) -> int: ...
    def lock(self, pid: int, patience_ms: int) -> None: ...
    def checkpoint(self, pid: int) -> None: ...
    def restore(self, pid: int) -> None: ...
    def unlock(self, pid: int) -> None: ...


class Outcome(NamedTuple):
    """`reached`: where the process stands now, in words. `error`: of the call that failed, None for none."""

    reached: str
    error: CudaError | None = None


class Mover:
    """The moves of one process. `lives`: returns whether it still does."""

    def __init__(self, driver: Calls, pid: int, lock_ms: int, lives: Callable[[], bool]) -> None:
        self._driver = driver
        self._pid = pid
        self._lock_ms = lock_ms
        self._lives = lives

    def out(self, is_late: Callable[[], bool]) -> Outcome:
        """Move the VRAM out. `is_late`: nobody waits for it any more: it comes back at once then."""
        try:
            state = self._driver.state(self._pid)
            if state == RUNNING:
                failpoint.at("vram locking")
                self._driver.lock(self._pid, self._lock_ms)
                failpoint.at("vram locked")
            if state in (RUNNING, LOCKED):
                self._driver.checkpoint(self._pid)
                failpoint.at("vram checkpointed")
        except CudaError as error:
            return self._back_to_running(error)
        return self.into() if is_late() else self._outcome()

    def into(self) -> Outcome:
        """Move the VRAM back in, and let the process go on."""
        failed = self._try_in()
        if failed is None or failed.code == OUT_OF_MEMORY or self._reached() != NAMES[CHECKPOINTED]:
            return self._outcome(failed)
        time.sleep(RESTORE_AGAIN_S)
        return self._outcome(self._try_in())

    def _try_in(self) -> CudaError | None:
        """Return what failed, None where nothing did."""
        try:
            if self._driver.state(self._pid) == CHECKPOINTED:
                failpoint.at("vram restoring")
                self._driver.restore(self._pid)
                failpoint.at("vram restored")
            if self._driver.state(self._pid) == LOCKED:
                self._driver.unlock(self._pid)
        except CudaError as error:
            return error
        return None

    def _back_to_running(self, error: CudaError) -> Outcome:
        """Let a process go on that was locked and could not be moved."""
        time.sleep(GONE_S)
        if self._reached() == NAMES[LOCKED]:
            try:
                self._driver.unlock(self._pid)
            except CudaError:
                return self._outcome(error)
        return self._outcome(error)

    def _outcome(self, error: CudaError | None = None) -> Outcome:
        return Outcome(self._reached(), error)

    def _reached(self) -> str:
        if not self._lives():
            return GONE
        try:
            return NAMES.get(self._driver.state(self._pid), UNKNOWN)
        except CudaError:
            return UNKNOWN if self._lives() else GONE
