"""Composes the environment variables that Backprop adds for a segment's leader."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from backprop.scheduler.governor.snapshot import Gpu
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import NO_TIMEBOX_S, RunSpec

AMD_PREFIX: Final = "amd-"
CONTEXT_MIB: Final = 512
LOAD_ALL: Final = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
LOAD_WEIGHTS: Final = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def leader_environment(
    run: RunRecord,
    number: int,
    checkpoint: str | None,
    folder: str,
    gpus: Sequence[Gpu],
    limit_mib: int | None,
) -> dict[str, str]:
    """Return what the leader gets besides the environment of the shell that queued it. See docs/protocol.md.

    `checkpoint`: absolute path to resume from, None for a start from zero. `folder`: of the segment. `gpus`: those it
    was given. `limit_mib`: the VRAM it may use on each, None for no limit.
    """
    spec = run.spec
    optional = {
        "BACKPROP_RESUME_FROM": checkpoint,
        "BACKPROP_CLUSTER": spec.cluster,
        "BACKPROP_GROUP": run.group_name,
        "BACKPROP_ARRAY_INDEX": None if run.array_index is None else str(run.array_index),
        "BACKPROP_CHECKPOINT_EVERY_SECONDS": _text(spec.checkpoint_every_s),
        "BACKPROP_MAX_MINUTES": None if spec.timebox_s >= NO_TIMEBOX_S else f"{spec.timebox_s / 60:g}",
        "BACKPROP_GPU_MEMORY_LIMIT_MB": _text(limit_mib),
        # The GPUs of a job are its cluster's to choose.
        **visible_gpus(spec, gpus, None if spec.cluster else os.environ.get("CUDA_VISIBLE_DEVICES")),
    }
    return {
        "BACKPROP_RUN_ID": run.id,
        "BACKPROP_RUN_NAME": run.name,
        "BACKPROP_SEGMENT": str(number),
        "BACKPROP_EVENTS": f"{folder}/events.jsonl",
        "BACKPROP_STOP_SIGNAL": spec.stop_signal,
        "BACKPROP_FRAMEWORK": spec.framework,
        "PYTHONUNBUFFERED": "1",
    } | {name: value for name, value in optional.items() if value is not None}


def visible_gpus(spec: RunSpec, gpus: Sequence[Gpu], allowed: str | None) -> dict[str, str | None]:
    """Return the variables that show a leader its GPUs and no others; None for those to leave as they are.

    By UUID, which unlike an index means the same to the driver and to CUDA. AMD's tools report no name that
    HIP takes, so those go by index. A CPU run gets an empty list. Where no rule applied (`--gpu-probe none`, no GPU
    found), the run still gets no more than the worker was allowed (`allowed`: its CUDA_VISIBLE_DEVICES).
    """
    if gpus and gpus[0].uuid.startswith(AMD_PREFIX):
        return {"HIP_VISIBLE_DEVICES": ",".join(str(gpu.index) for gpu in gpus)}
    if gpus:
        uuids = ",".join(gpu.uuid for gpu in gpus)
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuids}
    return {"CUDA_VISIBLE_DEVICES": "" if spec.gpus == 0 else allowed}


def leave_to_load(holds_objects: bool, shell: Mapping[str, str]) -> dict[str, str]:
    """Return the variable with which `torch.load` takes whatever the run itself has saved. A script that names
    `weights_only` has its way, and so has a shell with either variable."""
    return {LOAD_ALL: "1"} if holds_objects and not shell.keys() & {LOAD_ALL, LOAD_WEIGHTS} else {}


def allocator_limit(
    spec: RunSpec, gpus: Sequence[Gpu], limit_mib: int | None, shell: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that make the run's framework keep to its own limit (`-g`). `shell`: the environment of the
    shell that queued the run."""
    totals = [gpu.total_mib for gpu in gpus if gpu.total_mib]
    if limit_mib is None or not totals or limit_mib >= min(totals):
        return {}
    from backprop.worker.environment.memory_limit import AllocatorFramework, frameworks_of, limit_environment

    script = Path(spec.script) if spec.script else None
    # Where nothing is recognised, all: each variable is without effect where its framework is not used.
    frameworks = frameworks_of(spec.framework, script) or frozenset(AllocatorFramework)
    return limit_environment(frameworks, allocator_mib(limit_mib), min(totals), shell, spec.program)


def allocator_mib(limit_mib: int) -> int:
    """Return what a framework's allocator may hand out so that the process keeps to `limit_mib`: a CUDA context takes
    300 to 600 MiB beside it (nvidia-smi on an idle PyTorch process). `sdk/_limit.py` has the same rule."""
    return limit_mib - min(CONTEXT_MIB, limit_mib // 4)


def _text(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
