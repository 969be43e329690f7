"""Lends a drill a home of its own and takes it back, with all processes and files of the drill."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.executor import locks
from backprop.worker.executor.base import Life
from backprop.worker.executor.local import LocalExecutor

END_PATIENCE_S: Final = 30.0
POLL_S: Final = 0.2
YOUNG_S: Final = 60.0
"""A younger home may belong to a drill that is just starting and holds no lock yet."""


@contextlib.contextmanager
def scratch_home(user_home: Home) -> Generator[Home]:
    """Create a home inside the user's, so on the same local disk, and delete it at the end.

    Homes that killed drills left are deleted first. Raises HomeRefused.
    """
    layout.refuse_remote(user_home.root)
    for folder in user_home.root.glob("drill-*"):
        _delete_abandoned(folder)
    root = Path(tempfile.mkdtemp(prefix="drill-", dir=user_home.root))
    lock = locks.take(root / "drill.lock")
    try:
        yield layout.ensure(Home(root))
    finally:
        shutil.rmtree(root, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def end_processes(executor: LocalExecutor, database: Database, run_id: str) -> None:
    """Kill whatever of the run is still alive, for at most `END_PATIENCE_S`. Raises DatabaseBusy."""
    end_s = time.monotonic() + END_PATIENCE_S
    while time.monotonic() < end_s:
        run = queries.run_by_id(database, run_id)
        if run is None or not run.segment:
            return
        life = executor.poll(run_id, run.segment)[0]
        if life in (Life.ENDED, Life.LOST):
            return
        if life is Life.UNSUPERVISED:
            executor.supervise(run_id, run.segment)
        executor.kill(run_id, run.segment)
        time.sleep(POLL_S)
        executor.reap()


def _delete_abandoned(folder: Path) -> None:
    """Delete the home of a killed drill, once no process of it lives."""
    with contextlib.suppress(OSError):
        young = time.time() - folder.lstat().st_mtime < YOUNG_S
        held = any(locks.held(path) for path in (folder / "drill.lock", *folder.glob("runs/*/run.lock")))
        if not young and not held and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
