"""`backprop wait`: waits for runs to end, and tells by its exit code how they ended."""

import contextlib
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import NO_WORKER, need_existing, silent_workers
from backprop.cli.exit_codes import OF_STATE, STILL_GOING
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import brief_option
from backprop.cli.render.answers import BRIEF_BYTES, short
from backprop.cli.render.terminal_text import safe
from backprop.scheduler.lifecycle import SETTLED, State

if TYPE_CHECKING:
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.home.wake_pipes import WakePipe
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.outcomes import Ended
    from backprop.scheduler.store.reads.selection import Chosen

WORST_FIRST: Final = (State.FAILED, State.HELD, State.TIMEBOXED, State.STOPPED, State.COMPLETED)
LOOK_EVERY_S: Final = 30.0
"""A net below the FIFO: for what ended while the database could not be read, or was restored."""
PATIENCE_S: Final = 2.0
"""How long one look waits for the database."""
TROUBLE_PAUSE_S: Final = 5.0
NAME_LIMIT, REASON_LIMIT = 64, 160
"""Bytes of them in JSON."""
EPILOG: Final = """\b
Examples:
  backprop wait 3fa2 --timeout 240           124 while it is still going: call it again
  backprop wait sweep --json                 a group, as one line of JSON
  backprop wait a b c --any                  until the first of them has ended
  id=$(backprop run -q train.py) && backprop wait $id && ./evaluate

A held run counts as ended. Ctrl-C and the timeout leave the runs as they are.
Exit codes: 0 all completed, else that of the worst: 20 failed, 23 held, 21 timeboxed, 22 stopped; 124 still going.
"""


@click.command(name="wait", epilog=EPILOG)
@run_selection.run_arguments
@click.option("--any", "first", is_flag=True, help="Until the first of them has ended; its exit code.")
@click.option(
    "--timeout", metavar="TIME", help="Give up after so long: 240 (seconds), 4m, 1h30m; 0: do not wait."
)
@click.option("--json", "as_json", is_flag=True, help="As one line of JSON, documented in docs/json.md.")
@brief_option
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    first: bool,
    timeout: str | None,
    as_json: bool,
    brief: bool,
    **values: Any,
) -> int:
    """Wait until RUNs have ended: ids, names, groups, or those that pass the filters now.

    Sleeps until a run ends; costs nothing meanwhile.
    """
    from backprop.scheduler.home import wake_pipes

    begun_s = time.monotonic()
    limit_s = _seconds(timeout) if timeout is not None else None
    home, database = need_existing(None if limit_s is None else max(limit_s, PATIENCE_S))
    picked = run_selection.pick(
        ctx, database, runs, run_selection.filters_of(values), set(State), "waited for"
    )
    database.patience_s = PATIENCE_S
    pipe = wake_pipes.new_waiter(home.locks)
    _clean_up_on_signals(pipe)
    try:
        watch = Watch(home, database, picked.able, first)
        watch.until(pipe, None if limit_s is None else begun_s + limit_s)
    finally:
        pipe.close()
    return _tell(home, database, watch, time.monotonic() - begun_s, as_json or brief)


