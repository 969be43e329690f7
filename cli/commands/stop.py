"""`backprop stop RUN…`: asks runs to checkpoint and end."""

import contextlib
import time
from typing import TYPE_CHECKING, Any

import click

from backprop.cli.context import need_existing
from backprop.cli.options import run_selection
from backprop.cli.options.global_options import globals_of, verb_options
from backprop.cli.render import answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen


@click.command(name="stop")
@run_selection.run_arguments
@verb_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[str, ...], config: str | None, verbose: bool, dry_run: bool, **values: Any
) -> int:
    """Stop RUNs. Running ones get --grace-seconds to save first. `backprop resume` continues them."""
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import FINAL, State

    home, database = need_existing()
    given = globals_of(ctx, config, verbose, dry_run)
    # Resolve every name before anything is stopped.
    picked = run_selection.pick(
        ctx, database, runs, run_selection.filters_of(values), set(State) - FINAL, "stopped"
    )
    if given.dry_run:
        return run_selection.rehearse(picked, "stop", "it has ended already", IllegalMove.exit_code)
    stopped, asked, late = _stop(home, database, picked.able)
    summary = [f"stopped {run_selection.counted(len(stopped))}"] if stopped or not asked else []
    summary += [f"asked {run_selection.counted(len(asked))} to save and end"] if asked else []
    run_selection.report(
        [one for one in picked.able if one.id in stopped or one.id in asked],
        ", ".join(summary),
        lambda one: _line(one, asked.get(one.id)),
        bulk=picked.bulk,
        every=given.verbose,
    )
    late += [(one.id, _ended(one)) for one in picked.refused]
    for refusal in late:
        answers.refuse(*refusal)
    return IllegalMove.exit_code if late else 0


def one_run(home: "Home", database: "Database", run_id: str) -> str:
    """Stop one run; return in words what was done. Raises UnknownRun, IllegalMove, DatabaseBusy."""
    from backprop.scheduler.errors import IllegalMove
    from backprop.scheduler.lifecycle import FINAL

    one = run_selection.by_id(database, run_id)
    if one.state in FINAL:
        raise IllegalMove(_ended(one))
    _, asked, late = _stop(home, database, [one])
    if late:
        raise IllegalMove(late[0][1])
    return _line(one, asked.get(one.id))


def _stop(
    home: "Home", database: "Database", able: "Sequence[Chosen]"
) -> "tuple[set[str], dict[str, RunRecord], list[tuple[str, str]]]":
    """Stop runs; return the ids of those that are stopped, those that were asked to end, and refusals
    (id, in words)."""
    from backprop.scheduler.errors import BackpropError
    from backprop.scheduler.home import batch_outcomes
    from backprop.scheduler.lifecycle import HAS_PROCESSES, State
    from backprop.scheduler.store.writes import user_requests
    from backprop.worker.wakeup import wake_workers

    now_s = time.time()
    waiting = [one.id for one in able if one.state not in HAS_PROCESSES]
    stopped = set(user_requests.stop_waiting(database, waiting, now_s))
    asked: dict[str, RunRecord] = {}
    late: list[tuple[str, str]] = []
    for one in able:
        if one.id not in stopped:
            try:
                run, state = _ask(database, one.id, now_s)
            except BackpropError as error:
                late.append((one.id, str(error)))
                continue
            if state is State.STOPPED:
                stopped.add(one.id)
            else:
                asked[one.id] = run
    wake_workers(home.locks)
    _ask_orphans(home, asked)
    ended = [one for one in able if one.id in stopped]
    batch_outcomes.write_if_possible(home, ended, State.STOPPED, user_requests.STOPPED_WAITING, now_s)
    return stopped, asked, late


def _ended(one: "Chosen") -> str:
    return f"run {one.id} has ended already ({one.state})"


def _line(one: "Chosen", asked: "RunRecord | None") -> str:
    if asked is None:
        return f"stopped {run_selection.who(one)}"
    return f"stopping {run_selection.who(one)}: it has {asked.spec.grace_s:g} s to save"


def _ask(database: "Database", run_id: str, now_s: float) -> "tuple[RunRecord, State]":
    """Ask a live run to end; return it and its state after that. It may have been queued or started a moment ago.

    Raises IllegalMove, UnknownRun.
    """
    from backprop.scheduler.errors import LostRace, UnknownRun
    from backprop.scheduler.store.reads import queries
    from backprop.scheduler.store.writes import user_requests

    while True:
        run = queries.run_by_id(database, run_id)
        if run is None:
            raise UnknownRun(f"run {run_id} was removed meanwhile")
        with contextlib.suppress(LostRace):
            return run, user_requests.ask_to_stop(database, run, now_s)


def _ask_orphans(home: "Home", asked: "dict[str, RunRecord]") -> None:
    """Ask runs directly whose worker is dead or does not tick: another one, if any, may take a while to notice."""
    from backprop.worker.executor import heartbeat, locks
    from backprop.worker.executor.local import LocalExecutor

    for run in asked.values():
        if (
            run.worker is None
            or not locks.worker_alive(home.locks, run.worker)
            or heartbeat.silence(home.locks, run.worker) is not None
        ):
            if run.cluster is None:
                LocalExecutor(home).ask(run.id, run.segment)
            else:
                _ask_job(home, run)


def _ask_job(home: "Home", run: "RunRecord") -> None:
    """Keep a job from beginning, or ask its node agent to have it end. A later worker settles what came of it."""
    from backprop.worker.executor.cluster import segment_state
    from backprop.worker.supervisor import claim
    from backprop.worker.user_files import within

    folder = home.segment_folder(run.id, run.segment)
    with contextlib.suppress(OSError):
        within(2.0, lambda: segment_state.void(folder) or segment_state.wish(folder, claim.ASK))
