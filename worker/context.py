"""Holds what the parts of a worker share: the home, the database, the executor, the clock and the console."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backprop.scheduler.config.settings import Settings
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store import parallel
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.writes import claims
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.executor.base import Executor
from backprop.worker.executor.clusters import Clusters
from backprop.worker.user_files import UserFiles


@dataclass
class Context:
    """One per worker. `worker`: its id. `settings`: its own limits, with `max_parallel` as the home has it now, see
    `take_parallel`; `own_parallel` is what it was started with. `only`: the ids of the runs it may touch; None for
    every run. `files`: looks at the user's files. `executor`: this machine;
    `clusters`: the others."""

    home: Home
    database: Database
    executor: Executor
    worker: str
    settings: Settings
    clock: Clock
    console: Console
    only: frozenset[str] | None = None
    files: UserFiles = field(default_factory=UserFiles)
    own_parallel: int = field(init=False)
    clusters: Clusters = field(init=False)

    def __post_init__(self) -> None:
        self.own_parallel = self.settings.max_parallel
        self.clusters = Clusters(self.home, self.files, self.settings.clusters)

    def register(self) -> None:
        """Record this worker in the database. Raises DatabaseBusy."""
        hours, now_s = self.settings.active_hours or (), self.clock.wall_s()
        claims.worker_started(self.database, self.worker, os.getpid(), self.own_parallel, now_s, hours)

    def take_parallel(self) -> bool:
        """Take how many runs may run at once from the home; return whether that is another number. Raises
        DatabaseBusy."""
        known = parallel.chosen(self.database)
        most = self.own_parallel if known is None else known[0]
        if most == self.settings.max_parallel:
            return False
        self.settings = msgspec.structs.replace(self.settings, max_parallel=most)
        return True

    def folder(self, run: RunRecord, number: int) -> Path:
        """Return the folder of a segment as its leader sees it."""
        if run.cluster is None:
            return self.executor.folder(run.id, number)
        return self.clusters.of(run.cluster, run.spec.share).folder(run, number)

    def may_touch(self, run: RunRecord) -> bool:
        """Return whether this worker may start, take over or end `run`."""
        return self.only is None or run.id in self.only
