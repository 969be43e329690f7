"""Works out what a segment asks of its cluster as a job: its time, its resources, and the words of its user."""

import math
import shlex
from pathlib import Path
from typing import Final

from backprop.scheduler.config.clusters import Cluster
from backprop.scheduler.config.settings import parse_gpu_memory_limit
from backprop.scheduler.spec import RunSpec
from backprop.worker.executor.cluster.engine import ClusterJob

STARTS_S: Final = 15
"""A node agent and a supervisor are given so long to start and to end, beside grace and the stop sequence."""
MARGIN_S: Final = 90
MOST_WARNING_S: Final = 60
"""How long before the time limit the engine warns at most. Slurm may do so up to a minute early (sbatch(1))."""


def job_of(
    spec: RunSpec,
    cluster: Cluster,
    name: str,
    token: str,
    folder: Path,
    command: tuple[str, ...],
    timebox_s: float,
) -> ClusterJob:
    """Return the job. `timebox_s`: after which its supervisor ends the segment; the engine's limit comes later."""
    warn_s = min(math.ceil(spec.grace_s) + STARTS_S, MOST_WARNING_S)
    limit_s = timebox_s + spec.grace_s + STARTS_S + MARGIN_S + warn_s
    return ClusterJob(
        name=name,
        token=token,
        folder=folder,
        command=command,
        limit_min=math.ceil(limit_s / 60),
        warn_s=warn_s,
        gpus=spec.gpus,
        gpu_type=_gpu_type(spec, cluster),
        cpus=spec.cpus or _each(cluster.cpus_per_gpu, spec.gpus) or cluster.cpus,
        mem_mib=spec.mem_mib or _mib(_each(cluster.mem_gb_per_gpu, spec.gpus) or cluster.mem_gb),
        options=(*cluster.options, *shlex.split(spec.submit or "")),
    )


def _gpu_type(spec: RunSpec, cluster: Cluster) -> str | None:
    """Return the type of GPU to ask for: the user's, else the smallest that has the run's own limit of VRAM."""
    if spec.gpu_type is not None or spec.gpu_memory_limit is None or not cluster.gpu_types:
        return spec.gpu_type
    mib = parse_gpu_memory_limit(spec.gpu_memory_limit).mib
    fits = [(gb, name) for name, gb in cluster.gpu_types.items() if mib is not None and gb * 1024 >= mib]
    return min(fits)[1] if fits else None


def _each(amount: float | None, gpus: int) -> int | None:
    return math.ceil(amount * gpus) or None if amount is not None else None


def _mib(gb: float | None) -> int | None:
    return math.ceil(gb * 1024) if gb is not None else None
