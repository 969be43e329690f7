"""What the governor says of a running run: go on, pause, continue, yield, stop, with its words."""

import pytest
from msgspec.structs import replace

from backprop.scheduler.governor.runtime import (
    Action,
    ActionKind,
    Cause,
    WatchedRun,
    ram_floor_mib,
    watch,
    watch_all,
)
from backprop.scheduler.governor.snapshot import Host
from tests.support.governor_cases import GIB, HOST, LIMITS, gpu, machine

RUN = WatchedRun(run_id="r1", gpu_uuids=("GPU-0",), started_s=0.0)


def judge(run: WatchedRun = RUN, *, now_s: float = 100.0, host: Host = HOST, **values: object) -> Action:
    return watch(run, LIMITS, machine(gpu(**values), host=host), now_s)


def paused(cause: Cause, since_s: float = 90.0) -> WatchedRun:
    return replace(RUN, paused_for=cause, paused_since_s=since_s)


def test_heat_rises_and_falls() -> None:
    assert judge(temp_c=82).kind is ActionKind.GO_ON
    hot = judge(temp_c=83)
    assert (hot.kind, hot.cause, hot.reason) == (ActionKind.PAUSE, Cause.HEAT, "GPU 0 at 83 °C, limit 83 °C")
    waiting = judge(paused(Cause.HEAT), temp_c=79)
    assert (waiting.kind, waiting.reason) == (
        ActionKind.GO_ON,
        "paused: GPU 0 at 79 °C, continues at 78 °C",
    )
    cool = judge(paused(Cause.HEAT), temp_c=78)
    assert (cool.kind, cool.reason) == (ActionKind.CONTINUE, "cool again: GPU 0 at 78 °C")


def test_throttling_keeps_a_paused_run_paused_and_stands_in_for_a_thermometer() -> None:
    assert judge(paused(Cause.HEAT), temp_c=70, throttled=True).kind is ActionKind.GO_ON
    assert judge(temp_c=70, throttled=True).kind is ActionKind.GO_ON
    assert judge(temp_c=None, throttled=True).kind is ActionKind.PAUSE


def test_too_long_a_pause_yields() -> None:
    still_hot = judge(paused(Cause.HEAT, since_s=0.0), now_s=301.0, temp_c=90)
    assert (still_hot.kind, still_hot.cause) == (ActionKind.YIELD, Cause.HEAT)
    assert still_hot.reason == "GPU 0 at 90 °C, limit 83 °C; paused for 5 minutes"


def test_runs_on_several_gpus_yield_at_once() -> None:
    both = replace(RUN, gpu_uuids=("GPU-0", "GPU-1"))
    action = watch(both, LIMITS, machine(gpu(0), gpu(1, temp_c=85)), 100.0)
    assert (action.kind, action.cause) == (ActionKind.YIELD, Cause.HEAT)
    assert action.reason == "GPU 1 at 85 °C, limit 83 °C; not paused: it runs on several GPUs"


def test_an_unreadable_gpu_neither_pauses_nor_continues() -> None:
    assert judge(temp_c=None, error="lost").kind is ActionKind.GO_ON
    frozen = judge(paused(Cause.HEAT), temp_c=None, error="lost")
    assert (frozen.kind, frozen.reason) == (
        ActionKind.GO_ON,
        "paused: the temperature of GPU 0 cannot be read",
    )
    assert judge(paused(Cause.HEAT, since_s=0), now_s=400, temp_c=None).kind is ActionKind.YIELD


@pytest.mark.parametrize(("total_gib", "floor_mib"), [(8, 512), (64, 1966), (512, 4096)])
def test_the_ram_floor(total_gib: int, floor_mib: int) -> None:
    assert ram_floor_mib(total_gib * GIB) == floor_mib


def test_ram_runs_short_and_recovers() -> None:
    short = judge(host=replace(HOST, ram_free_mib=1000))
    assert (short.kind, short.cause) == (ActionKind.PAUSE, Cause.RAM)
    assert short.reason == "free RAM 1000 MiB, floor 1.9 GiB"
    assert judge(paused(Cause.RAM), host=replace(HOST, ram_free_mib=3000)).kind is ActionKind.GO_ON
    assert judge(paused(Cause.RAM), host=replace(HOST, ram_free_mib=None)).kind is ActionKind.GO_ON
    assert judge(paused(Cause.RAM), host=replace(HOST, ram_free_mib=4000)).kind is ActionKind.CONTINUE
    assert judge(host=replace(HOST, ram_free_mib=None)).kind is ActionKind.GO_ON


def test_cool_but_short_of_ram_stays_paused() -> None:
    action = judge(paused(Cause.HEAT), temp_c=50, host=replace(HOST, ram_free_mib=1000))
    assert (action.kind, action.reason) == (ActionKind.GO_ON, "paused: free RAM 1000 MiB, floor 1.9 GiB")


@pytest.mark.parametrize(
    ("limit", "used", "kind"),
    [
        (8 * GIB, 9011, ActionKind.GO_ON),
        (8 * GIB, 9012, ActionKind.STOP),
        (GIB, GIB + 512, ActionKind.GO_ON),
        (GIB, GIB + 513, ActionKind.STOP),
        (None, 99 * GIB, ActionKind.GO_ON),
    ],
)
def test_growing_beyond_its_own_limit(limit: int | None, used: int, kind: ActionKind) -> None:
    action = judge(replace(RUN, memory_limit_mib=limit, used_mib={"GPU-0": used}))
    assert action.kind is kind
    if kind is ActionKind.STOP:
        assert action.cause is Cause.MEMORY_LIMIT
        assert "on GPU 0, its limit is" in action.reason


def test_short_ram_moves_one_run_at_a_time() -> None:
    old, new = RUN, replace(RUN, run_id="r2", started_s=50.0)
    starved = machine(gpu(), host=replace(HOST, ram_free_mib=1000))
    kinds = {
        run: action.kind for run, action in watch_all([(new, LIMITS), (old, LIMITS)], starved, 60.0).items()
    }
    assert kinds == {"r1": ActionKind.GO_ON, "r2": ActionKind.PAUSE}
    frozen = [replace(run, paused_for=Cause.RAM, paused_since_s=60.0) for run in (old, new)]
    later = watch_all([(run, LIMITS) for run in frozen], starved, 400.0)
    assert [later[run].kind for run in ("r1", "r2")] == [ActionKind.GO_ON, ActionKind.YIELD]
    relieved = watch_all([(run, LIMITS) for run in frozen], machine(gpu()), 100.0)
    assert [relieved[run].kind for run in ("r1", "r2")] == [ActionKind.CONTINUE, ActionKind.GO_ON]


def test_heat_moves_all_runs_on_the_card() -> None:
    runs = [
        (RUN, LIMITS),
        (replace(RUN, run_id="r2"), LIMITS),
        (replace(RUN, run_id="r3", gpu_uuids=()), LIMITS),
    ]
    actions = watch_all(runs, machine(gpu(temp_c=90)), 60.0)
    assert [actions[run].kind for run in ("r1", "r2", "r3")] == [
        ActionKind.PAUSE,
        ActionKind.PAUSE,
        ActionKind.GO_ON,
    ]
