"""The JSON files in a segment's folder, as the worker writes and reads them.

    before.json     written by the worker      what lay where it may save as it began
    order.json      written by the worker      what to run and for how long
    processes.json  written by the supervisor  who the supervisor and the leader are, valid for one boot
    pause.json      written by the supervisor  its own pauses, for the supervisor that may take its place, and for the
                                               worker the answer to `suspend.json`
    suspend.json    written by the worker      whether it is to be suspended, see `suspend_files`
    promise         written by the worker      where its promise to other homes lies, see `vram.promised`
    box.json        written by the worker      its standing order for the end of the box
    box-N.json      written by both            the decision on box N, see `box_files`
    deadline        written by both            when the box in force ends, for the script
    stop.json       written by the supervisor  why the leader was asked to end: before the signal, and once more after
    exit.json       written by the supervisor  how the segment ended
    told-to-stop    written by `should_stop()` empty: it has told the script to stop
    heeds-stop      written by `should_stop()` empty: the script asks whether to stop
    takes-checkpoint  by `resume_from()`      empty: the script asks what to resume from
    attached        by an integration         the training that it is attached to
    hang.json       written by the worker      that it hangs, before it is asked to end, see `hang.note`
    stack-dumps     by an integration         which processes write their stacks at which signal
    stood-back      by an integration         empty: it has left one alone, or its own is over

A worker may read what another version wrote: unknown fields are ignored, and a field that was added later has a
default. The supervisor is standard library only and has a reader and a writer of its own (`supervisor/files.py`).
"""

import contextlib
import time
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from backprop.scheduler.home.file_reading import is_there, read_if_there
from backprop.scheduler.home.run_folder import write_synced
from backprop.worker.supervisor import claim, process_tree

BEFORE: Final = "before.json"
ORDER: Final = "order.json"
PROCESSES: Final = "processes.json"
PAUSE: Final = "pause.json"
STOP: Final = "stop.json"
EXIT: Final = "exit.json"
TOLD: Final = "told-to-stop"
HEEDS: Final = "heeds-stop"
TAKES: Final = "takes-checkpoint"
STOOD_BACK: Final = "stood-back"

T = TypeVar("T")


class BeforeFile(msgspec.Struct, frozen=True, kw_only=True):
    """`before.json`. `folders`: all names in each folder that was looked at, which are paths without links. `contents`:
    size and time (nanoseconds) of every file there."""

    format: int = 1
    folders: dict[str, tuple[str, ...]] = {}
    contents: tuple[tuple[int, int], ...] = ()


class OrderFile(msgspec.Struct, frozen=True, kw_only=True):
    """`order.json`. `spec`: path of the run's `spec.json`, which has the environment of its shell; `environment` is
    added to that. `cookie`: "NAME=value" entries that every process of the segment has in its environment, unless
    it took them out. `promised_mib`: VRAM reserved on each GPU of the segment, for recovery. `soft_limits`: see
    `RunSpec`. `signal_to`: see `choices.SignalTo`. `at_timebox`: a value of `box_end.BoxRule`.

    For a job of a cluster `token` says which, and the others are its node agent's: `queued_spec`, the run's own
    `spec.json`, from which it makes the one at `spec`; `setup`, shell lines; `lease_s`, how long it may be out of
    sight; `python`, the interpreter of the supervisor."""

    format: int = 1
    spec: str
    program: str
    argv: tuple[str, ...]
    cwd: str
    umask: int
    environment: dict[str, str]
    cookie: tuple[str, ...]
    timebox_s: float
    promised_mib: int = 0
    grace_s: float
    stop_signal: int
    soft_limits: dict[str, int] = {}
    signal_to: str = "trainer"
    at_timebox: str = "end"
    token: str | None = None
    queued_spec: str | None = None
    setup: tuple[str, ...] = ()
    lease_s: float | None = None
    python: str | None = None


class ProcessesFile(msgspec.Struct, frozen=True, kw_only=True):
    """`processes.json`. `supervisor`, `leader`: pid and start ticks, in `pid_namespace`, of which notes of 0.1.0 say
    nothing. `started_at_s`: Unix seconds. `box_format`: of decisions on boxes that the supervisor obeys; None: every
    box ends the segment. `suspend_format`: of orders to suspend that it obeys; None: it obeys none. `oom_kills`: the
    note of `supervisor/oom_kills.py`, which supervisors alone read."""

    boot_id: str
    supervisor: tuple[int, int]
    leader: tuple[int, int]
    started_at_s: float
    started_monotonic_s: float | None = None
    pid_namespace: str | None = None
    box_format: int | None = None
    suspend_format: int | None = None
    oom_kills: object = None


class PauseFile(msgspec.Struct, frozen=True, kw_only=True):
    """`pause.json`, on the monotonic clock: see `supervisor/pauses.py`."""

    boot_id: str
    paused_s: float = 0.0
    since_monotonic_s: float | None = None
    until_monotonic_s: float | None = None
    suspended: int | None = None
    refused: int | None = None
    why: str | None = None


class StopFile(msgspec.Struct, frozen=True, kw_only=True):
    """`stop.json`. `asked`: as in ExitRecord. `at_s`: Unix seconds. `boot_id`, `at_monotonic_s`: the same moment on a
    clock that nobody sets. `sent`: whether the stop signal is known to have been sent. `log_bytes`: the log's
    length then. The others are pids and start ticks, as in `supervisor/trainers.py`."""

    asked: str
    at_s: float
    boot_id: str | None = None
    at_monotonic_s: float | None = None
    sent: bool = True
    log_bytes: int | None = None
    signalled: tuple[tuple[int, int], ...] = ()
    working: tuple[tuple[int, int], ...] = ()
    held: tuple[tuple[int, int], ...] = ()
    readers: tuple[tuple[int, int], ...] = ()


class ExitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`exit.json`, the recorded end of a segment. `asked`: "timebox", "asked", or None if the leader ended by itself.

    `exit_code` is None when a signal ended the leader, or when nobody saw it end (`seen_to_end` False). `escalated`:
    what it took after the grace: "none", "term" or "kill". `ended_at_s`: Unix seconds. `survivors`: pids that
    outlived SIGKILL. `boxes`: the timeboxes that it had begun. `disk_full`: the log could take nothing more when the
    leader had failed. `could_not_start`, `errno`: why there never was a leader; `path`: which path it was about.
    `oom_kills`: how many processes the kernel killed meanwhile for want of memory, in the segment's control group and
    on the machine; None where it does not say. `ended_by`: of a segment on a cluster that was asked to end, whose word
    it was, "timebox", "wish" or "engine".
    """

    format: int = 1
    asked: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    seen_to_end: bool = True
    escalated: str = "none"
    running_s: float = 0.0
    paused_s: float = 0.0
    boxes: int = 1
    ended_at_s: float | None = None
    survivors: tuple[int, ...] = ()
    could_not_start: str | None = None
    errno: int | None = None
    path: str | None = None
    disk_full: bool = False
    oom_kills: tuple[int | None, int | None] = (None, None)
    ended_by: str | None = None


def write_order(folder: Path, order: OrderFile) -> None:
    """Write `order.json`, whole or not at all. Not synced: a segment does not outlive the machine. Raises OSError."""
    _write(folder / ORDER, order)


def write_before(folder: Path, before: BeforeFile) -> None:
    """Write `before.json` in the same way. Raises OSError."""
    _write(folder / BEFORE, before)


def read_before(folder: Path) -> BeforeFile | None:
    """Return what lay there as the segment in `folder` began; None when that is missing or damaged. Raises OSError."""
    return _read(folder / BEFORE, BeforeFile)


def read_order(folder: Path) -> OrderFile | None:
    """Return the order of the segment in `folder`; None when it is missing or damaged. Raises OSError when it cannot
    be read, which says nothing about whether it is there. The other readers do the same."""
    return _read(folder / ORDER, OrderFile)


def read_processes(folder: Path) -> ProcessesFile | None:
    return _read(folder / PROCESSES, ProcessesFile)


def read_pause(folder: Path) -> PauseFile | None:
    return _read(folder / PAUSE, PauseFile)


def read_stop(folder: Path) -> StopFile | None:
    return _read(folder / STOP, StopFile)


def read_exit(folder: Path) -> ExitRecord | None:
    return _read(folder / EXIT, ExitRecord)


def was_told(folder: Path) -> bool:
    """Return whether `should_stop()` has told the script to stop. Raises OSError when that cannot be seen."""
    return is_there(folder / TOLD)


def heeds_stop(folder: Path) -> bool:
    """Return whether the script asks `should_stop()`, or one of our callbacks does. Raises OSError."""
    return is_there(folder / HEEDS)


def takes_checkpoint(folder: Path) -> bool:
    """Return whether the script has asked `resume_from()`. Raises OSError."""
    return is_there(folder / TAKES)


def stood_back(folder: Path) -> bool:
    """Return whether an integration has left a training alone, or its own is over: nobody saves when asked. Raises
    OSError."""
    return is_there(folder / STOOD_BACK)


def running_s(folder: Path) -> float | None:
    """Return for how long the segment in `folder` has been running, without its pauses; None where its files do not
    tell. Raises OSError."""
    processes, pause = read_processes(folder), read_pause(folder)
    started_s = processes.started_monotonic_s if processes is not None else None
    if processes is None or started_s is None or processes.boot_id != process_tree.boot_id():
        return None
    now_s = time.monotonic()
    passed_s = now_s - started_s
    if pause is None or pause.boot_id != processes.boot_id:
        return passed_s
    since_s = pause.since_monotonic_s
    lasts_s = 0.0 if since_s is None else (pause.until_monotonic_s or now_s) - since_s
    return max(passed_s - pause.paused_s - lasts_s, 0.0)


def earliest_start_s(folder: Path, started_s: float) -> float:
    """Return when the segment in `folder` began, on the earliest of the wall clocks that are known to have counted
    meanwhile: what it saved once the clock was set back seems older than its start. `started_s`: as it was recorded.
    """
    with contextlib.suppress(OSError):
        # Of a job: by the clock of the share, which also gives checkpoints their times.
        return (folder / claim.STARTED).lstat().st_mtime
    moments = [started_s]
    with contextlib.suppress(OSError):
        if (processes := read_processes(folder)) is not None:
            moments.append(processes.started_at_s)
            if processes.started_monotonic_s is not None and processes.boot_id == process_tree.boot_id():
                moments.append(time.time() - (time.monotonic() - processes.started_monotonic_s))
        if (end := read_exit(folder)) is not None and end.ended_at_s is not None:
            moments.append(end.ended_at_s - end.running_s - end.paused_s)
    return min(moments)


def _write(path: Path, content: msgspec.Struct) -> None:
    draft = path.with_name(f"{path.name}.tmp")
    write_synced(draft, (msgspec.json.encode(content),), synced=False)
    draft.replace(path)


def _read(path: Path, kind: type[T]) -> T | None:
    content = read_if_there(path)
    try:
        return msgspec.json.decode(content, type=kind) if content is not None else None
    except msgspec.DecodeError:
        return None
