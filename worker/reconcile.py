"""What did the last crash leave? Live runs of dead workers are taken over; dead workers are struck off.

Nothing is decided from a pid or a time stamp: a worker is dead when its lock is free, and what its runs have
become, `tend` reads from their locks and files.
"""

import contextlib

from backprop.scheduler import queue, reads
from backprop.worker import locks
from backprop.worker.context import Context
from backprop.worker.wake import wake_path


def reconcile(context: Context) -> int:
    """Take over what dead workers own; how many runs. Raises DatabaseBusy."""
    folder = context.home.locks
    dead: dict[str, bool] = {}
    taken = 0
    for run in reads.live_runs(context.database):
        owner = run.worker
        if owner is None or owner == context.worker or not context.mine(run):
            continue
        if owner not in dead:
            dead[owner] = not locks.worker_alive(folder, owner)
        if dead[owner] and queue.change_owner(context.database, run, context.worker):
            taken += 1
            context.place.watch(run.id, run.segment)
            context.talk.say("adopted", run, f"segment {run.segment}, from worker {owner} that is gone")
    _strike_off(context)
    return taken


def _strike_off(context: Context) -> None:
    """Mark dead workers as stopped and remove their lock and FIFO: their ids are never used again."""
    for worker in reads.workers(context.database):
        if worker.id == context.worker or locks.worker_alive(context.home.locks, worker.id):
            continue
        queue.worker_stopped(context.database, worker.id, context.clock.wall_s())
        for path in (
            locks.worker_lock_path(context.home.locks, worker.id),
            wake_path(context.home.locks, worker.id),
        ):
            with contextlib.suppress(OSError):
                path.unlink()
