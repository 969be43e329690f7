"""`backprop suspend RUN…`: has live runs stand still or save and end, until their user lets them go on."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import NO_WORKER, need_existing
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.render import answers
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from collections.abc import Collection

    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database

WHY: Final = "only a live run of this machine can be suspended"
POLL_S: Final = 0.2
PATIENCE_S: Final = 75.0
"""A run that holds a lock on a file is tried for half a minute; then its worker has to hear of that."""


@click.command(name="suspend")
@run_selection.run_arguments
@click.option("--all", "every", is_flag=True, help="All live runs.")
@click.option("--for", "lasts", metavar="TIME", help="Let them go on by themselves after this long: 30m, 2h.")
@verb_options
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
    """Suspend live RUNs: they stand still and hold neither a slot nor their GPU, until `backprop unsuspend`.

    Then they go on where they stood, in their turn. A run that can't stand still, or whose GPU memory can't be moved to
    RAM, is asked to save and end, and waits. Where that would lose work it goes on, and it is said why.
    """
    from backprop.cli.options.times import read_span
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import HAS_PROCESSES, State
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
    done = [one for one in picked.able if one.id in after and after[one.id].state is State.SUSPENDED]
    left = [one for one in picked.able if one.id in after and _leaves(after[one.id])]
    run_selection.report(
        done,
        f"suspended {run_selection.counted(len(done))}",
        lambda one: f"suspended {run_selection.who(one)}{_keeps(database, after[one.id])}",
        bulk=picked.bulk and (bool(done) or not left),
        every=given.verbose,
    )
    run_selection.report(
        left,
        f"asked {run_selection.counted(len(left))} to save and end",
        lambda one: f"asked {run_selection.who(one)} to save and end: {_until(after[one.id])}",
        bulk=picked.bulk and bool(left),
        every=given.verbose,
    )
    refused = [run for run in after.values() if run.state is not State.SUSPENDED and not _leaves(run)]
    for run in refused:
        answers.refuse(run.id, safe(_why(run)))
    late = [one for one in picked.able if one.id not in after]
    code = run_selection.refuse([*picked.refused, *late], WHY, IllegalMove.exit_code)
    return code or (IllegalMove.exit_code if refused else 0)


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
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.records import ASKED
    from backprop.scheduler.store.reads import queries

    run = queries.run_by_id(database, run_id)
    if run is None:
        return f"run {run_id} was removed meanwhile"
    if run.suspension == ASKED:
        return None
    if run.state is State.SUSPENDED:
        return safe(f"suspended {run.name} ({run.id}){_keeps(database, run)}")
    if _leaves(run):
        return f"asked {safe(run.name)} ({run.id}) to save and end: {_until(run)}"
    return safe(_why(run))


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


def _leaves(run: "RunRecord") -> bool:
    """Return whether a run was asked to save and end, and is held off then."""
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.records import KEPT

    return run.suspension == KEPT and run.state is not State.SUSPENDED


def _until(run: "RunRecord") -> str:
    """Say why, and when it goes on."""
    from backprop.cli.render.json_views import clock
    from backprop.scheduler.outcome.move import SUSPENDED_BY_USER

    # It may have ended by now.
    why = run.intent_why or run.reason.removeprefix(f"{SUSPENDED_BY_USER}; ")
    if run.thaw_at_s is not None:
        return f"{safe(why)}; it goes on in its turn from {clock(run.thaw_at_s)} on"
    return f"{safe(why)}; backprop unsuspend {run.id} lets it go on"


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
