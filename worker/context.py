"""Holds what the parts of a worker share: the home, the database, the executor, the clock and the console."""

from dataclasses import dataclass, field

from backprop.scheduler.config.settings import Settings
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.clock import Clock
from backprop.worker.console import Console
from backprop.worker.executor.base import Executor
from backprop.worker.user_files import UserFiles


@dataclass(frozen=True)
class Context:
    """One per worker. `worker`: its id. `settings`: its own limits. `only`: the ids of the runs it may touch; None for
    every run. `files`: looks at the user's files."""

    home: Home
    database: Database
    executor: Executor
    worker: str
    settings: Settings
    clock: Clock
    console: Console
    only: frozenset[str] | None = None
    files: UserFiles = field(default_factory=UserFiles)

    def may_touch(self, run: RunRecord) -> bool:
        """Return whether this worker may start, take over or end `run`."""
        return self.only is None or run.id in self.only
