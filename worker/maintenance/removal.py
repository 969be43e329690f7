"""Removes runs: their folders, their checkpoint backups, their rows; never a file outside their folders.

    lock     the run's own, so that no worker starts it and nothing of it lives
    rename   runs/ID to runs/.removed-ID-…, synced
    forget   the row, in the transaction in which the rename is made
    delete   the renamed folder

A worker that starts puts back a folder without a row, so the folder is renamed first. A crash in between leaves a row
without a folder, which can be removed again, or a renamed folder, which the next `rm` or `prune` deletes.
"""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Collection, Generator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.home import batch_file, batch_outcomes, run_folder
from backprop.scheduler.home.file_reading import is_there
from backprop.scheduler.home.layout import Home
from backprop.scheduler.home.run_folder import OutcomeFile
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import RunRef
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.writes import deletion
from backprop.scheduler.store.writes.deletion import REMOVABLE, Removed
from backprop.worker.executor import locks
from backprop.worker.maintenance import package_lists
from backprop.worker.supervisor import failpoint

AT_ONCE: Final = 100
"""Run locks held at a time: each takes a descriptor, and a shell allows 1,024 by default."""
PREFIX: Final = ".removed-"
PATIENCE_S: Final = 15.0
"""How long to wait for the end of a round of decisions, which takes a worker well under a second."""
NEVER_QUEUED_S: Final = 86400.0


class RemovedRun(Removed):
    """`alive`: ids of runs that stay because their processes live. `freed_bytes`: of disk."""

    alive: list[str] = msgspec.field(default_factory=list[str])
    freed_bytes: int = 0


def remove(home: Home, database: Database, run_ids: Sequence[str], *, waiting: bool) -> RemovedRun:
    """Remove these runs. `waiting`: queued or held runs may be among them, so no worker may start one meanwhile.

    Raises DatabaseBusy: then none or some of them are removed, each whole or not at all.
    """
    gone = RemovedRun()
    for at in range(0, len(run_ids), AT_ONCE):
        part = run_ids[at : at + AT_ONCE]
        with _no_starts(home) if waiting else contextlib.nullcontext():
            gone.add(_hide_and_forget(home, database, part, gone, REMOVABLE if waiting else FINAL))
        gone.freed_bytes += sweep(home)
    gone.freed_bytes += package_lists.sweep(home)
    return gone


def sweep(home: Home) -> int:
    """Delete folders that were renamed by this or an interrupted removal; return the bytes freed. Raises nothing."""
    freed = 0
    with contextlib.suppress(OSError):
        for folder in home.runs.glob(f"{PREFIX}*"):
            lock = _lock_of(home, folder)
            if locks.held(lock):
                continue  # another process is removing it, and may have to put it back
            where = folder.resolve()
            freed += size_of(where)
            shutil.rmtree(where, ignore_errors=True)
            if folder.is_symlink():
                folder.unlink()
                lock.unlink(missing_ok=True)
    return freed


def _lock_of(home: Home, renamed: Path) -> Path:
    """Return the lock of a run whose folder, or the link to it, was renamed."""
    if not renamed.is_symlink():
        return renamed / "run.lock"
    return home.locks / f"run-{renamed.name.removeprefix(PREFIX).rpartition('-')[0]}.lock"


def never_queued(home: Home, database: Database, now_s: float) -> list[Path]:
    """Return the folders of submissions that were killed before anything was queued. Raises OSError."""
    old = [
        folder
        for folder in sorted(home.runs.iterdir())
        if not folder.name.startswith(".")
        and not is_there(folder / "spec.json")
        and now_s - folder.lstat().st_mtime > NEVER_QUEUED_S
    ]
    unknown = deletion.unknown(database, [folder.name for folder in old])
    return [folder for folder in old if folder.name in unknown]


def size_of(folder: Path) -> int:
    """Return the bytes on disk below `folder`, links not followed. Files that share blocks count in full."""
    total = 0
    for at, _, names in os.walk(folder, onerror=None):
        for name in names:
            with contextlib.suppress(OSError):
                status = (Path(at) / name).lstat()
                total += status.st_blocks * 512 if stat.S_ISREG(status.st_mode) else 0
    return total


def _hide_and_forget(
    home: Home, database: Database, run_ids: Sequence[str], gone: RemovedRun, among: Collection[State]
) -> Removed:
    """Rename the folders and delete the rows of those runs that are in a state of `among`. Raises DatabaseBusy."""
    renamed: dict[str, Path] = {}
    forgotten: dict[str, dict[str, OutcomeFile | None]] = {}

    def take(leaving: Sequence[RunRef]) -> None:
        for batch in {run.batch for run in leaving if run.batch is not None}:
            ids = [run.id for run in leaving if run.batch == batch]
            # The transaction may be tried again: the first time has what must be restored if it fails.
            if batch not in forgotten:
                forgotten[batch] = batch_outcomes.mark_removed(home, batch, ids)
        for run in leaving:
            if run.id not in renamed:
                _hide(home, run.id, renamed)
        run_folder.sync(home.runs)
        failpoint.at("out of sight")

    with _locked(home, run_ids) as (free, alive):
        gone.alive += alive
        try:
            removed = deletion.remove(database, free, take, among)
        except BaseException as error:
            for run_id, folder in renamed.items():
                with contextlib.suppress(OSError):
                    folder.rename(home.run_folder(run_id))
            for batch, before in forgotten.items():
                with contextlib.suppress(OSError):
                    batch_outcomes.unmark_removed(home, batch, before)
            if isinstance(error, OSError):
                raise DatabaseBusy(
                    f"folders cannot be moved in {home.runs}: {error.strerror}; nothing was removed"
                ) from error
            raise
    _forget_shared(home, database, forgotten)
    return removed


def _hide(home: Home, run_id: str, renamed: dict[str, Path]) -> None:
    folder = home.runs / f"{PREFIX}{run_id}-{os.urandom(4).hex()}"
    with contextlib.suppress(FileNotFoundError):
        home.run_folder(run_id).rename(folder)
        renamed[run_id] = folder


def _forget_shared(home: Home, database: Database, batches: Collection[str]) -> None:
    """Delete what the members of a batch shared.

    Its files go once each member has a folder or is removed, the snapshot of its code once no member is left.
    """
    for batch in batches:
        batch_file.delete_unneeded(home, batch)
    for batch in deletion.batches_without_runs(database, batches):
        shutil.rmtree(home.batch_folder(batch), ignore_errors=True)


@contextlib.contextmanager
def _locked(home: Home, run_ids: Sequence[str]) -> Generator[tuple[list[str], list[str]]]:
    """Lock the runs; yield the ids of those of which nothing lives, and of the others. A run without a folder has
    nothing that could live."""
    held: list[int] = []
    free: list[str] = []
    alive: list[str] = []
    try:
        for run_id in run_ids:
            try:
                lock = locks.take(home.run_lock(run_id))
            except FileNotFoundError:
                free.append(run_id)
                continue
            except OSError:
                lock = None
            if lock is None:
                alive.append(run_id)
            else:
                held.append(lock)
                free.append(run_id)
        yield free, alive
    finally:
        for lock in held:
            os.close(lock)


@contextlib.contextmanager
def _no_starts(home: Home) -> Generator[None]:
    """Keep all workers from starting runs meanwhile. Raises DatabaseBusy."""
    admission = locks.Admission(home.locks)
    end = time.monotonic() + PATIENCE_S
    while not admission.__enter__():
        if time.monotonic() > end:
            raise DatabaseBusy(f"a worker has been deciding for {PATIENCE_S:g} s; stop it or try again")
    try:
        yield
    finally:
        admission.__exit__()
