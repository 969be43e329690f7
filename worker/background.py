"""File work that is too long for a tick: one thread does it, one errand after another, and touches nothing but files.

A checkpoint of many GB takes seconds to copy, and the ticks meanwhile keep watch over heat and RAM. The database
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
    """`work` is given a function that says when to give up. `done` is called with its result, or with what it raised,
    by `BackgroundJobs.report`: in the thread of the ticks. `key`: a later job of the same key replaces one that
    has not begun."""

    key: tuple[str, str]
    work: Callable[[JobStopped], object]
    done: Callable[[object], None]


class BackgroundJobs:
    def __init__(self) -> None:
        self._waiting: deque[BackgroundJob] = deque()
        self._finished: deque[tuple[BackgroundJob, object]] = deque()
        self._busy: BackgroundJob | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def send(self, errand: BackgroundJob) -> None:
        with self._changed:
            for older in [one for one in self._waiting if one.key == errand.key]:
                self._waiting.remove(older)
            self._waiting.append(errand)
            self._changed.notify_all()
        self._have_thread()

    def report(self) -> None:
        """Tell of what has been done since the last time."""
        if self._waiting:
            self._have_thread()
        while self._finished:
            errand, result = self._finished.popleft()
            errand.done(result)

    def close(self, patience_s: float) -> None:
        """Let what is under way finish, for so long; then it is to give up."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and self._busy is None, patience_s)
            self._waiting.clear()
            self._closed = True
            self._changed.notify_all()

    def _have_thread(self) -> None:
        """Where no thread is to be had just now, the next look tries again."""
        if self._thread is not None:
            return
        # A daemon: a disk that hangs must not keep a worker from ending.
        thread = threading.Thread(target=self._work, name="errands", daemon=True)
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
                self._busy = errand = self._waiting.popleft()
            try:
                result: object = errand.work(lambda: self._closed)
            except Exception as error:
                result = error if isinstance(error, OSError) else RuntimeError(traceback.format_exc(limit=-3))
            self._finished.append((errand, result))
