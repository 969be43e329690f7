"""Names files of a run as the nodes of its cluster see them: what lies below the run's folder lies on the share."""

from pathlib import Path

from backprop.scheduler.home import shared_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import RunSpec


def shared_root(home: Home, spec: RunSpec) -> Path:
    """Return the folder for what the runs of one place share, such as caches."""
    return Path(spec.share) if spec.cluster is not None and spec.share is not None else home.root


def seen_from_nodes(home: Home, run_id: str, spec: RunSpec, path: str | None) -> str | None:
    """Return a path as the run's leader can open it."""
    here = f"{home.run_folder(run_id)}/"
    if path is None or spec.cluster is None or spec.share is None or not path.startswith(here):
        return path
    return f"{shared_folder.path_of(spec.share, run_id)}/{path.removeprefix(here)}"
