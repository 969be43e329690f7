"""Watching a run to its end: its output live, its chain of segments, its outcome as the exit code.

If no worker is alive we are one, for this run alone.
"""

import sys
import threading
import time
from typing import Final

import click

from backprop.cli.exit_codes import INTERRUPTED, OF_STATE
from backprop.cli.render.log_stream import LogStream
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.config.settings import Settings
from backprop.scheduler.errors import UnknownRun
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.wakeup import wake_workers

POLL_S: Final = 0.3


def follow_run(home: Home, database: Database, run_id: str, before: int, settings: Settings) -> int:
    """Show the run's output until it has ended; the exit code of its outcome. `before`: how many segments it had
    when it was queued. A worker may have begun the next one by now."""
    stream = LogStream(home, run_id, before + 1, sys.stdout.buffer, raw=False)
    reasons = _Reasons(run_now(database, run_id).reason)
    if wake_workers(home.locks):
        interrupted = _watch(database, run_id, stream, reasons)
        told = f"{run_id} goes on; watch it with: backprop logs -f {run_id}"
    else:
        interrupted = _work(home, database, run_id, settings, stream, reasons)
        told = f"{run_id} stays queued; go on with: backprop worker"
    run = run_now(database, run_id)
    if run.state not in OF_STATE:
        click.echo(told if interrupted else f"{run_id} is {run.state}", err=True)
        return INTERRUPTED
    click.echo(f"{run_id} {run.state}: {safe(run.reason)}", err=True)
    return OF_STATE[run.state]


class _Reasons:
    """Says why the run waits in the queue, each reason once."""

    def __init__(self, known: str) -> None:
        self._said = known

    def tell(self, run: RunRecord) -> RunRecord:
        if run.state is State.QUEUED and run.reason != self._said:
            self._said = run.reason
            click.echo(f"{run.id} {safe(run.reason)}", err=True)
        return run


def _watch(database: Database, run_id: str, stream: LogStream, reasons: _Reasons) -> bool:
    """Beside a worker: print until the run has ended. True if interrupted."""
    try:
        while not has_ended(run := reasons.tell(run_now(database, run_id))):
            stream.pump(run.segment)
            time.sleep(POLL_S)
        stream.finish(run.segment)
    except KeyboardInterrupt:
        return True
    return False


def _work(
    home: Home, database: Database, run_id: str, settings: Settings, stream: LogStream, reasons: _Reasons
) -> bool:
    """Be the worker of this run. The database stays with this thread; the other one only reads the logs."""
    from backprop.worker.daemon import work

    done = threading.Event()

    def pump() -> None:
        while not done.wait(POLL_S):
            stream.pump(None)
        stream.finish(None)

    reader = threading.Thread(target=pump, name="logs", daemon=True)
    reader.start()
    try:
        return work(
            home,
            database,
            settings,
            drain=True,
            only=frozenset({run_id}),
            until=lambda: has_ended(reasons.tell(run_now(database, run_id))),
            quiet=True,
        )
    finally:
        done.set()
        reader.join()


def has_ended(run: RunRecord) -> bool:
    return run.state in FINAL or run.state is State.HELD


def run_now(database: Database, run_id: str) -> RunRecord:
    run = queries.run_by_id(database, run_id)
    if run is None:
        raise UnknownRun(f"run {run_id} has been removed meanwhile")
    return run
