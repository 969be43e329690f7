"""Queues runs again as new ones: the same command, folder and environment, with other options, from the beginning."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from backprop.cli.submit.enqueue import enqueue
from backprop.cli.submit.secrets import restored_secrets, say_secrets
from backprop.cli.submit.submission import Submission
from backprop.scheduler.config.settings import Settings
from backprop.scheduler.errors import BadCommand, UnknownRun
from backprop.scheduler.home import batch_file, run_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import QueuePosition, RunSpec

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.selection import Chosen


def queue_copies(
    home: Home,
    database: "Database",
    runs: "Sequence[Chosen]",
    changes: Mapping[str, RunSpec],
    settings: Settings,
    snapshot: bool | None,
    pin: str | None,
) -> dict[str, str]:
    """Queue a new run for each; return the new ids by the old. `changes`: specifications that differ, by the old id.
    `snapshot`: whether to copy the code as it is now; None: as the old run did. `pin`: the checkpoint to begin
    from. Raises BadCommand, DatabaseBusy, UnknownRun."""
    return {one.id: _queue(home, database, one, changes, settings, snapshot, pin) for one in runs}


def _queue(
    home: Home,
    database: "Database",
    one: "Chosen",
    changes: Mapping[str, RunSpec],
    settings: Settings,
    snapshot: bool | None,
    pin: str | None,
) -> str:
    from backprop.scheduler.store.reads import queries
    from backprop.worker.environment import code_snapshot

    record = queries.run_by_id(database, one.id)
    if record is None:
        raise UnknownRun(f"run {one.id} was removed meanwhile")
    folder = home.run_folder(record.id)
    try:
        batch_file.materialise(home, record)
        environment = run_folder.read_environment(folder) | restored_secrets(home, record.id)
    except (OSError, ValueError) as error:
        raise BadCommand(f"its folder {folder} cannot be read: {error}") from error
    say_secrets(home, [record.id])
    old = changes.get(record.id, record.spec)
    spec = msgspec.structs.replace(old, code=None, resume_from=pin or None, key=None, asked=None)
    copies_code = old.code is not None if snapshot is None else snapshot
    submission = Submission(
        run_id=None,
        name=record.name,
        spec=spec,
        environment=environment,
        settings=settings,
        notes=(),
        code=code_snapshot.find(spec, home.root) if copies_code else None,
    )
    return enqueue(home, database, submission, time.time(), QueuePosition(priority=record.priority))
