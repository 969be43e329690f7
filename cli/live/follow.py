"""Follows a run until it ends: prints its output as it grows, and returns its outcome as an exit code.

If no worker is alive, this process becomes one, for this run alone.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from backprop.cli.context import say_who_works
from backprop.cli.exit_codes import INTERRUPTED, OF_STATE
from backprop.cli.live.log_stream import LogStream
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.config.settings import Settings
from backprop.scheduler.errors import UnknownRun
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import HAS_PROCESSES, SETTLED, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.console.console import Console
from backprop.worker.wakeup import wake_workers

LAST_WORDS_S: Final = 2.0
POLL_S: Final = 0.3


def follow_run(home: Home, database: Database, run_id: str, before: int, settings: Settings) -> int:
    """Print the run's output until it has ended; return the exit code of its outcome.

    `before`: the number of segments it had when it was queued; a worker may have started the next one by now.
    Raises UnknownRun, DatabaseBusy.
    """
    errors = Console(sys.stderr)
    run = run_now(database, run_id)
    stream = LogStream(
        home,
        run_id,
        before + 1,
        sys.stdout.buffer,
        raw=False,
        begin_of=lambda number: _resumed_from(home, run, number),
        fold=True,
    )
    output = _Output(stream, run_id, errors)
    reasons = _Reasons(run.reason, errors)
    if awake := wake_workers(home.locks):
        say_who_works(home, awake)
        interrupted = _watch(database, run_id, output, reasons)
        left_text = f"{run_id} continues; watch it with: backprop logs -f {run_id}"
    else:
        interrupted = _work(home, database, run_id, settings, output, reasons)
        left_text = f"{run_id} stays queued; continue with: backprop worker"
    run = run_now(database, run_id)
    if run.state in HAS_PROCESSES:
        left_text = f"{run_id} continues; watch it with: backprop logs -f {run_id}"
    if run.state in OF_STATE:
        if (told := _chain_words(database, run)) is not None:
            errors.line(told)
        errors.line(f"{run_id} {run.state}: {safe(run.reason)}")
    else:
        errors.line(left_text if interrupted else f"{run_id} is {run.state}")
    errors.close()
    return OF_STATE.get(run.state, INTERRUPTED)


def _resumed_from(home: Home, run: RunRecord, number: int) -> str | None:
    """Return what a segment was started with, by its order; the database belongs to another thread."""
    from backprop.worker.executor import segment_files

    order = segment_files.read_order(home.segment_folder(run.id, number))
    path = order.environment.get("BACKPROP_RESUME_FROM") if order is not None else None
    return f"resumes from {path.removeprefix(f'{run.spec.cwd}/')}" if path else None


def _chain_words(database: Database, run: RunRecord) -> str | None:
    """Return what a run of several segments was: how often it was stopped and resumed, and what that cost."""
    from backprop.scheduler.store.reads import metrics

    segments = queries.segments(database, run.id)
    resumed = sum(one.checkpoint_used is not None for one in segments)
    if not resumed:
        return None
    lost_s = sum(one.cut_cost_s or 0.0 for one in segments)
    values = metrics.latest_of_each(database, [run.id])[run.id]
    told = [f"{name} {value:.3g}" for name, value in sorted(values.items(), key=lambda one: one[0] != "loss")]
    steps = [f"step {run.last_step:,}"] if run.last_step is not None else []
    times = "once" if resumed == 1 else f"{resumed} times"
    first = f"{len(segments)} segments: stopped and resumed {times}, {lost_s:.1f} s lost"
    return "; ".join([first, *([", ".join([*steps, *told[:3]])] if steps or told else [])])


class _Output:
    """Prints the run's output for as long as stdout takes it: a full disk does not end the following, nor the run."""

    def __init__(self, stream: LogStream, run_id: str, console: Console) -> None:
        self._stream: LogStream | None = stream
        self._run_id = run_id
        self._console = console

    def pump(self, newest: int | None) -> None:
        """As `LogStream.pump`. Raises BrokenPipeError: nobody reads any more."""
        self._attempt(lambda stream: stream.pump(newest))

    def finish(self, newest: int | None) -> None:
        """As `LogStream.finish`."""
        self._attempt(lambda stream: stream.finish(newest))

    def _attempt(self, action: Callable[[LogStream], None]) -> None:
        if self._stream is None:
            return
        try:
            action(self._stream)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._stream = None
            why = f"its output cannot be shown any more: {error.strerror}"
            self._console.line(f"{self._run_id}: {why}; see backprop logs {self._run_id}")


class _Reasons:
    """Prints why the run waits in the queue, each reason once."""

    def __init__(self, known: str, console: Console) -> None:
        self._said = known
        self._console = console

    def report(self, run: RunRecord) -> RunRecord:
        if run.state is State.QUEUED and run.reason != self._said:
            self._said = run.reason
            self._console.line(f"{run.id} {safe(run.reason)}")
        return run


def _watch(database: Database, run_id: str, stream: _Output, reasons: _Reasons) -> bool:
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
    home: Home, database: Database, run_id: str, settings: Settings, stream: _Output, reasons: _Reasons
) -> bool:
    """Work on this run alone until it has ended; return whether Ctrl-C came first.

    The database stays with this thread; the other thread only reads the logs.
    """
    from backprop.worker.daemon import work

    done = threading.Event()

    def pump() -> None:
        # In the background of its terminal, output must not stop the worker that this process is (`stty tostop`).
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        while not done.wait(POLL_S):
            stream.pump(None)
        stream.finish(None)

    reader = threading.Thread(target=pump, name="logs", daemon=True)
    with contextlib.suppress(RuntimeError):  # none is to be had: the output is printed at the end
        reader.start()
    interrupted = False
    try:
        interrupted = work(
            home,
            database,
            settings,
            drain=True,
            only=frozenset({run_id}),
            until=lambda: has_ended(reasons.report(run_now(database, run_id))),
            quiet=True,
        )
    except KeyboardInterrupt:  # between its last tick and its end
        interrupted = True
    finally:
        done.set()
        with contextlib.suppress(KeyboardInterrupt):
            if reader.ident is None:
                stream.finish(None)
            else:
                # Who has pressed Ctrl-C waits no longer for an output that nobody takes.
                reader.join(LAST_WORDS_S if interrupted else None)
    return interrupted


def has_ended(run: RunRecord) -> bool:
    """Return whether nothing more of the run will be printed: it is final or held."""
    return run.state in SETTLED


def run_now(database: Database, run_id: str) -> RunRecord:
    """Return the run as it is now. Raises UnknownRun when it was removed."""
    run = queries.run_by_id(database, run_id)
    if run is None:
        raise UnknownRun(f"run {run_id} was removed meanwhile")
    return run