class Watch:
    """What is known of the runs. `counts`: by state, as last seen. `decided`: the run that gives the exit code, None
    while there is none. `working`: a worker is alive. `looks`: how often the database was asked."""

    def __init__(self, home: "Home", database: "Database", runs: "Sequence[Chosen]", first: bool) -> None:
        self._home, self._database, self._runs, self._first = home, database, runs, first
        self._ids = [run.id for run in runs]
        self._said: Sequence[str] = ()
        self.counts: dict[State, int] = {}
        self.removed = 0
        self.decided: Ended | None = None
        self.ended = False
        self.working = False
        self.looks = 0

    @property
    def total(self) -> int:
        return len(self._ids)

    def until(self, pipe: "WakePipe", end_s: float | None) -> None:
        """Look until the runs have ended, or until `end_s` of the monotonic clock; sleep in between."""
        from backprop.worker.wakeup import any_alive

        poll = select.poll()
        poll.register(pipe.fileno(), select.POLLIN)
        while True:
            trouble = self._look()
            left_s = LOOK_EVERY_S if end_s is None else min(LOOK_EVERY_S, end_s - time.monotonic())
            self.working = any_alive(self._home.locks)
            if self.ended:
                return
            self._say([trouble] if trouble else silent_workers(self._home) if self.working else [NO_WORKER])
            if left_s <= 0:
                return
            if trouble:
                time.sleep(min(left_s, TROUBLE_PAUSE_S))
            else:
                poll.poll(left_s * 1000)
            pipe.drain()

    def _look(self) -> str | None:
        """Ask the database; return why it could not answer. A worker repairs what is wrong with it meanwhile."""
        from backprop.scheduler.errors import DatabaseBusy, DatabaseDamaged

        self.looks += 1
        try:
            if self._database.replaced():
                self._database.reopen(self._open_again)
            self._read()
        except (DatabaseBusy, DatabaseDamaged) as error:
            return f"{error}; waiting goes on"
        return None

    def _read(self) -> None:
        from backprop.scheduler.store.reads import outcomes

        self.counts = outcomes.counts(self._database, self._ids)
        missing = self.total - sum(self.counts.values())
        self.removed = self._removed() if missing else 0
        ended = sum(count for state, count in self.counts.items() if state in SETTLED) + self.removed
        self.ended = ended == self.total or (self._first and ended > 0)
        if self.ended:
            worst = next((state for state in WORST_FIRST if state in self.counts), None)
            among = SETTLED if self._first else {worst} if worst is not None else ()
            self.decided = outcomes.first_of(self._database, self._ids, tuple(among))

    def _removed(self) -> int:
        """Return how many of the runs are gone. One that a folder or a batch holds is not: the database is an older
        copy, which a worker completes."""
        from backprop.scheduler.home import batch_file
        from backprop.scheduler.store.writes import deletion

        unknown = deletion.unknown(self._database, self._ids)
        try:
            return sum(not batch_file.holds(self._home, run) for run in self._runs if run.id in unknown)
        except OSError:
            return 0

    def _open_again(self) -> "Database":
        """Open what lies in the database's place now, and never make an empty one: a worker restores it."""
        from backprop.scheduler.errors import DatabaseBusy
        from backprop.scheduler.store.connection import open_database

        if not self._home.database.exists():
            raise DatabaseBusy(f"{self._home.database} is gone; backprop worker restores it")
        return open_database(self._home, PATIENCE_S)

    def _say(self, lines: Sequence[str]) -> None:
        """Say on stderr what keeps the runs from going on, once for as long as it is so."""
        for line in lines:
            if line not in self._said:
                click.echo(line, err=True)
        self._said = lines


def _tell(home: "Home", database: "Database", watch: Watch, waited_s: float, as_json: bool) -> int:
    """Print what became of the runs; return the exit code. Raises UnknownRun where it was a removed one."""
    from backprop.scheduler.errors import UnknownRun

    run = watch.decided
    if watch.ended and (run is None or (run.state is State.COMPLETED and watch.removed)):
        raise UnknownRun(
            f"{run_selection.counted(watch.removed)} of {watch.total} removed meanwhile; see: backprop list"
        )
    code = OF_STATE[run.state] if run is not None else STILL_GOING
    if as_json:
        import json

        view: dict[str, Any] = {
            "ended": watch.ended,
            "exit": code,
            "runs": watch.total,
            "counts": {state.value: watch.counts.get(state, 0) for state in State},
            "removed": watch.removed,
            "decided_by": _view(run),
            "worker_alive": watch.working,
            "waited_s": round(waited_s, 3),
        }
        if run is not None:
            view["decided_by"] |= {"triage": _triage(home, database, run, json.dumps(view))}
        click.echo(json.dumps(view))
        return code
    listed = ", ".join(f"{watch.counts[state]} {state}" for state in State if state in watch.counts)
    more = (
        "; still going" if run is None else f"; {safe(run.name)} ({run.id}) {run.state}: {safe(run.reason)}"
    )
    click.echo(f"{run_selection.counted(watch.total)}: {listed}{more if code else ''}")
    return code


def _triage(home: "Home", database: "Database", run: "Ended", answer: str) -> dict[str, Any] | None:
    """Return the triage of the run that decides; None where it did not fail, cannot be read now, or does not fit into 1
    KB with the rest of the `answer`."""
    if run.state is State.COMPLETED:
        return None
    import json

    from backprop.cli.render import triage_view
    from backprop.scheduler.errors import BackpropError
    from backprop.scheduler.store.reads import queries
    from backprop.worker.maintenance.triage_reader import triage_of_run

    with contextlib.suppress(BackpropError):
        record = queries.run_by_id(database, run.id)
        triage = triage_of_run(home, database, record) if record is not None else None
        for most in (triage_view.SHORT, triage_view.SHORTEST):
            view = triage_view.triage_json(run.id, triage, most)
            if len(answer) + len(json.dumps({"triage": view})) < BRIEF_BYTES:
                return view
    return None


def _view(run: "Ended | None") -> dict[str, Any] | None:
    if run is None:
        return None
    texts = {"name": short(run.name, NAME_LIMIT), "reason": short(run.reason, REASON_LIMIT)}
    return {"id": run.id, "state": run.state.value} | texts


def _seconds(text: str) -> float:
    from backprop.cli.options.times import read_span

    return float(text) if text.isdecimal() and text.isascii() else read_span(text, "--timeout")


def _clean_up_on_signals(pipe: "WakePipe") -> None:
    """Delete the FIFO where `timeout` or a closed terminal ends this process."""

    def end(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):
            pipe.close()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    ending: Callable[[int, object], None] = end
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # under nohup a closed terminal ends nothing
            signal.signal(number, ending)
