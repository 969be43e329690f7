"""Keeps what users have asked about runs and the queue, where it outlives the database.

    requests.jsonl    one numbered line per request, oldest first

A line is written and synced inside the transaction that carries the request out, and before its commit. The database
keeps the number of the last request that it knows: one with a lower number than the file is an older copy.
"""

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from backprop.scheduler.home import run_folder
from backprop.scheduler.home.file_reading import NOT_THERE, read_if_there
from backprop.scheduler.home.layout import Home

LAST: Final = 8
"""Lines at the end that are asked for the newest number: one that takes a request back has an earlier one."""
_BEGIN: Final = b'\n{"number":'


class Verb(StrEnum):
    """What was asked. QUEUE: runs with keys. VOID: nothing, after all: the request of that number failed."""

    HOLD = "hold"
    RELEASE = "release"
    RESUME = "resume"
    DONE = "done"
    STOP = "stop"
    STOP_LIVE = "stop live"
    MOVE = "move"
    EDIT = "edit"
    REMOVE = "remove"
    SUSPEND = "suspend"
    UNSUSPEND = "unsuspend"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    PARALLEL = "parallel"
    QUEUE = "queue"
    VOID = "void"


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line. `runs`: run id → its newest segment then. `places`: run id → (priority, `turn_s`). `pin`: see
    `RunRecord`. `at_most`: see `parallel.chosen`; None takes it back. `thaw_at_s`: see `RunRecord`. `at_s`: Unix
    seconds."""

    number: int
    verb: Verb
    at_s: float
    runs: dict[str, int] = {}
    why: str = ""
    pin: str | None = None
    places: dict[str, tuple[int, float]] = {}
    at_most: int | None = None
    thaw_at_s: float | None = None


def newest(home: Home) -> int:
    """Return the number of the newest request; 0 for none. Reads the end of the file alone. Raises OSError."""
    numbers: list[int] = []
    with contextlib.suppress(*NOT_THERE):
        handle = os.open(home.requests, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            # An empty file cannot be mapped.
            with contextlib.suppress(ValueError), mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as text:
                end = len(text)
                while len(numbers) < LAST and (at := text.rfind(_BEGIN, 0, end)) >= 0:
                    text.seek(at + 1)
                    numbers += [request.number for request in _decoded(text.readline())]
                    end = at
        finally:
            os.close(handle)
    return max(numbers, default=0)


def read(home: Home, after: int) -> list[Request]:
    """Return the requests with a number above `after`, in their order, without those taken back. Raises OSError."""
    found: dict[int, Request] = {}
    for line in (read_if_there(home.requests) or b"").splitlines():
        found |= {request.number: request for request in _decoded(line) if request.number > after}
    return [found[number] for number in sorted(found) if found[number].verb is not Verb.VOID]


def append(home: Home, requests: Sequence[Request]) -> None:
    """Add lines, in one write and synced. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    handle = os.open(home.requests, flags, 0o600)
    try:
        body = b"".join(map(_line, requests))
        if os.write(handle, body) < len(body):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    finally:
        os.close(handle)
    run_folder.sync(home.root)


def replace(home: Home, requests: Sequence[Request]) -> None:
    """Keep these requests alone. Call inside a transaction, which nobody else adds one in. Raises OSError."""
    draft = home.requests.with_suffix(".draft")
    run_folder.write_synced(draft, map(_line, requests))
    draft.replace(home.requests)
    run_folder.sync(home.root)


def _line(request: Request) -> bytes:
    """A newline first: after a crash the line before may have no end."""
    return b"\n" + msgspec.json.encode(request) + b"\n"


def _decoded(line: bytes) -> Iterator[Request]:
    """Yield the request of a line. One that a crash cut short had not been carried out."""
    with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
        yield msgspec.json.decode(line, type=Request)
