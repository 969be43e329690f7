"""Completes the specification of a run by what follows from the cluster that it names."""

from collections.abc import Mapping
from typing import Final

import msgspec

from backprop.scheduler.config.clusters import Cluster
from backprop.scheduler.config.keys import KEYS
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.spec import NO_TIMEBOX_S, RunSpec

OF_JOBS: Final = ("cpus", "mem_mib", "gpu_type", "submit")
_OPTIONS: Final = {key.field: key.option for key in KEYS}


def on_cluster(spec: RunSpec, known: Mapping[str, Cluster], *, chosen: bool) -> RunSpec:
    """Return a specification that names a cluster with what follows from that. `chosen`: its timebox is the user's
    word for this run. Raises BadCommand."""
    if spec.cluster is None:
        lone = next((field for field in OF_JOBS if getattr(spec, field) is not None), None)
        if lone is not None:
            option, on = _OPTIONS[lone], _OPTIONS["cluster"]
            raise BadCommand(
                f"{option} is for a job of a cluster; give {on} CLUSTER with it, or leave it out"
            )
        return spec
    cluster = known.get(spec.cluster)
    if cluster is None:
        names = ", ".join(sorted(known)) or "none"
        raise BadCommand(
            f"{_OPTIONS['cluster']} {spec.cluster}: no such cluster in your config.json (there: {names})"
        )
    if not chosen and cluster.max_run_minutes is not None:
        spec = msgspec.structs.replace(spec, timebox_s=cluster.max_run_minutes * 60)
    if spec.timebox_s >= NO_TIMEBOX_S:
        raise BadCommand(f"a job of {spec.cluster} needs a time limit; give -m MINUTES")
    if cluster.gpu_types and spec.gpu_type is not None and spec.gpu_type not in cluster.gpu_types:
        types = ", ".join(cluster.gpu_types)
        raise BadCommand(f"{_OPTIONS['gpu_type']} {spec.gpu_type}: {spec.cluster} has {types}")
    return msgspec.structs.replace(spec, share=cluster.folder)
