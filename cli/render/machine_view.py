"""Puts machine, workers and queue together: what `status` shows, and the same as JSON."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from backprop.cli.render.box_ends import boxes_left
from backprop.cli.render.json_views import duration, iso
from backprop.cli.render.slots import Slots, slots_of
from backprop.scheduler.config.settings import Settings
from backprop.scheduler.governor import opening
from backprop.scheduler.governor.disk import Disks
from backprop.scheduler.governor.model import Limits, Rule, heat_limit_c
from backprop.scheduler.governor.snapshot import Gpu, Snapshot
from backprop.scheduler.governor.vram import Room
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import RunRecord, SegmentRecord, WorkerRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import disk_use, queries
from backprop.worker.clock import Clock
from backprop.worker.executor.heartbeat import Silence, silence
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.executor.locks import worker_alive
from backprop.worker.machine.holders import Holder, holders_of, own_pids
from backprop.worker.machine.state import MachineState, read_state
from backprop.worker.maintenance import disk_usage

NO_WORKER: Final = "no worker is running"
MEASURE_S: Final = 0.1
LONG_S: Final = 24 * 3600.0
"""For adding up what the home takes: enough for some ten thousand files."""


class GpuView(msgspec.Struct, frozen=True):
    """One GPU. `promised`: run id → MiB reserved. `room`: None when its memory cannot be read. `idle_because`: why
    none of our runs is there although runs are queued. `holders`: processes of others."""

    gpu: Gpu
    room: Room | None
    promised: dict[str, int]
    limit_c: int
    quarantine: str | None
    idle_because: str | None
    holders: Sequence[Holder] = ()


class Overview(msgspec.Struct, frozen=True):
    """What `status` shows. `alive`: live segments. `left`: of their boxes, see `box_ends`. `warnings`: workers that do
    not tick, and what takes too much disk, in words. `silences`: those workers, by id. `drained`: why and since when.
    `active_hours`: of the settings of this directory; a worker may have others. `closed`: why nothing may start now, in
    words.
    `full_at`: when each disk that fills will be full, Unix seconds. `slots`: how many runs may run at once; None where
    no worker lives and nobody has set it."""

    home: Home
    snapshot: Snapshot
    gpus: list[GpuView]
    workers: list[WorkerRecord]
    counts: dict[State, int]
    live: list[RunRecord]
    alive: list[SegmentRecord]
    warnings: list[str]
    silences: Mapping[str, Silence] = {}
    drained: opening.Drained | None = None
    active_hours: tuple[str, ...] = ()
    closed: str | None = None
    slots: Slots | None = None
    left: Mapping[str, float | None] = {}
    full_at: Mapping[str, float] = {}


def overview(home: Home, database: Database | None, snapshot: Snapshot, settings: Settings) -> Overview:
    """Put together what is known now. `database` None: nothing was ever queued. Raises DatabaseBusy."""
    state = read_state(database, snapshot, LocalExecutor(home), settings, Clock())
    if database is None:
        gpus = [_gpu(gpu, state, settings, None, None) for gpu in snapshot.gpus]
        return Overview(home, snapshot, gpus, [], {}, [], [], [])
    workers = [worker for worker in queries.workers(database) if worker_alive(home.locks, worker.id)]
    silences = {
        worker.id: silent for worker in workers if (silent := silence(home.locks, worker.id)) is not None
    }
    now_s, live = time.time(), queries.live_runs(database)
    first = next(iter(queries.queue(database, now_s, 1)), None)
    return Overview(
        home=home,
        snapshot=snapshot,
        gpus=[
            _gpu(gpu, state, settings, _why_idle(gpu, first, bool(workers)), database)
            for gpu in snapshot.gpus
        ],
        workers=workers,
        counts=queries.state_counts(database),
        live=live,
        alive=(alive := queries.live_segments(database)[1]),
        left=boxes_left(home, live, alive, now_s),
        warnings=[
            *(silent.sentence() for silent in silences.values()),
            *disk_usage.measure(home, MEASURE_S).sentences(),
            *_long_unsaved(database, state.segments),
        ],
        silences=silences,
        drained=state.opening.drained,
        active_hours=settings.active_hours or (),
        closed=_closed(state, first),
        slots=slots_of(database, workers),
        full_at=disk_use.full_at(database, now_s),
    )


def _long_unsaved(database: Database, alive: list[SegmentRecord]) -> list[str]:
    """Name the segments that have been running for a day, of which nothing is saved."""
    now_s = time.time()
    old = [segment for segment in alive if now_s - segment.started_at_s >= LONG_S]
    return [
        f"{segment.run_id} has been running for {duration(now_s - segment.started_at_s)} and has saved nothing in this"
        " segment; after a crash of the machine that work is gone"
        for segment in old
        if not any(
            record.segment == segment.number and record.refused is None
            for record in queries.checkpoints(database, segment.run_id)
        )
    ]


def _closed(state: MachineState, first: RunRecord | None) -> str | None:
    """By the settings here, else as a worker with other settings recorded it for the first run of the queue."""
    if state.opening.closed is not None:
        return state.opening.closed.text
    rules = first.waiting if first is not None else ()
    return next((rule.text for rule in rules if rule.rule in (Rule.HOURS, Rule.HOST)), None)


def view(shown: Overview) -> dict[str, Any]:
    """Return JSON values, see docs/json.md."""
    return {
        "home": str(shown.home.root),
        "host": msgspec.to_builtins(shown.snapshot.host)
        | {"disks": disks_json(shown.snapshot.host.disks, shown.full_at)},
        "gpu_source": shown.snapshot.source,
        "gpu_problem": shown.snapshot.problem,
        "gpus": [_gpu_json(gpu) for gpu in shown.gpus],
        "workers": [
            {
                "id": worker.id,
                "pid": worker.pid,
                "max_parallel": worker.max_parallel,
                "started_at": iso(worker.started_at_s),
                "silent_s": round(shown.silences[worker.id].silent_s)
                if worker.id in shown.silences
                else None,
            }
            for worker in shown.workers
        ],
        "queue": {state.value: count for state, count in shown.counts.items()},
        "running": [
            {
                "id": run.id,
                "name": run.name,
                "state": run.state.value,
                "segment": run.segment,
                "reason": run.reason,
            }
            for run in shown.live
        ],
        "warnings": shown.warnings,
        "parallel": None if shown.slots is None else shown.slots.view(),
        "drained": {"why": shown.drained[0], "since": iso(shown.drained[1])} if shown.drained else None,
        "active_hours": list(shown.active_hours),
        "closed": shown.closed,
    }


def disks_json(disks: Disks, full_at: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return what is free on each disk, and when it will be full."""
    return [
        {"folder": folder, "free_mib": free_mib, "full_at": iso(full_at.get(folder))}
        for folder, free_mib in disks
    ]


