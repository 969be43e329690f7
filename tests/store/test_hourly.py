"""The line of each hour in the worker's pane: what runs and waits, what is done, what the GPUs have left."""

from io import StringIO

from backprop.scheduler.config.settings import DEFAULTS
from backprop.scheduler.lifecycle import State
from backprop.scheduler.store.connection import Database
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.reactions.hourly import EVERY_S, Hourly
from tests.support.governor_cases import GIB, gpu, machine
from tests.support.store_rows import add_run


class Watch(Clock):
    passed_s = 0.0

    def wall_s(self) -> float:
        return self.passed_s

    def monotonic_s(self) -> float:
        return self.passed_s


class Lines(Console):
    """A console that keeps what it would print."""

    def __init__(self) -> None:
        super().__init__(StringIO())
        self.told: list[str] = []

    def event(self, what: str, run: object = None, more: str = "") -> None:
        self.told.append(f"{what}: {more}")


def test_one_line_an_hour_while_anything_runs_or_waits(database: Database) -> None:
    watch, console = Watch(), Lines()
    context = Context(database.home, database, LocalExecutor(database.home), "w1", DEFAULTS, watch, console)
    hourly = Hourly(context, lambda: machine(gpu(free=10 * GIB)))
    hourly.begin()
    assert console.told == ["queue: nothing is queued"]
    watch.passed_s = EVERY_S
    hourly.tell_if_due(is_closed=False)
    assert len(console.told) == 1, "an hour in which nothing is to be done"
    add_run(database, "a", State.COMPLETED)
    add_run(database, "b", State.RUNNING, name="lr=0.1")
    add_run(database, "c")
    add_run(database, "d", State.HELD)
    watch.passed_s = 2 * EVERY_S - 1
    hourly.tell_if_due(is_closed=False)
    assert len(console.told) == 1
    watch.passed_s = 2 * EVERY_S
    hourly.tell_if_due(is_closed=False)
    hourly.tell_if_due(is_closed=False)
    (_, told) = console.told
    assert told.startswith("hourly: 1 running: lr=0.1; 1 queued, 1 held; 1 completed since ")
    assert told.endswith("; GPU 0 10 GiB free, 50 °C")
