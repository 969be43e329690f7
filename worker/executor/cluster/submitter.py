"""Talks to a cluster's engine in one thread: submissions and cancellations in, answers and snapshots out.

Its commands may take a minute to fail, and a tick waits for none of them. What an answer means is told at once by a
readable descriptor. The number of a job is noted in its segment's folder before anybody hears of it: whoever takes over
finds it there.
"""

import contextlib
import os
import queue
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from backprop.worker.executor.cluster import segment_state
from backprop.worker.executor.cluster.engine import ClusterJob, Engine, Full, JobSnapshot, Refused, Unsure
from backprop.worker.executor.cluster.segment_state import JobFile
from backprop.worker.supervisor import failpoint

HURRY_S = 2.0
"""The least time between two snapshots, however urgently one is wanted."""


class HandOverKind(StrEnum):
    IN = "in"
    REFUSED = "refused"
    FULL = "full"
    UNSURE = "unsure"


@dataclass(frozen=True)
class HandOverAnswer:
    """What became of a hand-over. `text`: the engine's number of the job, or its words. `at_s`: monotonic, when it was
    known: snapshots begun later know of the job, if it is in."""

    token: str
    kind: HandOverKind
    text: str
    at_s: float


class Submitter:
    """`engine_name`: for `job.json`. `poll_s`: between two snapshots while any are wanted."""

    def __init__(self, engine: Engine, engine_name: str, poll_s: float) -> None:
        self._engine = engine
        self._engine_name = engine_name
        self._poll_s = poll_s
        self._orders: queue.SimpleQueue[ClusterJob | tuple[str, ...] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[HandOverAnswer] = queue.SimpleQueue()
        self._wakes = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wanted = False
        self._due_s = 0.0
        self._asked_s = 0.0
        self.snapshot: JobSnapshot | None = None
        self.answered_s: float | None = None
        """Monotonic; when the engine last gave a snapshot."""
        self.asked = 0
        """How many snapshots were asked for."""
        self.silent_since_s: float | None = None
        """Monotonic; since when it has given none, though it was asked."""
        self._thread: threading.Thread | None = None

    def submit(self, job: ClusterJob) -> None:
        """Have a job handed over; `answers` tells what became of it."""
        self._begin()
        self._orders.put(job)

    def cancel(self, jobs: Sequence[str]) -> None:
        """Ask for the end of these jobs."""
        if jobs:
            self._begin()
            self._orders.put(tuple(jobs))

    def want_snapshots(self, wanted: bool) -> None:
        """Say whether any job is live: without one nobody is asked anything."""
        if wanted and not self._wanted:
            self._due_s = 0.0
            self._begin()
            self._orders.put(())
        self._wanted = wanted

    def hurry(self) -> None:
        """Have the next snapshot taken soon."""
        soon_s = self._asked_s + HURRY_S
        if self._due_s > soon_s:
            self._due_s = soon_s
            self._orders.put(())

    def answers(self) -> list[HandOverAnswer]:
        """Return what has become of hand-overs since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakes)
        found: list[HandOverAnswer] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._answers.get_nowait())
        return found

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when there is an answer or a snapshot."""
        return self._wakes

    def close(self) -> None:
        """Give up the thread. A hand-over that is under way goes on without it."""
        self._orders.put(None)

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="submitter", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                order = self._orders.get(timeout=self._patience_s())
            except queue.Empty:
                order = ()
            if order is None:
                return
            try:
                if isinstance(order, ClusterJob):
                    self._hand_over(order)
                elif order:
                    self._engine.cancel(order)
                if self._wanted and time.monotonic() >= self._due_s and self._orders.empty():
                    self._look()
            except Exception:
                # A bug here must not end all hand-overs; the engine counts as silent meanwhile.
                traceback.print_exc()

    def _patience_s(self) -> float | None:
        return max(self._due_s - time.monotonic(), 0.05) if self._wanted else None

    def _hand_over(self, job: ClusterJob) -> None:
        failpoint.at("submitting")
        try:
            kind, text = HandOverKind.IN, self._engine.submit(job)
            failpoint.at("submitted")
            words = self._engine.words(job)
            note = JobFile(engine=self._engine_name, job=text, words=words, submitted_at_s=time.time())
            with contextlib.suppress(OSError):
                segment_state.write_job(Path(job.folder), note)
            failpoint.at("noted")
        except Refused as error:
            kind, text = HandOverKind.REFUSED, str(error)
        except Full as error:
            kind, text = HandOverKind.FULL, str(error)
        except (Unsure, OSError) as error:
            kind, text = HandOverKind.UNSURE, str(error)
        self._answers.put(HandOverAnswer(job.token, kind, text, time.monotonic()))
        os.eventfd_write(self._wakes, 1)

    def _look(self) -> None:
        self._asked_s = begun_s = time.monotonic()
        self._due_s = begun_s + self._poll_s
        self.asked += 1
        taken = self._engine.snapshot()
        if taken is None:
            self.silent_since_s = self.silent_since_s or begun_s
        else:
            self.snapshot, self.answered_s, self.silent_since_s = taken, time.monotonic(), None
            os.eventfd_write(self._wakes, 1)
