"""Takes over live runs of dead workers and ended ones of workers that do not tick, and strikes dead workers off.

Nothing is decided from a pid or a time stamp: a worker is dead when its lock is free. The state of its runs is then
polled like that of any other, from their locks and files.

A worker that lives but does not tick (stopped by Ctrl-Z, say) keeps its live segments: it may be in the middle of
anything when it goes on. What has ended is settled by the first who finds it, and once: whoever comes second finds
that the run has moved on, and drops it.
"""

import contextlib
from pathlib import Path
from typing import Final

from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.context import Context
from backprop.worker.executor import locks
from backprop.worker.executor.base import Life
from backprop.worker.executor.heartbeat import Listener
from backprop.worker.wakeup import wake_path

YOUNG_S: Final = 60.0


def reconcile(context: Context, others: Listener) -> int:
    """Take over what dead workers own, and what has ended of silent ones; return how many runs were taken over.

    Raises DatabaseBusy.
    """
    folder = context.home.locks
    dead: dict[str, bool] = {}
    silent: dict[str, bool] = {}
    taken = 0
    for run in queries.live_runs(context.database):
        owner = run.worker
        if owner is None or owner == context.worker or not context.may_touch(run):
            continue
        if owner not in dead:
            dead[owner] = not locks.worker_alive(folder, owner)
            silent[owner] = not dead[owner] and others.is_silent(owner)
        if dead[owner]:
            why = "that is gone"
        elif silent[owner] and _has_ended(context, run):
            why = "that does not tick; it has ended"
        else:
            continue
        if claims.change_owner(context.database, run, context.worker):
            taken += 1
            if run.cluster is None:
                context.executor.watch(run.id, run.segment)
            context.console.event("adopted", run, f"segment {run.segment}, from worker {owner} {why}")
    strike_off(context.home, context.database, context.clock.wall_s(), context.worker)
    return taken


def _has_ended(context: Context, run: RunRecord) -> bool:
    """Return whether a segment of this machine has ended for certain, though its worker may still believe that it is
    about to start it.

    One without an end on record counts only if it is known to have begun: its worker starts nothing of it any more.
    """
    if run.cluster is not None:
        return False
    with contextlib.suppress(OSError):
        life, _ = context.executor.poll(run.id, run.segment)
        return life is Life.ENDED or (life is Life.LOST and context.executor.has_begun(run.id, run.segment))
    return False


def strike_off(home: Home, database: Database, now_s: float, but: str | None = None) -> list[str]:
    """Mark dead workers as stopped and remove their locks and FIFOs; return their ids, which are never used again.

    `but`: the id of the worker that calls. Raises DatabaseBusy.
    """
    dead = [
        worker.id
        for worker in queries.workers(database)
        if worker.id != but and not locks.worker_alive(home.locks, worker.id)
    ]
    for worker in dead:
        claims.worker_stopped(database, worker, now_s)
        for path in (locks.worker_lock_path(home.locks, worker), wake_path(home.locks, worker)):
            with contextlib.suppress(OSError):
                path.unlink()
    return dead


def leftovers(home: Home, now_s: float) -> list[Path]:
    """Return lock files and FIFOs of dead workers. Young files do not count: a worker creates its lock file before it
    locks it. Raises OSError."""
    paths: list[Path] = []
    for path in sorted(home.locks.glob("worker-*")):
        worker = path.stem.removeprefix("worker-")
        old = now_s - path.lstat().st_mtime > YOUNG_S
        if path.suffix in (".lock", ".wake") and old and not locks.worker_alive(home.locks, worker):
            paths.append(path)
    return paths
