"""What the parts of a worker share: the home, the database, the executor, the clock and the console."""

from dataclasses import dataclass

from backprop.scheduler.config.settings import Settings
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.worker.clock import Clock
from backprop.worker.console import Console
from backprop.worker.executor.base import Executor


@dataclass
class Context:
    """`only`: the ids this worker may touch; None for every run. `settings`: the worker's own limits."""

    home: Home
    database: Database
    executor: Executor
    worker: str
    settings: Settings
    clock: Clock
    console: Console
    only: frozenset[str] | None = None

    def mine(self, run: RunRecord) -> bool:
        return self.only is None or run.id in self.only
