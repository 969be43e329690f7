"""Asks a cluster, as a run is queued for it, whether such a job could ever run there."""

import os
from pathlib import Path

from backprop.scheduler.config.clusters import Cluster
from backprop.scheduler.errors import BadConfig
from backprop.scheduler.home import shared_folder
from backprop.scheduler.spec import RunSpec


def check_on_cluster(spec: RunSpec, cluster: Cluster) -> tuple[str, ...]:
    """Return notes for the user. Raises BadConfig with the cluster's words for what it refuses, HomeRefused for a
    folder that others could read.

    One that does not answer within seconds is believed later: the run is queued all the same.
    """
    from backprop.worker.executor.cluster.engines import engine_of
    from backprop.worker.executor.cluster.job import job_of

    try:
        shared_folder.check(Path(cluster.folder))
    except OSError as error:
        raise BadConfig(f"the folder of {spec.cluster}, {cluster.folder}: {error.strerror}") from error
    job = job_of(spec, cluster, "bp-check", "0" * 16, Path(cluster.folder), ("true",), spec.timebox_s)
    refused = engine_of(cluster).check(job)
    if refused is not None:
        raise BadConfig(f"{spec.cluster} refuses it: {refused}")
    if not _is_beside(spec.cwd, cluster.folder):
        return (f"{spec.cwd} is not on the file system of {cluster.folder}: the nodes must see it too",)
    return ()


def _is_beside(path: str, folder: str) -> bool:
    try:
        return os.stat(path).st_dev == os.stat(folder).st_dev  # noqa: PTH116
    except OSError:
        return False
