"""A claimed run becomes a running leader: its arguments, its environment, its place."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from backprop.scheduler import reads
from backprop.scheduler.outcome import Ending
from backprop.scheduler.records import RunRecord
from backprop.worker.context import Context
from backprop.worker.ending import PASSING_ERRORS
from backprop.worker.place import Order
from backprop.worker.resume import command_line
from backprop.worker.tend import Tender


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One claimed segment. `lock`: descriptor of the taken run lock. `limit_environment`: makes the framework keep
    to `limit_mib` of VRAM a GPU."""

    run_id: str
    number: int
    lock: int
    checkpoint: str | None
    gpu_uuids: Sequence[str]
    limit_mib: int | None
    limit_environment: dict[str, str]


def launch(context: Context, tender: Tender, wanted: Launch) -> None:
    """Start the segment; settle it at once if it cannot be started. Consumes the lock. Raises DatabaseBusy."""
    run = reads.run_by_id(context.database, wanted.run_id)
    if run is None:
        os.close(wanted.lock)
        return
    order = Order(
        run=run,
        number=wanted.number,
        argv=command_line(run.spec, wanted.checkpoint),
        environment=environment_of(run, str(context.place.folder(run.id, wanted.number)), wanted),
        timebox_s=timebox_s(run),
        lock=wanted.lock,
    )
    told = f" from {wanted.checkpoint}" if wanted.checkpoint else ""
    context.talk.say("started", run, f"segment {wanted.number}, {order.timebox_s / 60:g} min{told}")
    try:
        context.place.start(order)
    except OSError as error:
        ending = Ending(could_not_start=str(error), passing=error.errno in PASSING_ERRORS, wanted=run.intent)
        tender.could_not_start(run, ending)


def environment_of(run: RunRecord, folder: str, wanted: Launch) -> dict[str, str]:
    """What the leader gets besides the environment of the shell that queued it. See docs/protocol.md."""
    spec, gpu_uuids = run.spec, wanted.gpu_uuids
    optional = {
        "BACKPROP_RESUME_FROM": wanted.checkpoint,
        "BACKPROP_CHECKPOINT_EVERY_SECONDS": _text(spec.checkpoint_every_s),
        "BACKPROP_GPU_MEMORY_LIMIT_MB": _text(wanted.limit_mib),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID" if gpu_uuids else None,
        "CUDA_VISIBLE_DEVICES": ",".join(gpu_uuids) if gpu_uuids else None,
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
        **wanted.limit_environment,
    } | {name: value for name, value in optional.items() if value is not None}


def timebox_s(run: RunRecord) -> float:
    """This segment's box: the run's, cut to what `--max-total-minutes` leaves."""
    if run.spec.max_total_s is None:
        return run.spec.timebox_s
    return min(run.spec.timebox_s, max(run.spec.max_total_s - run.chain_total_s, 1.0))


def _text(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
