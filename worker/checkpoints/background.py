"""Does file work that is too long for a tick: in each place one job after another, which touches nothing but files.

A checkpoint of many GB takes seconds to copy, and meanwhile the ticks keep watch over heat and RAM. The database
belongs to the thread of the ticks alone. A place that hangs keeps its own thread and its own jobs, and no others.
"""

import contextlib
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

MOST_THREADS: Final = 16

JobStopped = Callable[[], bool]


class BackgroundJob(msgspec.Struct, frozen=True):
    """`work` is given a function that returns whether to give up. `done` is called with its result, or with what it
    raised, by `BackgroundJobs.report`: in the thread of the ticks. `key`: a later job of the same key replaces one
    that has not begun. `place`: of the files; the jobs of one place take turns."""

    key: tuple[str, str]
    work: Callable[[JobStopped], object]
    done: Callable[[object], None]
    place: str = ""


class BackgroundJobs:
    """The jobs of one worker, and the threads that do them."""

    def __init__(self) -> None:
        self._waiting: deque[BackgroundJob] = deque()
        self._finished: deque[tuple[BackgroundJob, object]] = deque()
        self._busy: dict[str, BackgroundJob] = {}
        self._changed = threading.Condition()
        self._threads = 0
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
        """Wait up to `patience_s` for the jobs to finish; then those under way are to give up."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._busy, patience_s)
            self._waiting.clear()
            self._closed = True
            self._changed.notify_all()

    def _have_thread(self) -> None:
        """If a thread cannot be started just now, `report` tries again."""
        with self._changed:
            one_is_free = self._threads > len(self._busy)
            if self._next() is None or one_is_free or self._threads >= MOST_THREADS:
                return
            # A daemon: a disk that hangs must not keep a worker from ending.
            thread = threading.Thread(target=self._work, name="background", daemon=True)
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._threads += 1

    def _next(self) -> BackgroundJob | None:
        """Return the first job whose place is free."""
        return next((job for job in self._waiting if job.place not in self._busy), None)

    def _work(self) -> None:
        # Signals are for the thread of the ticks.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                job = self._changed.wait_for(lambda: self._closed or self._next())
                if not isinstance(job, BackgroundJob):
                    return
                self._waiting.remove(job)
                self._busy[job.place] = job
            try:
                result: object = job.work(lambda: self._closed)
            except Exception as error:
                result = error if isinstance(error, OSError) else RuntimeError(traceback.format_exc(limit=-3))
            with self._changed:
                self._finished.append((job, result))
                del self._busy[job.place]
                self._changed.notify_all()
