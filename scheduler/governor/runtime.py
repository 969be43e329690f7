"""Decides whether a running run goes on, or has to pause, continue, yield or stop.

The counterpart of `decide` for running runs, and as pure. Pausing freezes a run's processes: it cools the GPU and stops
the run's growth, but returns no memory. Yielding does: checkpoint, end, requeue.

Hysteresis: a run pauses at the heat limit and continues only `temp_headroom_c` below it; it pauses under the RAM floor
and continues only at twice the floor. What cannot be read neither pauses a run nor continues a paused one.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from backprop.scheduler.governor.model import Limits, amount, heat_limit_c
from backprop.scheduler.governor.snapshot import Snapshot

PAUSE_LIMIT_S: Final = 300.0
"""A pause longer than this becomes a yield: the night is short, and another run may fit elsewhere."""


class ActionKind(StrEnum):
    GO_ON = "go_on"  # leave it as it is: running, or paused
    PAUSE = "pause"
    CONTINUE = "continue"
    YIELD = "yield"
    STOP = "stop"


class Cause(StrEnum):
    """The cause of a pause, a yield or a stop. The database keeps the values."""

    HEAT = "cooling"
    RAM = "low on RAM"
    MEMORY_LIMIT = "over its GPU memory limit"


class Action(msgspec.Struct, frozen=True):
    """What to do. `reason`: one line for people; empty if there is nothing to say. `cause`: None for GO_ON."""

    kind: ActionKind
    reason: str = ""
    cause: Cause | None = None


class WatchedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One running or paused run.

    `paused_for`: the governor's own pause; None if it is running. A run paused by its user must not be passed in.
    `started_s`, `paused_since_s`: on the clock of `now_s`. `memory_limit_mib`: on each GPU; None: no limit.
    `used_mib`: its own use by GPU UUID; GPUs whose use cannot be told are left out.
    """

    run_id: str
    gpu_uuids: tuple[str, ...]
    started_s: float
    paused_for: Cause | None = None
    paused_since_s: float | None = None
    memory_limit_mib: int | None = None
    used_mib: Mapping[str, int] | None = None


def watch(run: WatchedRun, limits: Limits, snapshot: Snapshot, now_s: float) -> Action:
    """Judge one run by itself. For several, `watch_all`: short RAM concerns them together."""
    if (over := _over_memory_limit(run, snapshot)) is not None:
        return Action(ActionKind.STOP, over, Cause.MEMORY_LIMIT)
    hot, short = _heat(run, limits, snapshot), _short_of_ram(run, snapshot)
    cause = Cause.HEAT if hot else Cause.RAM if short else None
    why = hot or short or ""
    if run.paused_for is None:
        if cause is None:
            return Action(ActionKind.GO_ON)
        if len(run.gpu_uuids) > 1:
            # Frozen ranks break each other's collectives (NCCL's watchdog), so several GPUs are not paused.
            return Action(ActionKind.YIELD, f"{why}; not paused: it runs on several GPUs", cause)
        return Action(ActionKind.PAUSE, why, cause)
    if cause is None:
        return Action(ActionKind.CONTINUE, _recovered(run, snapshot), run.paused_for)
    paused_s = now_s - (now_s if run.paused_since_s is None else run.paused_since_s)
    if paused_s > PAUSE_LIMIT_S:
        return Action(ActionKind.YIELD, f"{why}; paused for {paused_s / 60:.0f} minutes", cause)
    return Action(ActionKind.GO_ON, f"paused: {why}")


