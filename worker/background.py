"""Does file work that is too long for a tick: one thread, one job after another, which touches nothing but files.

A checkpoint of many GB takes seconds to copy, and meanwhile the ticks keep watch over heat and RAM. The database
belongs to the thread of the ticks alone.
"""

import contextlib
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

JobStopped = Callable[[], bool]


@dataclass(frozen=True)
class BackgroundJob:
    """`work` is given a function that returns whether to give up. `done` is called with its result, or with what it
    raised, by `BackgroundJobs.report`: in the thread of the ticks. `key`: a later job of the same key replaces one
    that has not begun."""

    key: tuple[str, str]
    work: Callable[[JobStopped], object]
    done: Callable[[object], None]


class BackgroundJobs:
    """The jobs of one worker, and the thread that does them."""

    def __init__(self) -> None:
        self._waiting: deque[BackgroundJob] = deque()
        self._finished: deque[tuple[BackgroundJob, object]] = deque()
        self._busy: BackgroundJob | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def send(self, job: BackgroundJob) -> None:
        """Have a job done."""
        with self._changed:
            for older in [waiting for waiting in self._waiting if waiting.key == job.key]:
                self._waiting.remove(older)
            self._waiting.append(job)
            self._changed.notify_all()
        self._have_thread()

    def report(self) -> None:
        """Call `done` of the jobs that have finished since the last call."""
        if self._waiting:
            self._have_thread()
        while self._finished:
            job, result = self._finished.popleft()
            job.done(result)

    def close(self, patience_s: float) -> None:
        """Wait up to `patience_s` for the jobs to finish; then the one under way is to give up."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and self._busy is None, patience_s)
            self._waiting.clear()
            self._closed = True
            self._changed.notify_all()

    def _have_thread(self) -> None:
        """If the thread cannot be started just now, `report` tries again."""
        if self._thread is not None:
            return
        # A daemon: a disk that hangs must not keep a worker from ending.
        thread = threading.Thread(target=self._work, name="background", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        # Signals are for the thread of the ticks.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                self._busy = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._busy = job = self._waiting.popleft()
            try:
                result: object = job.work(lambda: self._closed)
            except Exception as error:
                result = error if isinstance(error, OSError) else RuntimeError(traceback.format_exc(limit=-3))
            self._finished.append((job, result))
