"""Compresses logs of ended segments to `log.gz`, reads them, and turns them back.

Only while nothing of the run lives: a log is compressed under the run's lock.
"""

import gzip
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final, cast

from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.home import run_folder
from backprop.scheduler.home.file_reading import open_draft, open_regular
from backprop.scheduler.home.layout import Home
from backprop.worker.executor import locks

LEAST_BYTES: Final = 4096
"""A smaller file takes one block in either form."""


def log_of(segment: Path) -> Path:
    """Return the path of a segment's log, compressed or not; `log` when there is none. `segment`: its folder."""
    packed = segment / "log.gz"
    return packed if not (segment / "log").exists() and packed.exists() else segment / "log"


def open_log(segment: Path) -> BinaryIO:
    """Open a segment's log for reading from its beginning, uncompressed. Raises OSError."""
    path = log_of(segment)
    handle = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    if path.suffix != ".gz":
        return os.fdopen(handle, "rb")
    file = os.fdopen(handle, "rb", buffering=0)
    packed = gzip.GzipFile(fileobj=file, mode="rb")
    packed.myfileobj = file  # closes it with itself
    return cast("BinaryIO", packed)


def compress(segment: Path) -> int:
    """Replace `log` by `log.gz`; return the bytes saved, 0 when there is nothing to gain.

    `log.gz` is on disk before `log` is deleted. Raises OSError.
    """
    log, packed, draft = segment / "log", segment / "log.gz", segment / "log.gz.part"
    try:
        before = log.lstat().st_size
    except FileNotFoundError:
        return 0
    if before < LEAST_BYTES or log.is_symlink():
        return 0
    try:
        with os.fdopen(open_regular(log), "rb") as plain, os.fdopen(open_draft(draft), "wb") as into:
            with gzip.GzipFile(filename="log", fileobj=into, mode="wb", compresslevel=6, mtime=0) as packer:
                shutil.copyfileobj(plain, packer, 1 << 20)
            into.flush()
            os.fsync(into.fileno())
            after = into.tell()
        os.utime(draft, (log.stat().st_atime, log.stat().st_mtime))
        draft.replace(packed)
        run_folder.sync(segment)
        log.unlink()
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return before - after


def plain_logs(run: Path) -> list[Path]:
    """Return the logs in a run's folder that are worth compressing."""
    logs = [segment / "log" for segment in run.glob("[0-9]*") if segment.name.isdecimal()]
    return [log for log in logs if log.is_file() and log.stat().st_size >= LEAST_BYTES]


def compress_all(home: Home, run_ids: Iterable[str]) -> tuple[int, int]:
    """Compress the logs of these runs; return how many, and the bytes saved. Runs of which something lives are skipped.

    Raises DatabaseBusy when the disk is full.
    """
    count = saved = 0
    for run_id in run_ids:
        logs = plain_logs(home.run_folder(run_id))
        try:
            lock = locks.take(home.run_lock(run_id)) if logs else None
        except OSError:
            continue
        if lock is None:
            continue
        try:
            for log in logs:
                # A process that outlived its run and still writes to the log holds it locked.
                if not locks.held(log):
                    saved += compress(log.parent)
                    count += 1
        except OSError as error:
            raise DatabaseBusy(
                f"{home.run_folder(run_id)}: {error}; free some space and try again"
            ) from error
        finally:
            os.close(lock)
    return count, saved


def inflate(segment: Path) -> None:
    """Turn `log.gz` back into `log`, for a reader that needs offsets. Raises OSError, also for a damaged archive."""
    packed, draft = segment / "log.gz", segment / "log.part"
    if (segment / "log").exists() or not packed.exists():
        return
    try:
        with open_log(segment) as packer, os.fdopen(open_draft(draft), "wb") as into:
            shutil.copyfileobj(packer, into, 1 << 20)
        os.utime(draft, (packed.stat().st_atime, packed.stat().st_mtime))
        draft.replace(segment / "log")
        packed.unlink()
    except (EOFError, gzip.BadGzipFile) as error:
        raise OSError(f"{packed} is damaged: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
