"""Compares a database in use with its home: an older copy may have been laid over the open file.

SQLite does not notice that. Runs queued since then would be missing from `list`, and what users have asked undone.
"""

import os

from backprop.scheduler.home import batch_file, run_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store import rebuild, requests
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.writes import deletion


def older_than_home(home: Home, database: Database) -> str | None:
    """Return by what the database is seen to be older than the home, None if by nothing. Raises OSError.

    A `run` under way looks so for a moment: believe it at the second look.
    """
    database.forget_pages()
    if database.write(lambda: requests.behind(database)):
        return "users have asked for more than it knows"
    folders = [name for name in os.listdir(home.runs) if not name.startswith(".")]  # noqa: PTH208
    lacking = [run_id for run_id in deletion.unknown(database, folders) if _could_be_put_back(home, run_id)]
    if lacking:
        return f"it lacks {len(lacking)} of the runs that have folders"
    for name in deletion.batches_without_runs(database, batch_file.names(home)):
        batch = batch_file.read(home, name)
        if batch is not None and rebuild.behind_batch(database, batch):
            return f"it lacks the runs that were queued together as {name}"
    return None


def _could_be_put_back(home: Home, run_id: str) -> bool:
    spec_file = run_folder.read_spec(home.run_folder(run_id))
    return spec_file is not None and spec_file.id == run_id
