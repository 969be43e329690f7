"""Follows a run until it ends: prints its output as it grows, and returns its outcome as an exit code.

If no worker is alive, this process becomes one, for this run alone.
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
    """Print the run's output until it has ended; return the exit code of its outcome.

    `before`: the number of segments it had when it was queued; a worker may have started the next one by now.
    Raises UnknownRun, DatabaseBusy.
    """
    stream = LogStream(home, run_id, before + 1, sys.stdout.buffer, raw=False)
    reasons = _Reasons(run_now(database, run_id).reason)
    if wake_workers(home.locks):
        interrupted = _watch(database, run_id, stream, reasons)
        left_text = f"{run_id} continues; watch it with: backprop logs -f {run_id}"
    else:
        interrupted = _work(home, database, run_id, settings, stream, reasons)
        left_text = f"{run_id} stays queued; continue with: backprop worker"
    run = run_now(database, run_id)
    if run.state not in OF_STATE:
        click.echo(left_text if interrupted else f"{run_id} is {run.state}", err=True)
        return INTERRUPTED
    click.echo(f"{run_id} {run.state}: {safe(run.reason)}", err=True)
    return OF_STATE[run.state]


class _Reasons:
    """Prints why the run waits in the queue, each reason once."""

    def __init__(self, known: str) -> None:
        self._said = known

    def report(self, run: RunRecord) -> RunRecord:
        if run.state is State.QUEUED and run.reason != self._said:
            self._said = run.reason
            click.echo(f"{run.id} {safe(run.reason)}", err=True)
        return run


def _watch(database: Database, run_id: str, stream: LogStream, reasons: _Reasons) -> bool:
    """Print the output that a worker's run makes until it has ended; return whether Ctrl-C came first."""
    try:
        while not has_ended(run := reasons.report(run_now(database, run_id))):
            stream.pump(run.segment)
            time.sleep(POLL_S)
        stream.finish(run.segment)
    except KeyboardInterrupt:
        return True
    return False


def _work(
    home: Home, database: Database, run_id: str, settings: Settings, stream: LogStream, reasons: _Reasons
) -> bool:
    """Work on this run alone until it has ended; return whether Ctrl-C came first.

    The database stays with this thread; the other thread only reads the logs.
    """
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
            until=lambda: has_ended(reasons.report(run_now(database, run_id))),
            quiet=True,
        )
    finally:
        done.set()
        reader.join()


def has_ended(run: RunRecord) -> bool:
    """Return whether nothing more of the run will be printed: it is final or held."""
    return run.state in FINAL or run.state is State.HELD


def run_now(database: Database, run_id: str) -> RunRecord:
    """Return the run as it is now. Raises UnknownRun when it was removed."""
    run = queries.run_by_id(database, run_id)
    if run is None:
        raise UnknownRun(f"run {run_id} was removed meanwhile")
    return run
