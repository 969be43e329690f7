"""Checks the database, the runs' folders against it, and the workers and segments that are alive."""

import time
from typing import TYPE_CHECKING, Final

from backprop.cli.doctor.finding import Finding, bad, counted, note, ok, some
from backprop.cli.doctor.home import REPAIR
from backprop.scheduler.errors import BackpropError, DatabaseDamaged, DatabaseRefused
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import State

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.integrity import DatabaseHeader

REPAIR_OR_START: Final = f"{REPAIR}   (a worker's start does the same)"
CLOCK_SLACK_S: Final = 5.0


def check_database(home: Home) -> "tuple[Finding, Database | None]":
    """Check the whole database. Returns it open for reading, for the caller to close; None where there is none, or none
    that can be read. Raises OSError."""
    from backprop.scheduler.store import integrity

    header = integrity.read_header(home)
    if header is None:
        return _missing(home), None
    if (refused := _refused(home, header)) is not None:
        return refused, None
    engine = f"SQLite {integrity.ENGINE}, {'WAL' if header.wal else 'rollback'} journal"
    opened = None
    try:
        opened = integrity.open_to_look(home)
        problem = opened.integrity_problem()
        if problem is not None:
            raise DatabaseDamaged(f"{home.database} is damaged: {problem}")
    except BackpropError as error:
        if opened is not None:
            opened.close()
        return _trouble(home, error), None
    size = home.database.stat().st_size
    return ok("database", f"sound, {size / 1e6:.1f} MB, schema {header.schema}; {engine}"), opened


def _trouble(home: Home, error: BackpropError) -> Finding:
    if isinstance(error, DatabaseDamaged):
        return bad("database", str(error), REPAIR_OR_START)
    journal = home.database.with_name(f"{home.database.name}-journal")
    if isinstance(error, DatabaseRefused) and journal.exists():
        told = "a crash left its journal; the next command rolls the unfinished change back"
        return note("database", told, "backprop list")
    return bad("database", str(error))


def _missing(home: Home) -> Finding:
    from backprop.scheduler.home import batch_file

    batches = [batch for name in batch_file.names(home) if (batch := batch_file.read(home, name)) is not None]
    lost = sum(len(batch.members) for batch in batches)
    if home.runs.is_dir():
        lost += sum(1 for folder in home.runs.iterdir() if (folder / "spec.json").exists())
    if lost:
        told = f"{home.database} is missing; {home.runs} holds {counted(lost, 'run')}"
        return bad("database", told, REPAIR_OR_START)
    return ok("database", "none yet; the first `backprop run` creates it")


def _refused(home: Home, header: "DatabaseHeader") -> Finding | None:
    """Return the finding when the first bytes alone rule the database out."""
    from backprop.scheduler.store.connection import corrupts_wal
    from backprop.scheduler.store.integrity import ENGINE, LATEST

    if not header.sound:
        return bad(
            "database", f"{home.database} is damaged: its header is not that of a database", REPAIR_OR_START
        )
    if header.wal and corrupts_wal():
        return bad(
            "database",
            f"{home.database} is in WAL mode, which SQLite {ENGINE} can corrupt",
            f"with no Backprop process running: sqlite3 {home.database} 'PRAGMA journal_mode=DELETE'",
        )
    if not header.ours:
        return bad("database", f"{home.database} is the SQLite database of another program", "move it away")
    if header.newer:
        told = f"{home.database} has schema {header.schema}; this version knows up to {LATEST}"
        return bad("database", told, "pip install -U backprop-scheduler")
    if header.schema < LATEST:
        told = f"schema {header.schema} of {LATEST}: the next command upgrades it, after a backup"
        return note("database", told)
    return None


def check_folders(home: Home, opened: "Database") -> Finding:
    """Check for runs whose folders hold more than the database. Raises OSError, DatabaseBusy."""
    from backprop.worker.maintenance import completion

    behind = completion.behind(home, opened)
    if behind:
        told = f"{counted(len(behind), 'run')} missing or outdated in the database: {some(behind)}"
        return note("folders", told, REPAIR_OR_START)
    return ok("folders", "every run in them is in the database")


