"""Writes what a report of a fault needs into one text file: versions, checks, settings, last events and ends of logs.

It is text, so that its user can read it before sharing it. Every line is masked as all other output is
(`scheduler.home.credentials`), and the home directory is written as `~`. Nothing is sent anywhere.
"""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backprop.cli.doctor.finding import Finding, counted
from backprop.scheduler.errors import BackpropError, BadCommand
from backprop.scheduler.home import layout
from backprop.scheduler.home.credentials import masked_lines
from backprop.scheduler.home.layout import Home

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database

HEAD: Final = """\
# A report on this installation of Backprop, written by `backprop doctor --bundle`.
# What looks like a credential is masked. Read it before you share it: logs hold whatever your scripts print.
"""
LAST_SEGMENTS, LAST_REQUESTS, LAST_LOGS, LOG_BYTES = 20, 20, 5, 4000
PACKAGES: Final = (
    "backprop-scheduler", "click", "peewee", "filelock", "psutil", "nvidia-ml-py", "rich", "msgspec", "textual", "mcp",
)  # fmt: skip


def write(path: Path, findings: Sequence[Finding], settings: Sequence[tuple[str, str, str]]) -> int:
    """Write the file, which must be new and is for its user alone; return its bytes.

    `settings`: key, value, source. Raises BadCommand where it cannot be written.
    """
    text = "\n\n".join("\n".join(part) for part in _parts(findings, settings))
    body = _without_home(masked_lines(f"{HEAD}\n{text}\n")).encode(errors="backslashreplace")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:  # noqa: PTH123
            file.write(body)
    except FileExistsError as error:
        raise BadCommand(f"{path} exists already; choose another name") from error
    except OSError as error:
        raise BadCommand(f"{path} cannot be written: {error.strerror}; choose another place") from error
    return len(body)


def _parts(findings: Sequence[Finding], settings: Sequence[tuple[str, str, str]]) -> Iterator[list[str]]:
    yield ["## Versions", *_versions()]
    yield ["## Checks", *(_check(finding) for finding in findings)]
    yield ["## Settings", *(f"{key} = {value}   ({source})" for key, value, source in settings)]
    try:
        yield from _of_home(layout.locate())
    except (BackpropError, OSError) as error:
        yield ["## Queue", f"cannot be read: {error}"]


def _versions() -> Iterator[str]:
    from importlib.metadata import PackageNotFoundError, version

    from backprop.scheduler.store.integrity import ENGINE, LATEST

    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} (not installed)"
    yield f"Python {platform.python_version()}, SQLite {ENGINE}, schema {LATEST}"
    libc = " ".join(platform.libc_ver()).strip() or "another libc than glibc"
    yield f"{_distribution()}, Linux {platform.release()} {platform.machine()}, {libc}"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown distribution"


def _check(finding: Finding) -> str:
    advice = f"  [{finding.advice}]" if finding.advice is not None else ""
    return f"{finding.level.value:<4}  {finding.name}: {finding.told}{advice}"


def _of_home(home: Home) -> Iterator[list[str]]:
    """Yield what the database holds. Opened to look only: what is wrong with it stays as it is."""
    from backprop.scheduler.store import integrity

    header = integrity.read_header(home) if layout.check(home) else None
    if header is None or not header.ours or header.schema != integrity.LATEST:
        yield ["## Queue", "no database of this version"]
        return
    database = integrity.open_to_look(home)
    try:
        yield ["## Queue", *_queue(database)]
        yield ["## Last segments", *_segments(database)]
        yield ["## Last requests", *_requests(home)]
        yield from _logs(home, database)
    finally:
        database.close()


def _queue(database: "Database") -> Iterator[str]:
    from backprop.scheduler.store.reads import queries

    counts = queries.state_counts(database)
    yield ", ".join(f"{counted(number, 'run')} {state}" for state, number in counts.items()) or "no runs"
    for one in queries.workers(database):
        yield f"worker {one.id}, pid {one.pid}"


def _segments(database: "Database") -> Iterator[str]:
    from backprop.scheduler.store.reads import recent

    for one in recent.ended(database, LAST_SEGMENTS):
        took = f"{one.running_s:.1f} s" if one.running_s is not None else "unknown"
        yield f"{_time(one.at_s)}  {one.name}  segment {one.number}: {one.outcome}, {took}, step {one.last_step}"


def _requests(home: Home) -> Iterator[str]:
    from backprop.scheduler.home import request_log

    for one in request_log.read(home, request_log.newest(home) - LAST_REQUESTS):
        runs = ", ".join(list(one.runs)[:5])
        yield f"{_time(one.at_s)}  {one.verb.value}  {runs or 'the queue'}  {one.why}".rstrip()


def _logs(home: Home, database: "Database") -> Iterator[list[str]]:
    """Yield the ends of the logs of runs that failed last, of any others where there are fewer."""
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.reads import queries

    runs = [run for run in queries.list_runs(database, 200) if run.segment > 0]
    failed = [run for run in runs if run.state is State.FAILED]
    others = [run for run in runs if run.state is not State.FAILED]
    for run in (failed + others)[:LAST_LOGS]:
        yield [f"## Log of {run.name} ({run.id})", *_run(run), *_end(home, run)]


def _run(run: "RunRecord") -> Iterator[str]:
    from backprop.cli.render.terminal_text import command_text

    yield f"command  {command_text(run.spec)}"
    yield f"state    {run.state.value}: {run.reason}"


def _end(home: Home, run: "RunRecord") -> list[str]:
    from backprop.cli.render.terminal_text import safe
    from backprop.scheduler.home.file_reading import open_regular

    try:
        with open(open_regular(home.segment_folder(run.id, run.segment) / "log"), "rb") as file:  # noqa: PTH123
            file.seek(max(os.fstat(file.fileno()).st_size - LOG_BYTES, 0))
            text = file.read(LOG_BYTES).decode(errors="replace")
    except OSError as error:
        return [f"its log cannot be read: {error.strerror}"]
    return [f"  | {safe(line)}" for line in text.replace("\r", "\n").splitlines() if line.strip()]


def _time(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))


def _without_home(text: str) -> str:
    home = os.environ.get("HOME", "").rstrip("/")
    return text.replace(home, "~") if len(home) > 1 else text
