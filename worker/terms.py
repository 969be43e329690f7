"""What does the governor have to know of a run? Its need and its limits, from what the user asked for."""

from collections.abc import Mapping, Sequence

from backprop.scheduler.governor import Limits, Need, Reservation
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.settings import Settings, parse_gpu_memory_limit
from backprop.scheduler.snapshot import Snapshot
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.vram import is_settled


def need_of(spec: RunSpec, snapshot: Snapshot) -> Need:
    """`--gpu-probe none` makes it a CPU run for the governor. A limit (`-g`) is what is reserved; a share of a
    GPU is taken of the largest one here, so that it is not promised less on the others."""
    if spec.gpu_probe == "none":
        return Need(vram_mib=0, gpus=0)
    limit_mib = memory_limit_mib(spec, snapshot)
    if limit_mib is not None:
        return Need(vram_mib=limit_mib, source="declared")
    return Need(
        vram_mib=spec.gpu_min_vram_mib, source="declared" if spec.gpu_min_vram_declared else "default"
    )


def limits_of(spec: RunSpec, worker: Settings) -> Limits:
    """The run's own limits; running runs and free disk are the worker's, which a run may only tighten."""
    return Limits(
        max_parallel=min(worker.max_parallel, spec.max_parallel or worker.max_parallel),
        min_free_ram_mib=spec.min_free_ram_mib,
        max_cpu_load=spec.max_cpu_load,
        min_free_disk_mib=worker.min_free_disk_mib,
        gpu_max_temp_c=spec.gpu_max_temp_c,
    )


def reservations_of(alive: Sequence[SegmentRecord], now_s: float) -> list[Reservation]:
    """What was promised to the segments that live, one a GPU. `now_s`: wall clock, as their starts."""
    return [
        Reservation(
            run_id=segment.run_id,
            gpu_uuid=uuid,
            promised_mib=segment.promised_mib,
            seen_mib=None,
            started_s=segment.started_at_s,
            settled=is_settled(None, segment.started_at_s, now_s),
        )
        for segment in alive
        for uuid in segment.gpu_uuids
    ]


def memory_limit_mib(spec: RunSpec, snapshot: Snapshot) -> int | None:
    """`-g` in MiB; None when there is none, or no GPU to take a share of."""
    totals = [gpu.total_mib for gpu in snapshot.gpus if gpu.total_mib is not None]
    if spec.gpu_memory_limit is None or not totals:
        return None
    return parse_gpu_memory_limit(spec.gpu_memory_limit).of(max(totals))


def environment_of(run: RunRecord, number: int, folder: str, gpu_uuids: Sequence[str], limit_mib: int | None,
                   checkpoint: str | None) -> dict[str, str]:  # fmt: skip
    """What the leader gets besides the environment of the shell that queued it. See docs/protocol.md."""
    spec = run.spec
    optional: Mapping[str, str | None] = {
        "BACKPROP_RESUME_FROM": checkpoint,
        "BACKPROP_CHECKPOINT_EVERY_SECONDS": _text(spec.checkpoint_every_s),
        "BACKPROP_GPU_MEMORY_LIMIT_MB": _text(limit_mib),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID" if gpu_uuids else None,
        "CUDA_VISIBLE_DEVICES": ",".join(gpu_uuids) if gpu_uuids else None,
    }
    return {
        "BACKPROP_RUN_ID": run.id,
        "BACKPROP_RUN_NAME": run.name,
        "BACKPROP_SEGMENT": str(number),
        "BACKPROP_EVENTS": f"{folder}/events.jsonl",
        "BACKPROP_MAX_MINUTES": f"{spec.timebox_s / 60:g}",
        "BACKPROP_STOP_SIGNAL": spec.stop_signal,
        "BACKPROP_FRAMEWORK": spec.framework,
        "PYTHONUNBUFFERED": "1",
    } | {name: value for name, value in optional.items() if value is not None}


def _text(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
