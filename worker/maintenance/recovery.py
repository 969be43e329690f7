"""The database is damaged, gone, or behind: set it aside, take the newest good backup, complete it from the folders.

A run's folder is self-sufficient, so nothing queued and nothing finished is lost with the database; what a backup
is for is only what folders do not hold (names of old workers, samples, reasons). Runs that live meanwhile are
not touched: their locks tell, as always.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from backprop.scheduler.errors import BackpropError, DatabaseBusy, DatabaseDamaged
from backprop.scheduler.home import batch_file, batch_outcomes, run_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store import rebuild
from backprop.scheduler.store.connection import Database, open_database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.rebuild import FoundSegment
from backprop.scheduler.store.writes import progress
from backprop.worker.executor.base import ExitRecord
from backprop.worker.maintenance import log_archive
from backprop.worker.segments.log_reader import LogReader
from backprop.worker.supervisor import failpoint

PATIENCE_S: Final = 120.0
BACKUPS_KEPT: Final = 5
BACKUP_EVERY_S: Final = 86400.0

T = TypeVar("T")
Say = Callable[[str], None]


class _Order(msgspec.Struct):
    environment: dict[str, str]
    promised_mib: int = 0


def open_sound(home: Home, say: Say) -> Database:
    """The home's database, fully checked; repaired first when it is damaged or gone. For a worker's start.

    Raises DatabaseRefused for what is no damage (newer schema, somebody else's file), DatabaseBusy.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(home.locks / "recovery.lock", timeout=PATIENCE_S, mode=0o600, fallback_to_soft=False):
            database = _open_checked(home, say)
            for run_id in complete(home, database):
                say(f"run {run_id} put back from its folder")
            for batch, count in complete_batches(home, database).items():
                say(f"{count} runs put back that were queued together as {batch}")
            return database
    except Timeout as error:
        raise DatabaseBusy(
            f"another worker has been repairing {home.database} for {PATIENCE_S:g} s"
        ) from error
    except OSError as error:
        raise DatabaseBusy(f"{home.database} cannot be checked or repaired just now: {error}") from error


def complete(home: Home, database: Database) -> list[str]:
    """Bring the database up to what the runs' folders say; the ids of the runs that were behind or missing."""
    return [folder.name for folder in sorted(home.runs.iterdir()) if put_back(home, database, folder.name)]


def complete_batches(home: Home, database: Database) -> dict[str, int]:
    """Bring the database up to what is known of runs that were queued together and have no folder yet; how many were
    behind or missing, by batch. Batches that are not needed any more are deleted."""
    back: dict[str, int] = {}
    for name in batch_file.names(home):
        found = batch_file.read(home, name)
        if found is None:
            continue
        if count := len(
            rebuild.put_back_batch(database, found, lambda name=name: batch_outcomes.removed(home, name))
        ):
            back[name] = count
        if not found.members:
            batch_file.delete_unneeded(home, name)
    return back


def put_back(home: Home, database: Database, run_id: str) -> bool:
    """Bring one run up to what its folder says; False when the database knew as much, or the folder is damaged."""
    folder = home.run_folder(run_id)
    found = run_folder.read_spec(folder)
    if found is None or found.id != run_id:
        return False
    segments = [_segment(folder, number) for number in run_folder.segment_numbers(folder)]
    outcome = run_folder.read_outcome(folder)

    def hear() -> None:
        _hear_again(home, database, run_id, segments)

    there = (folder / "spec.json").exists
    return rebuild.put_back(database, found, segments, outcome, time.time(), hear, there)


def behind(home: Home, database: Database) -> list[str]:
    """The ids of the runs that `complete` and `complete_batches` would put back. Writes nothing."""
    waiting = [found for name in batch_file.names(home) if (found := batch_file.read(home, name)) is not None]
    together = [run_id for found in waiting for run_id in rebuild.behind_batch(database, found)]
    return together + [
        folder.name
        for folder in sorted(home.runs.iterdir())
        if (found := run_folder.read_spec(folder)) is not None
        and found.id == folder.name
        and rebuild.is_behind(
            database, found.id, run_folder.newest_segment(folder), run_folder.read_outcome(folder)
        )
    ]


def back_up(home: Home, database: Database, now_s: float) -> Path | None:
    """A copy of a sound database once a day, the newest five kept. None when there is a recent one, or another worker
    is making one or repairing. Raises DatabaseBusy, OSError."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(home.locks / "recovery.lock", timeout=0, mode=0o600, fallback_to_soft=False):
            return _back_up(home, database, now_s)
    except Timeout:
        return None


def _back_up(home: Home, database: Database, now_s: float) -> Path | None:
    folder = home.root / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    kept = sorted(folder.glob("backprop-*.db"))
    if kept and now_s - kept[-1].stat().st_mtime < BACKUP_EVERY_S:
        return None
    target = folder / time.strftime("backprop-%Y%m%d-%H%M%S.db", time.localtime(now_s))
    draft = target.with_suffix(f".{os.getpid()}.part")
    try:
        draft.unlink(missing_ok=True)
        database.copy_to(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    for old in kept[: max(len(kept) + 1 - BACKUPS_KEPT, 0)]:
        old.unlink(missing_ok=True)
    return target


def _open_checked(home: Home, say: Say) -> Database:
    if home.database.exists():
        database, problem = _checked(home)
        if problem is None and database is not None:
            return database
        say(f"the database is damaged: {problem}")
        say(f"set aside as {_set_aside(home)}")
    elif not _backups(home):
        return open_database(home)
    else:
        say(f"{home.database} is gone")
        _set_aside(home)
    failpoint.at("set aside")
    restored = _restore_newest(home)
    failpoint.at("restored")
    say(f"restored from {restored}" if restored else "no good backup: begun anew")
    return open_database(home)


def _checked(home: Home) -> tuple[Database | None, str | None]:
    """The database, opened, or what is wrong with it. Raises DatabaseRefused for what is no damage, DatabaseBusy."""
    database = None
    try:
        database = open_database(home)
        problem = database.integrity_problem()
    except DatabaseDamaged as error:
        problem = str(error)
    if problem is not None and database is not None:
        database.close()
    return database, problem


def _set_aside(home: Home) -> Path:
    """Rename the database, with the journal that belongs to it: beside another database it would be rolled back into
    that. Nothing is deleted."""
    aside = home.database.with_name(time.strftime("backprop.db.damaged-%Y%m%d-%H%M%S"))
    while aside.exists():
        aside = aside.with_name(f"{aside.name}+")
    for suffix in ("-journal", "-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{home.database}{suffix}").rename(f"{aside}{suffix}")
    return aside


def _backups(home: Home) -> list[Path]:
    """Newest first."""
    kept = [*(home.root / "backups").glob("backprop-*.db"), *home.root.glob("backprop.db.v*.bak")]
    return sorted(kept, key=lambda path: path.stat().st_mtime, reverse=True)


def _restore_newest(home: Home) -> Path | None:
    """Copy the newest backup that passes a full check into place."""
    for backup in _backups(home):
        draft = home.database.with_name("backprop.db.restoring")
        shutil.copyfile(backup, draft)
        draft.chmod(0o600)
        draft.replace(home.database)
        try:
            database, problem = _checked(home)
        except BackpropError:
            database, problem = None, "refused"
        if database is not None:
            database.close()
        if problem is None:
            return backup
        home.database.unlink()
    return None


def _segment(folder: Path, number: int) -> FoundSegment:
    """A segment from its folder; what cannot be read is left out."""
    inside = folder / str(number)
    order = _read(inside / "order.json", _Order)
    end = _read(inside / "exit.json", ExitRecord)
    environment = order.environment if order is not None else {}
    gpus = environment.get("CUDA_VISIBLE_DEVICES", "")
    return FoundSegment(
        number=number,
        started_at_s=os.stat(inside / "order.json").st_mtime,  # noqa: PTH116
        ended_at_s=end.ended_at_s if end is not None else None,
        running_s=end.running_s if end is not None else None,
        exit_code=end.exit_code if end is not None else None,
        checkpoint_used=environment.get("BACKPROP_RESUME_FROM"),
        gpu_uuids=tuple(gpus.split(",")) if gpus else (),
        promised_mib=order.promised_mib if order is not None else 0,
    )


def _hear_again(home: Home, database: Database, run_id: str, segments: list[FoundSegment]) -> None:
    """Checkpoints and progress of past segments, from their logs; the newest one's are heard when it is settled."""
    run = queries.run_by_id(database, run_id)
    for found in segments if run is not None else ():
        segment = queries.segment(database, run_id, found.number)
        if run is None or segment is None or segment.outcome != rebuild.RECOVERED:
            continue
        with contextlib.suppress(OSError):
            log_archive.inflate(home.segment_folder(run_id, found.number))
        listener = LogReader(run, segment, home.segment_folder(run_id, found.number))
        with contextlib.suppress(OSError):
            heard = listener.hear(final=True)
            if heard is not None:
                progress.record(database, run_id, found.number, heard)
        listener.close()


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
