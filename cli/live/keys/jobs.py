"""Does one job after another in a thread of its own, so that a screen waits for none of them."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Jobs:
    """A thread and what it has to do. A job that hangs keeps no process alive."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Have a job done after those before it. The future takes what it returns or raises."""
        future: Future[T] = Future()
        self._queue.put((future, job))
        return future

    def close(self, patience_s: float) -> None:
        """Wait so long for all jobs to be done, and take no more."""
        self._queue.put(None)
        self._thread.join(patience_s)

    def _serve(self) -> None:
        while (given := self._queue.get()) is not None:
            future, job = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)


async def answer_of(asked: Future[T]) -> T:
    """Return what a job has returned, or raise what it has raised. Whoever stops waiting for it does not cancel it."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the screen is closed by now
            loop.call_soon_threadsafe(done.set)

    asked.add_done_callback(tell)
    await done.wait()
    return asked.result()