def check_workers(home: Home, opened: "Database") -> tuple[Finding, dict[str, int]]:
    """Check that a worker is alive if runs are queued, and that those alive tick; return the pids of those alive too.

    Raises OSError, DatabaseBusy."""
    from backprop.scheduler.governor.model import Rule
    from backprop.scheduler.store.reads import queries
    from backprop.worker.executor.heartbeat import silences
    from backprop.worker.executor.locks import worker_alive
    from backprop.worker.wakeup import FOLLOWER

    alive = {one.id: one.pid for one in queries.workers(opened) if worker_alive(home.locks, one.id)}
    counts = queries.state_counts(opened)
    queued = counted(counts.get(State.QUEUED, 0), "run")
    names = [f"{worker} (pid {pid})" for worker, pid in alive.items()]
    if all(worker.startswith(FOLLOWER) for worker in alive):
        served = f"; {some(names)} works on one run only" if alive else ""
        if counts.get(State.QUEUED):
            told = f"none is running, but {queued} queued{served}"
            return note("workers", told, "tmux new -d -s backprop 'backprop worker'"), alive
        return ok("workers", f"none is running, nothing is queued{served}"), alive
    if silent := silences(home.locks):
        return note("workers", "; ".join(one.sentence() for one in silent)), alive
    told = f"{len(alive)} alive: {some(names)}; {queued} queued"
    first = next(iter(queries.queue(opened, time.time(), 1)), None)
    refused = [rule.text for rule in first.waiting if rule.rule == Rule.HOST] if first is not None else []
    if refused:
        advice = "see the line `start`; if runs can be started from here, restart the worker"
        return bad("workers", f"{told}; one says: {refused[0]}", advice), alive
    return ok("workers", told), alive


def check_segments(home: Home, opened: "Database", alive: dict[str, int]) -> Finding:
    """Check the segments that the database holds as live on this machine. Raises OSError, DatabaseBusy."""
    from backprop.scheduler.store.reads import queries
    from backprop.worker.executor.base import EndUnreadable, Life
    from backprop.worker.executor.local import LocalExecutor

    executor = LocalExecutor(home)
    live = [run for run in queries.live_runs(opened) if run.cluster is None]
    lives: dict[str, Life | str] = {}
    for run in live:
        try:
            lives[run.id] = executor.poll(run.id, run.segment)[0]
        except EndUnreadable as error:
            lives[run.id] = f"over, and {error.filename} cannot be read ({error.strerror})"
    orphans = [run for run in live if run.worker not in alive]
    odd = [f"{run.id} is {lives[run.id]}" for run in live if lives[run.id] is not Life.ALIVE]
    told = f"{len(live)} running" + (f"; {some(odd)}" if odd else "")
    if orphans:
        told += f"; the worker of {some([run.id for run in orphans])} is gone: the next worker takes over"
        return note("segments", told, None if alive else "backprop worker")
    if any(life is Life.UNSUPERVISED for life in lives.values()):
        return note("segments", f"{told}; its worker starts a new supervisor")
    return ok("segments", told)


def check_leftovers(home: Home, now_s: float) -> Finding:
    """Check for files of dead workers in `locks/`. Raises OSError."""
    from backprop.worker import takeover

    left = [path.name for path in takeover.leftovers(home, now_s)] if home.locks.is_dir() else []
    if left:
        return note("leftovers", f"files of dead workers in {home.locks}: {some(left)}", REPAIR)
    return ok("leftovers", "no leftovers")


def check_clock(opened: "Database | None", now_s: float) -> Finding:
    """Check whether the wall clock was set back or the machine slept. Timeboxes are monotonic: no harm."""
    from backprop.scheduler.store.integrity import newest_time_s

    newest_s = newest_time_s(opened) if opened is not None else None
    if newest_s is not None and newest_s > now_s + CLOCK_SLACK_S:
        told = f"{newest_s - now_s:.0f} s behind the newest time in the database: it was set back"
        return note(
            "clock", f"{told}; ages are wrong, and retries wait that much longer", "timedatectl status"
        )
    asleep_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    if asleep_s > 1.0:
        return note(
            "clock", f"this machine has slept {asleep_s:.0f} s since boot; timeboxes do not count that"
        )
    return ok("clock", "not behind the database; the machine has not slept since boot")
