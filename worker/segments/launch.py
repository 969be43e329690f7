"""Starts claimed segments: composes arguments, environment and timebox, and hands them to the executor."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.errors import UnknownRun
from backprop.scheduler.governor.snapshot import Gpu
from backprop.scheduler.outcome.segment_result import SegmentResult
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store.reads import queries
from backprop.worker.checkpoints.resume import command_line
from backprop.worker.context import Context
from backprop.worker.environment.snapshot_paths import snapshot_command
from backprop.worker.environment.tracking import tracking_environment
from backprop.worker.executor.base import SegmentOrder
from backprop.worker.segments import timebox
from backprop.worker.segments.result import PASSING_ERRORS
from backprop.worker.segments.tracker import SegmentTracker

AMD_PREFIX: Final = "amd-"
CONTEXT_MIB: Final = 512


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One claimed segment. `lock`: descriptor of the taken run lock. `checkpoint`: absolute path to resume from.
    `environment`: that of the shell that queued it. `gpus`: those it was given, with `promised_mib` reserved on
    each. `limit_mib`: the VRAM it may use on each, None for no limit."""

    run_id: str
    number: int
    lock: int
    checkpoint: str | None
    environment: Mapping[str, str]
    gpus: Sequence[Gpu] = ()
    promised_mib: int = 0
    limit_mib: int | None = None


def launch(context: Context, tracker: SegmentTracker, wanted: Launch) -> None:
    """Start a claimed segment; finalize it at once if it cannot be started. Consumes the lock.

    Raises UnknownRun, DatabaseBusy."""
    order: SegmentOrder | SegmentResult
    try:
        run = _run(context, wanted.run_id)
        order = _order(context, run, wanted)
    except BaseException:
        # Held on, the lock would make a claimed run look alive for as long as this worker lives.
        os.close(wanted.lock)
        raise
    if isinstance(order, SegmentResult):
        os.close(wanted.lock)
        tracker.could_not_start(run, order)
        return
    source = f" from {wanted.checkpoint}" if wanted.checkpoint else ""
    context.console.event("started", run, f"segment {wanted.number}, {order.timebox_s / 60:g} min{source}")
    try:
        context.executor.start(order)
    except OSError as error:
        passing = error.errno in PASSING_ERRORS
        result = SegmentResult(could_not_start=str(error), passing=passing, wanted=run.intent)
        tracker.could_not_start(run, result)


def _run(context: Context, run_id: str) -> RunRecord:
    run = queries.run_by_id(context.database, run_id)
    if run is None:
        raise UnknownRun(f"run {run_id} has been removed meanwhile")
    return run


def _order(context: Context, run: RunRecord, wanted: Launch) -> SegmentOrder | SegmentResult:
    """What to execute, with the code as it was when queued; that it could not be started, when that code or an earlier
    order cannot be read."""
    shell = wanted.environment
    try:
        code = snapshot_command(run.spec, shell)
    except OSError as error:
        passing = error.errno in PASSING_ERRORS
        what = f"cannot be read now ({error.strerror})" if passing else "is gone or damaged"
        why = f"its code snapshot {what}: {run.spec.code}"
        return SegmentResult(could_not_start=why, passing=passing, wanted=run.intent)
    try:
        tracking = tracking_environment(context.home, run, wanted.number, shell)
    except OSError as error:
        why = f"{error.filename or 'an earlier order'} cannot be read now ({error.strerror})"
        return SegmentResult(could_not_start=why, passing=True, wanted=run.intent)
    run = msgspec.structs.replace(run, spec=code.spec)
    folder = str(context.executor.folder(run.id, wanted.number))
    earlier = [
        segment for segment in queries.segments(context.database, run.id) if segment.number < run.segment
    ]
    saved = queries.checkpoints(context.database, run.id)
    history = timebox.save_history(run.spec, earlier, saved, announces=False)
    return SegmentOrder(
        run=run,
        number=wanted.number,
        argv=command_line(run.spec, wanted.checkpoint),
        environment={
            **tracking,
            **environment_of(run, folder, wanted),
            **code.environment,
            **_limit_environment(run, wanted, shell),
        },
        timebox_s=timebox.latest_end_s(run, history),
        promised_mib=wanted.promised_mib,
        lock=wanted.lock,
    )


def environment_of(run: RunRecord, folder: str, wanted: Launch) -> dict[str, str]:
    """Return what the leader gets besides the environment of the shell that queued it. See docs/protocol.md."""
    spec = run.spec
    optional = {
        "BACKPROP_RESUME_FROM": wanted.checkpoint,
        "BACKPROP_GROUP": run.group_name,
        "BACKPROP_ARRAY_INDEX": None if run.array_index is None else str(run.array_index),
        "BACKPROP_CHECKPOINT_EVERY_SECONDS": _text(spec.checkpoint_every_s),
        "BACKPROP_GPU_MEMORY_LIMIT_MB": _text(wanted.limit_mib),
        **visible_gpus(spec, wanted.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")),
    }
    return {
        "BACKPROP_RUN_ID": run.id,
        "BACKPROP_RUN_NAME": run.name,
        "BACKPROP_SEGMENT": str(wanted.number),
        "BACKPROP_EVENTS": f"{folder}/events.jsonl",
        "BACKPROP_MAX_MINUTES": f"{spec.timebox_s / 60:g}",
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


def _limit_environment(run: RunRecord, wanted: Launch, shell: Mapping[str, str]) -> dict[str, str]:
    """The variables that make the run's framework keep to its own limit (`-g`)."""
    totals = [gpu.total_mib for gpu in wanted.gpus if gpu.total_mib]
    if wanted.limit_mib is None or not totals or wanted.limit_mib >= min(totals):
        return {}
    from backprop.worker.environment.memory_limit import AllocatorFramework, frameworks_of, limit_environment

    script = Path(run.spec.script) if run.spec.script else None
    # Where nothing is recognised, all: each variable is without effect where its framework is not used.
    frameworks = frameworks_of(run.spec.framework, script) or frozenset(AllocatorFramework)
    return limit_environment(
        frameworks, allocator_mib(wanted.limit_mib), min(totals), shell, run.spec.program
    )


def allocator_mib(limit_mib: int) -> int:
    """Return what a framework's allocator may hand out so that the process keeps to `limit_mib`: a CUDA context takes
    300 to 600 MiB beside it (nvidia-smi on an idle PyTorch process). `sdk/_limit.py` has the same rule."""
    return limit_mib - min(CONTEXT_MIB, limit_mib // 4)


def _text(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
