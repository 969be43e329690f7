"""Names files of a run as the nodes of its cluster see them: what lies below the run's folder lies on the share."""

from pathlib import Path

import msgspec

from backprop.scheduler.home import shared_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec


def root(home: Home, spec: RunSpec) -> Path:
    """Return the folder for what the runs of one place share, such as caches."""
    return Path(spec.share) if spec.cluster is not None and spec.share is not None else home.root


def as_seen_from_nodes(home: Home, run: RunRecord, checkpoint: str | None) -> tuple[RunRecord, str | None]:
    """Return a run and the checkpoint that it resumes from with paths that its leader can open."""
    spec = run.spec
    if spec.cluster is None or spec.share is None:
        return run, checkpoint
    here, there = f"{home.run_folder(run.id)}/", f"{shared_folder.path_of(spec.share, run.id)}/"

    def seen(path: str | None) -> str | None:
        return there + path.removeprefix(here) if path is not None and path.startswith(here) else path

    spec = msgspec.structs.replace(spec, code=seen(spec.code))
    return msgspec.structs.replace(run, spec=spec), seen(checkpoint)
