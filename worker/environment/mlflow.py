"""Finds the MLflow run that an earlier segment began.

MLflow resumes the run named by MLFLOW_RUN_ID, and refuses to start at all when it does not know that run
(`mlflow.start_run` asks the store for it first). So the variable is set only once the run exists. MLFLOW_RUN_CONTEXT
puts a tag on every run that MLflow starts, and the run is found again by that tag in MLflow's own files: `mlflow.db`,
its default, or `mlruns/`, the default before version 3.7. A server is not asked: a worker must not wait for a network.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from backprop.scheduler.home.file_reading import read_regular

TAG: Final = "backprop.tracking_id"
PARENT_TAG: Final = "mlflow.parentRunId"
BUSY_S: Final = 0.2
"""How long to wait for MLflow's database before the segment starts without the id."""
MAX_RUNS: Final = 5000
"""Runs of a `mlruns/` that are read at most; each costs opening a file."""
FIND: Final = """
    SELECT run_uuid FROM tags JOIN runs USING (run_uuid)
    WHERE key = ? AND value = ? AND lifecycle_stage = 'active'
    AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = ?)
    LIMIT 2
"""


def run_of(
    tracking_id: str, cwd: Path, environment: Mapping[str, str], known: str | None = None
) -> str | None:
    """Return the id of the one MLflow run with Backprop's tag, not counting children of another run.

    None when there is none, or several (a script that starts one per fold has to name them itself), or when the store
    is a server. `environment`: the run's, for MLFLOW_TRACKING_URI. `known`: the id that an earlier call returned;
    returned again when the store cannot be read now. Raises nothing.
    """
    try:
        run_ids = _tagged(tracking_id, cwd, environment)
    except (OSError, ValueError, sqlite3.Error):
        return known
    return run_ids.pop() if len(run_ids) == 1 else None


def _tagged(tracking_id: str, cwd: Path, environment: Mapping[str, str]) -> set[str]:
    uri = environment.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith("sqlite:///"):
        return _in_database(cwd / unquote(uri.removeprefix("sqlite:///")), tracking_id)
    if uri.startswith("file:") or (uri and ":" not in uri):
        return _in_folder(cwd / unquote(uri.removeprefix("file:").removeprefix("//")), tracking_id)
    if uri:
        return set()
    return _in_database(cwd / "mlflow.db", tracking_id) | _in_folder(cwd / "mlruns", tracking_id)


def _in_database(path: Path, tracking_id: str) -> set[str]:
    if not path.is_file():
        return set()
    # Resolved, since a URI has to be absolute and MLFLOW_TRACKING_URI need not be.
    opened = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
    with contextlib.closing(opened) as store:
        return {str(run_id) for (run_id,) in store.execute(FIND, (TAG, tracking_id, PARENT_TAG))}


def _in_folder(store: Path, tracking_id: str) -> set[str]:
    """Search `mlruns/EXPERIMENT/RUN/tags/NAME`: each tag is a file, and a deleted run's meta.yaml says so."""
    tagged = islice(store.glob(f"*/*/tags/{TAG}"), MAX_RUNS)
    runs = [tag.parents[1] for tag in tagged if read_regular(tag).decode() == tracking_id]
    return {
        run.name
        for run in runs
        if not (run / "tags" / PARENT_TAG).exists()
        and b"lifecycle_stage: deleted" not in read_regular(run / "meta.yaml")
    }