def watch_all(
    runs: Iterable[tuple[WatchedRun, Limits]], snapshot: Snapshot, now_s: float
) -> dict[str, Action]:
    """Judge all runs of one worker; return run id → action.

    All runs share the RAM, so one at a time reacts when it is short: the newest pauses or yields first and the oldest
    continues first. One frozen run can be enough to save the others.
    """
    oldest_first = sorted(runs, key=lambda pair: pair[0].started_s)
    actions = {run.run_id: watch(run, limits, snapshot, now_s) for run, limits in oldest_first}
    about_ram = [run.run_id for run, _ in oldest_first if actions[run.run_id].cause is Cause.RAM]
    relieving = [run_id for run_id in about_ram if actions[run_id].kind is not ActionKind.CONTINUE]
    continuing = [run_id for run_id in about_ram if actions[run_id].kind is ActionKind.CONTINUE]
    for run_id in (*relieving[:-1], *continuing[1:]):
        actions[run_id] = Action(ActionKind.GO_ON, actions[run_id].reason)
    return actions


def ram_floor_mib(ram_total_mib: int | None) -> int:
    """Return where the kernel's OOM killer is near: 3 % of RAM, but 512 MiB at least and 4 GiB at most."""
    return min(4096, max(512, (ram_total_mib or 0) * 3 // 100))


def tolerated_mib(memory_limit_mib: int) -> int:
    """Return where a run over its limit is ended: 10 % or 512 MiB above, whichever is more. The CUDA context and the
    allocator's rounding count against a run, though its script cannot steer them."""
    return memory_limit_mib + max(512, memory_limit_mib // 10)


def _over_memory_limit(run: WatchedRun, snapshot: Snapshot) -> str | None:
    if run.memory_limit_mib is None:
        return None
    for uuid, used_mib in (run.used_mib or {}).items():
        if used_mib > tolerated_mib(run.memory_limit_mib):
            gpu = snapshot.gpu(uuid)
            where = f"GPU {gpu.index}" if gpu else uuid
            return f"uses {amount(used_mib)} on {where}, its limit is {amount(run.memory_limit_mib)}"
    return None


def _heat(run: WatchedRun, limits: Limits, snapshot: Snapshot) -> str | None:
    """Return why the run's GPUs are too hot, or None. For a run paused for heat, until they are cool again."""
    cooling = run.paused_for is Cause.HEAT
    for uuid in run.gpu_uuids:
        gpu = snapshot.gpu(uuid)
        if gpu is None or gpu.temp_c is None:
            if cooling:
                return f"the temperature of {f'GPU {gpu.index}' if gpu else uuid} cannot be read"
            if gpu is not None and gpu.throttled:
                return f"the driver is throttling GPU {gpu.index} (too hot)"
            continue
        limit_c = heat_limit_c(limits, gpu)
        if gpu.temp_c >= limit_c:
            return f"GPU {gpu.index} at {gpu.temp_c} °C, limit {limit_c} °C"
        if cooling and (gpu.temp_c > limit_c - limits.temp_headroom_c or gpu.throttled):
            until = f"continues at {limit_c - limits.temp_headroom_c} °C"
            slowed = ", throttled by its driver" if gpu.throttled else ""
            return f"GPU {gpu.index} at {gpu.temp_c} °C{slowed}, {until}"
    return None


def _short_of_ram(run: WatchedRun, snapshot: Snapshot) -> str | None:
    """Return why RAM is too short for the run, or None. For a run paused for that, until twice the floor is free."""
    floor_mib = ram_floor_mib(snapshot.host.ram_total_mib)
    free_mib = snapshot.host.ram_free_mib
    if run.paused_for is Cause.RAM:
        if free_mib is None:
            return "free RAM cannot be read"
        if free_mib < 2 * floor_mib:
            return f"free RAM {amount(free_mib)}, continues at {amount(2 * floor_mib)}"
    elif free_mib is not None and free_mib < floor_mib:
        return f"free RAM {amount(free_mib)}, floor {amount(floor_mib)}"
    return None


def _recovered(run: WatchedRun, snapshot: Snapshot) -> str:
    if run.paused_for is Cause.RAM:
        return f"free RAM is back at {amount(snapshot.host.ram_free_mib or 0)}"
    gpus = [gpu for uuid in run.gpu_uuids if (gpu := snapshot.gpu(uuid)) is not None]
    return "cool again: " + ", ".join(f"GPU {gpu.index} at {gpu.temp_c} °C" for gpu in gpus)
