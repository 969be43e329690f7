"""`backprop suspend RUN…`: freezes live runs in place, until their user lets them go on."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli import run_selection
from backprop.cli.context import NO_WORKER, need_existing
from backprop.cli.global_options import global_options, globals_of
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from collections.abc import Collection

    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database

WHY: Final = "only a live run can be suspended"
POLL_S: Final = 0.2
PATIENCE_S: Final = 75.0
"""A run that holds a lock on a file is tried for half a minute; then its worker has to hear of that."""


@click.command(name="suspend")
@run_selection.run_arguments
@click.option("--all", "every", is_flag=True, help="All live runs.")
@click.option("--for", "lasts", metavar="TIME", help="Let them go on by themselves after this long: 30m, 2h.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    every: bool,
    lasts: str | None,
    config: str | None,
    verbose: bool,
    dry_run: bool,
    **values: Any,
) -> int:
    """Suspend live RUNs: they stand still, keep their memory and hold no slot, until `backprop unsuspend`.

    Then they go on where they stood, in their turn. A run that can't be suspended goes on, and it is said why. GPU
    memory is not freed.
    """
    from backprop.cli.submit.times import read_span
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import HAS_PROCESSES
    from backprop.scheduler.store.writes import suspensions
    from backprop.worker.wakeup import wake_workers

    home, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    thaw_at_s = time.time() + read_span(lasts, "--for") if lasts is not None else None
    filters = run_selection.filters_or_all(values, HAS_PROCESSES if every else ())
    picked = run_selection.pick(ctx, database, runs, filters, HAS_PROCESSES, "suspended")
    if given.dry_run:
        return run_selection.rehearse(picked, "suspend", WHY, IllegalMove.exit_code)
    _need_worker(home, database)
    asked = set(suspensions.ask(database, [one.id for one in picked.able], thaw_at_s))
    wake_workers(home.locks)
    after = _after(database, asked)
    done = [one for one in picked.able if one.id in after and not _refused(after[one.id])]
    run_selection.report(
        done,
        f"suspended {run_selection.counted(len(done))}",
        lambda one: f"suspended {run_selection.who(one)}{_keeps(database, after[one.id])}",
        bulk=picked.bulk,
        every=given.verbose,
    )
    for run in after.values():
        if _refused(run):
            click.echo(f"backprop: {safe(_why(run))}", err=True)
    late = [one for one in picked.able if one.id not in after]
    code = run_selection.refuse([*picked.refused, *late], WHY, IllegalMove.exit_code)
    return code or (IllegalMove.exit_code if any(map(_refused, after.values())) else 0)


def one_run(home: "Home", database: "Database", run_id: str) -> str:
    """Ask for one live run to be suspended; return in words what was done. `what_became` tells what comes of it. Raises
    UnknownRun, IllegalMove, DatabaseBusy."""
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.store.writes import suspensions
    from backprop.worker.wakeup import wake_workers

    one = run_selection.by_id(database, run_id)
    _need_worker(home, database)
    if not suspensions.ask(database, [run_id], None):
        raise IllegalMove(f"run {one.id} is {one.state}; {WHY}")
    wake_workers(home.locks)
    return f"suspending {run_selection.who(one)}"


def what_became(database: "Database", run_id: str) -> str | None:
    """Return in words what came of asking for a suspension; None as long as its worker has not answered."""
    from backprop.scheduler.records import ASKED
    from backprop.scheduler.store.reads import queries

    run = queries.run_by_id(database, run_id)
    if run is None:
        return f"run {run_id} was removed meanwhile"
    if run.suspension == ASKED:
        return None
    return safe(_why(run) if _refused(run) else f"suspended {run.name} ({run.id}){_keeps(database, run)}")


def _need_worker(home: "Home", database: "Database") -> None:
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.store.reads import queries
    from backprop.worker.executor.locks import worker_alive

    if not any(worker_alive(home.locks, worker.id) for worker in queries.workers(database)):
        raise IllegalMove(f"{NO_WORKER}; a worker suspends runs")


def _after(database: "Database", run_ids: "Collection[str]") -> "dict[str, RunRecord]":
    """Wait until each of these runs is suspended or goes on after all; return them as they are then."""
    from backprop.scheduler.records import ASKED
    from backprop.scheduler.store.reads import queries

    end_s = time.monotonic() + PATIENCE_S
    while True:
        runs = {run.id: run for run in queries.runs_by_id(database, list(run_ids))}
        if time.monotonic() > end_s or not any(run.suspension == ASKED for run in runs.values()):
            return runs
        time.sleep(POLL_S)


def _refused(run: "RunRecord") -> bool:
    from backprop.scheduler.lifecycle import State

    return run.state is not State.SUSPENDED


def _why(run: "RunRecord") -> str:
    from backprop.scheduler.records import ASKED

    if run.suspension == ASKED:
        return f"run {run.id} is not suspended yet; its worker will do it"
    return f"run {run.id} is {run.state}: {run.reason}"


def _keeps(database: "Database", run: "RunRecord") -> str:
    """Say what a suspended run keeps: its RAM and the VRAM that it was promised."""
    from backprop.scheduler.governor.model import amount
    from backprop.scheduler.store.reads import queries

    segment = queries.segment(database, run.id, run.segment)
    if segment is None:
        return ""
    kept = [f"{amount(segment.kept_mib)} of RAM"] if segment.kept_mib is not None else []
    kept += [f"{amount(segment.promised_mib)} of VRAM"] if segment.gpu_uuids else []
    return f"; it keeps {' and '.join(kept)}" if kept else ""
