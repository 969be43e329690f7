"""Reads what a segment's folder on the share says of a job, and writes a worker's wishes into it.

A directory is listed anew by every look: opening it asks the server again, where a remembered absence may be half a
minute old.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from backprop.scheduler.home.file_reading import read_if_there
from backprop.scheduler.home.run_folder import write_synced
from backprop.worker.executor import segment_files
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.supervisor import claim
from backprop.worker.supervisor.once import make_once

JOB = "job.json"
JOB_OUT = "job.out"
LAST_BYTES = 4096
T = TypeVar("T")


class StartedFile(msgspec.Struct, frozen=True, kw_only=True):
    """`started.json`. `token`: of the order that began, or `claim.VOID`. `host`: the node."""

    token: str
    job: str | None = None
    host: str | None = None


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """`job.json`: the engine's number of a job that was handed over, and the words it was handed over with."""

    format: int = 1
    engine: str
    job: str
    words: tuple[str, ...]
    submitted_at_s: float


class _Beat(msgspec.Struct, frozen=True):
    number: int


@dataclass(frozen=True)
class SegmentState:
    """What the files say. `beat`: the number in the last heartbeat that was read. `revoked`: it was given up."""

    started: StartedFile | None
    exit: ExitRecord | None
    beat: int | None
    revoked: bool
    job: JobFile | None

    @property
    def is_void(self) -> bool:
        return self.started is not None and self.started.token == claim.VOID

    @property
    def has_begun(self) -> bool:
        return self.started is not None and not self.is_void


def read(folder: Path) -> SegmentState:
    """Look at a segment's folder. Raises OSError when the share does not answer or the folder is not in sight."""
    names = set(os.listdir(folder))  # noqa: PTH208 - a plain listing, once
    beat = _read(folder / claim.BEAT, _Beat) if claim.BEAT in names else None
    return SegmentState(
        started=_read(folder / claim.STARTED, StartedFile) if claim.STARTED in names else None,
        exit=segment_files.read_exit(folder) if segment_files.EXIT in names else None,
        beat=beat.number if beat is not None else None,
        revoked=claim.REVOKED in names,
        job=_read(folder / JOB, JobFile) if JOB in names else None,
    )


def void(folder: Path) -> bool:
    """Keep a segment from ever beginning; False when it has begun, or was void already. Raises OSError."""
    return make_once(folder / claim.STARTED, claim.body(claim.VOID, at_s=time.time()))


def revoke(folder: Path, why: str) -> None:
    """Give up a segment that has begun: wherever its node agent is, it ends it. Raises OSError."""
    make_once(folder / claim.REVOKED, {"format": claim.FORMAT, "why": why, "at_s": time.time()})


def wish(folder: Path, name: str) -> None:
    """Leave a wish, `claim.ASK` or `claim.KILL`, for the node agent. Raises OSError."""
    handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.close(handle)


def write_job(folder: Path, note: JobFile) -> None:
    """Note that a job is in. Raises OSError."""
    draft = folder / f"{JOB}.tmp"
    write_synced(draft, (msgspec.json.encode(note),))
    draft.replace(folder / JOB)


def read_job(folder: Path) -> JobFile | None:
    """Return what was noted of a job that was handed over; None for nothing that can be read."""
    with contextlib.suppress(OSError):
        return _read(folder / JOB, JobFile)
    return None


def last_line(folder: Path) -> str | None:
    """Return the last line that the job itself printed; None for none."""
    with contextlib.suppress(OSError):
        content = (read_if_there(folder / JOB_OUT) or b"")[-LAST_BYTES:].decode(errors="replace")
        return next((line.strip() for line in reversed(content.splitlines()) if line.strip()), None)
    return None


def _read(path: Path, kind: type[T]) -> T | None:
    content = read_if_there(path)
    try:
        return msgspec.json.decode(content, type=kind) if content is not None else None
    except msgspec.DecodeError:
        return None
