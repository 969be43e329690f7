"""Which MLflow run did an earlier segment begin?

MLflow resumes the run named by MLFLOW_RUN_ID, and refuses to start at all when it does not know it
(`mlflow.start_run` asks the store for it first). So it is named only once it exists. MLFLOW_RUN_CONTEXT puts a tag on
every run that MLflow starts; here the run is found again by that tag, in MLflow's own files: `mlflow.db`, its default,
or `mlruns/`, the default before version 3.7. A server is not asked: the worker must not wait for a network.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import unquote

TAG: Final = "backprop.tracking_id"
PARENT_TAG: Final = "mlflow.parentRunId"
BUSY_S: Final = 0.2
"""How long somebody else may hold MLflow's database before this segment goes without."""
SEEN_AT_MOST: Final = 5000
"""Runs of a `mlruns/` that are looked at; each costs opening a file."""
FIND: Final = """
    SELECT run_uuid FROM tags JOIN runs USING (run_uuid)
    WHERE key = ? AND value = ? AND lifecycle_stage = 'active'
    AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = ?)
    LIMIT 2
"""


def run_of(
    tracking_id: str, cwd: Path, environment: Mapping[str, str], known: str | None = None
) -> str | None:
    """The id of the one MLflow run with our tag, children of another run apart.

    None when there is none, or several (a script that starts one a fold has to name them itself), or when the store is
    a server. `environment`: the run's, for MLFLOW_TRACKING_URI. `known`: what was found before; said again when the
    store cannot be read just now. Raises nothing.
    """
    try:
        found = _found(tracking_id, cwd, environment)
    except (OSError, ValueError, sqlite3.Error):
        return known
    return found.pop() if len(found) == 1 else None


def _found(tracking_id: str, cwd: Path, environment: Mapping[str, str]) -> set[str]:
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
    """`mlruns/EXPERIMENT/RUN/tags/NAME`, each tag a file of its own; a deleted run's meta.yaml says so."""
    tagged = islice(store.glob(f"*/*/tags/{TAG}"), SEEN_AT_MOST)
    runs = [tag.parents[1] for tag in tagged if tag.read_text() == tracking_id]
    return {
        run.name
        for run in runs
        if not (run / "tags" / PARENT_TAG).exists()
        and "lifecycle_stage: deleted" not in (run / "meta.yaml").read_text()
    }
