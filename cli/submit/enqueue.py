"""Queues one run: its folder first, then its row.

In this order a crash leaves a folder without a row, which the next worker's start queues, and never a row without its
folder.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from backprop.cli.render.terminal_text import command_text
from backprop.cli.submit.submission import Submission
from backprop.scheduler.config.files import current_directory
from backprop.scheduler.errors import DatabaseBusy, KeyReused
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import GroupRules, NewRun, QueuePosition, RunSpec

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database

T = TypeVar("T")

NOT_ASKED: Final = frozenset(
    ["key", "quiet", "as_json", "brief", "follow", "config", "verbose", "dry_run", "script", "surplus"]
) | {"grid", "array", "params", "batch"}
"""Parameters of `run` that do not say what one run is."""


def enqueue(
    home: Home,
    database: "Database",
    submission: Submission,
    now_s: float,
    position: QueuePosition = QueuePosition(),  # noqa: B008 - frozen
    group: GroupRules | None = None,
) -> str:
    """Queue the run and return its id. Raises BadCommand when the id is taken, KeyReused, DatabaseBusy."""
    return enqueue_once(home, database, submission, now_s, position, group)[0]


def enqueue_once(
    home: Home,
    database: "Database",
    submission: Submission,
    now_s: float,
    position: QueuePosition = QueuePosition(),  # noqa: B008 - frozen
    group: GroupRules | None = None,
) -> "tuple[str, RunRecord | None]":
    """As `enqueue`; return the id, and the run where another one has the key already: then nothing was queued."""
    from backprop.scheduler.home import run_folder
    from backprop.scheduler.store.writes.enqueue import enqueue_all
    from backprop.worker.environment.provenance import recorder
    from backprop.worker.supervisor import failpoint

    key = submission.spec.key
    try:
        run_id, folder = run_folder.create(home, submission.run_id, submission.spec.share)
    except OSError as error:
        raise no_room(home, error) from error
    try:
        spec = _with_code(submission, folder)
        run = NewRun(id=run_id, name=submission.name, spec=spec, place=position)

        def write() -> None:
            failpoint.at("key noted")
            run_folder.write_spec(
                folder, run_id, submission.name, spec, submission.environment, now_s, position, group
            )
            failpoint.at("key in folder")

        if key is None:
            write()
            enqueue_all(database, [run], now_s, group=group)
            taken: dict[str, RunRecord] = {}
        else:
            from backprop.scheduler.store import keys

            taken = completed(
                home, database, lambda: keys.enqueue_once(database, [run], now_s, write, group=group)
            )
    except BaseException as error:
        # An interrupt may come just after the commit: then the run is queued and needs its folder.
        if not was_queued(database, run_id, error):
            run_folder.remove(folder)
        if isinstance(error, OSError):
            raise no_room(home, error) from error
        raise
    if key is None or not taken:
        recorder.keep(home, folder, [spec], submission.environment, own=True)
        return run_id, None
    run_folder.remove(folder)
    _refuse_other(taken[key], spec.asked)
    return taken[key].id, taken[key]


def existing(
    home: Home, database: "Database", wanted: Mapping[str, str | None], dry_run: bool = False
) -> "dict[str, RunRecord]":
    """Return the runs that have these keys, by key. `wanted`: each key with what is `asked` for by it. `dry_run`:
    complete no older database. Raises KeyReused, DatabaseBusy."""
    from backprop.scheduler.store import keys

    def look() -> "dict[str, RunRecord]":
        return keys.runs_with(database, list(wanted))

    found = look() if dry_run else completed(home, database, look)
    for key, run in found.items():
        _refuse_other(run, wanted[key])
    return found


def completed(home: Home, database: "Database", action: Callable[[], T]) -> T:
    """Return what `action` returns. An older copy of the database is completed first: it may not know the key."""
    from backprop.scheduler.store.keys import Behind

    try:
        return action()
    except Behind:
        from backprop.worker.maintenance import recovery

        recovery.catch_up(home, database)
        return action()


def _refuse_other(run: "RunRecord", wanted: str | None) -> None:
    """Raise KeyReused where the run that has the key was asked for by another command."""
    if run.spec.asked != wanted:
        raise KeyReused(
            f"--key {run.key} is that of run {run.id} ({run.state}), queued by another command or elsewhere:"
            f" {command_text(run.spec)}; choose another key, or see: backprop show {run.id}"
        )


def asked(words: Sequence[str], values: Mapping[str, Any], **more: object) -> str:
    """Return a digest of what a command asks for: its words, its options and its directory. What it prints does not
    count. `more`: what sets one of many runs apart."""
    import hashlib

    options = {name: value for name, value in values.items() if name not in NOT_ASKED}
    body = json.dumps([str(current_directory()), list(words), options, more], sort_keys=True, default=str)
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def was_queued(database: "Database", run_id: str, error: BaseException) -> bool:
    """Return whether a run got into the queue in spite of `error`.

    If the database cannot answer either, the run was not queued when the database itself refused it.
    """
    from backprop.scheduler.store.reads import queries

    try:
        return queries.run_by_id(database, run_id) is not None
    except DatabaseBusy:
        return not isinstance(error, DatabaseBusy)


def no_room(home: Home, error: OSError) -> DatabaseBusy:
    """Return the refusal for a disk that takes no more."""
    return DatabaseBusy(
        f"a folder for the run cannot be written in {home.runs}: {error.strerror}; nothing was queued; free some space"
        " and try again"
    )


def _with_code(submission: Submission, folder: Path) -> RunSpec:
    """Return the specification, with its code copied into the run's folder if the user asked for it. Raises OSError.

    This comes before spec.json, which makes a folder a run.
    """
    if submission.code is None:
        return submission.spec
    from backprop.worker.environment import code_snapshot

    return msgspec.structs.replace(submission.spec, code=str(code_snapshot.take(submission.code, folder)))
