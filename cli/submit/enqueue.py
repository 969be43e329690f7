"""Queues one run: its folder first, then its row.

In this order a crash leaves a folder without a row, which the next worker's start queues, and never a row without its
folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backprop.cli.submit.submission import Submission
from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import GroupRules, NewRun, QueuePosition, RunSpec

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database


def enqueue(
    home: Home,
    database: "Database",
    submission: Submission,
    now_s: float,
    position: QueuePosition = QueuePosition(),  # noqa: B008 - frozen
    group: GroupRules | None = None,
) -> str:
    """Queue the run and return its id. Raises BadCommand when the id is taken, DatabaseBusy."""
    from backprop.scheduler.home import run_folder
    from backprop.scheduler.store.writes.enqueue import enqueue_all

    try:
        run_id, folder = run_folder.create(home, submission.run_id)
    except OSError as error:
        raise no_room(home, error) from error
    try:
        spec = _with_code(submission, folder)
        run_folder.write_spec(
            folder, run_id, submission.name, spec, submission.environment, now_s, position, group
        )
        run = NewRun(id=run_id, name=submission.name, spec=spec, place=position)
        enqueue_all(database, [run], now_s, group=group)
    except BaseException as error:
        # An interrupt may come just after the commit: then the run is queued and needs its folder.
        if not was_queued(database, run_id, error):
            run_folder.remove(folder)
        if isinstance(error, OSError):
            raise no_room(home, error) from error
        raise
    return run_id


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
