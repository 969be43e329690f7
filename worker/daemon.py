"""Is one worker from its first line to its last: identity, locks, loop, last line."""

import contextlib
import os
from collections.abc import Callable

from backprop.scheduler.config.settings import Settings
from backprop.scheduler.errors import HomeRefused
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.wake_pipes import WakePipe
from backprop.scheduler.store import parallel
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.writes import claims
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor import locks
from backprop.worker.executor.heartbeat import Heartbeat
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.loop import Loop, counts_line
from backprop.worker.signals import StopSignals
from backprop.worker.supervisor import failpoint
from backprop.worker.wakeup import FOLLOWER, wake_path


def work(
    home: Home,
    database: Database,
    settings: Settings,
    *,
    drain: bool = False,
    only: frozenset[str] | None = None,
    until: Callable[[], bool] | None = None,
    quiet: bool = False,
    verbose: bool = False,
    greeting: str = "",
) -> bool:
    """Be a worker until told to stop, or done (`drain`, `until`). Return whether a signal ended it.

    `only`: the ids of the runs it may touch; None for all. `until`: called after each tick; True ends the worker.
    `quiet`: print nothing. `verbose`: print checkpoints too. Raises DatabaseRefused, HomeRefused.
    """
    worker = (FOLLOWER if only else "") + os.urandom(4).hex()
    console = Console(quiet=quiet, verbose=verbose)
    context = Context(home, database, LocalExecutor(home), worker, settings, Clock(), console, only)
    # The lock before the row: a row whose lock is free is a dead worker's.
    try:
        lock = locks.hold_worker_lock(home.locks, worker)
        heartbeat = Heartbeat(home.locks, worker)
        wake = WakePipe(wake_path(home.locks, worker))
    except OSError as error:
        raise HomeRefused(f"{home.locks} cannot be used: {error.strerror}; is its disk full?") from error
    try:
        with contextlib.redirect_stderr(console.complaints()):
            context.register()
            context.take_parallel()
            if greeting:
                console.line(greeting)
            most = parallel.words(context.settings.max_parallel)
            console.event("ready", more=f"worker {worker}, pid {os.getpid()}, {most}")
            with StopSignals() as stop:
                Loop(context, wake, heartbeat, until).run(stop, drain)
            console.event("bye", more=counts_line(context))
            return stop.hung_up or stop.asked > 0
    finally:
        failpoint.at("stopping work")
        with contextlib.suppress(Exception):
            claims.worker_stopped(database, worker, context.clock.wall_s())
        wake.close()
        heartbeat.close()
        lock.release()
        with contextlib.suppress(OSError):
            locks.worker_lock_path(home.locks, worker).unlink()
        console.close()