def _gpu(
    gpu: Gpu, state: MachineState, settings: Settings, idle: str | None, database: Database | None
) -> GpuView:
    limits = Limits(
        max_parallel=1,
        min_free_ram_mib=0,
        max_cpu_load=1,
        min_free_disk_mib=0,
        gpu_max_temp_c=settings.gpu_max_temp_c,
    )
    promised = {
        segment.run_id: segment.promised_mib for segment in state.segments if gpu.uuid in segment.gpu_uuids
    }
    return GpuView(
        gpu=gpu,
        room=state.room(gpu),
        promised=promised,
        limit_c=heat_limit_c(limits, gpu),
        quarantine=state.quarantined.get(gpu.uuid),
        idle_because=None if promised else idle,
        holders=holders_of(gpu, own_pids(state), database),
    )


def _gpu_json(shown: GpuView) -> dict[str, Any]:
    gpu: dict[str, Any] = msgspec.to_builtins(shown.gpu)
    gpu.pop("used_by_pid")
    gpu.pop("busy_by_pid")
    return gpu | {
        "limit_c": shown.limit_c,
        "promised_to": shown.promised,
        "promised_elsewhere_mib": None if shown.room is None else shown.room.elsewhere_mib,
        "foreign_mib": None if shown.room is None else shown.room.foreign_mib,
        "available_mib": None if shown.room is None else shown.room.available_mib,
        "quarantine": shown.quarantine,
        "idle_because": shown.idle_because,
        "holders": [msgspec.structs.asdict(holder) for holder in shown.holders],
    }


def _why_idle(gpu: Gpu, first: RunRecord | None, worker_is_there: bool) -> str | None:
    """Return what the run at the head of the queue waits for, as far as it concerns this GPU."""
    if first is None:
        return None
    if not worker_is_there:
        return NO_WORKER
    rules = [rule for rule in first.waiting if rule.gpu_index in (None, gpu.index)]
    if not rules:
        return None
    return f"{first.id} is next: " + "; ".join(rule.text.removeprefix(f"GPU {gpu.index}: ") for rule in rules)
