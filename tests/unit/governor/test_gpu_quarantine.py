"""Did a GPU's memory come back after a segment's end? What is judged missing, and what only looks like it."""

import pytest
from msgspec.structs import replace

from backprop.scheduler.governor.gpu_quarantine import (
    FORGOTTEN_S,
    PATIENCE_S,
    UnreturnedMemory,
    judge,
    merged,
    unexplained_mib,
)
from backprop.scheduler.governor.snapshot import Gpu, Host, Snapshot

GIB = 1024
HOST = Host(ram_free_mib=32 * GIB, ram_total_mib=64 * GIB, load_1m=2.0, cores=8, disk_free_mib=100 * GIB)
OURS, NEIGHBOUR, NEWCOMER = 100, 200, 300
LEFT = UnreturnedMemory(
    "a", "GPU-0", used_mib=8 * GIB, unexplained_mib=300, pids=frozenset({OURS}), ended_s=50.0
)
LATE_S = LEFT.ended_s + PATIENCE_S


def gpu(used_mib: int, *by_pid: tuple[int, int | None], **values: object) -> Gpu:
    """`used_mib`: in use, whether a process of `by_pid` explains it or not."""
    fields: dict[str, object] = {
        "uuid": "GPU-0",
        "index": 0,
        "name": "GPU",
        "total_mib": 24 * GIB,
        "free_mib": 24 * GIB - 500 - used_mib,
        "reserved_mib": 500,
        "temp_c": 50,
        "slowdown_c": 90,
        "throttled": False,
        "utilisation_pct": 0,
        "used_by_pid": by_pid,
    }
    return Gpu(**(fields | values))


def machine(*gpus: Gpu) -> Snapshot:
    return Snapshot(HOST, gpus, "nvml", None, 0.0)


def reason_for(seen: Gpu, one: UnreturnedMemory = LEFT, now_s: float = LATE_S) -> str | None:
    """Why the GPU is quarantined; None if it is not."""
    return judge([one], machine(seen), now_s)[1].get("GPU-0")


def still_open(seen: Gpu, one: UnreturnedMemory = LEFT, now_s: float = LATE_S) -> bool:
    return bool(judge([one], machine(seen), now_s)[0])


def test_memory_that_came_back_settles_it() -> None:
    assert judge([LEFT], machine(gpu(300)), LEFT.ended_s) == ([], {})


def test_memory_that_did_not_come_back_keeps_the_gpu_aside_until_it_has() -> None:
    stuck = gpu(300 + 8 * GIB)
    assert reason_for(stuck, now_s=LATE_S - 1) is None
    assert still_open(stuck, now_s=LATE_S - 1)
    assert reason_for(stuck) == "run a has not returned 8 GiB (its processes have ended)"
    half = gpu(300 + 4 * GIB)
    assert reason_for(half) == "run a has not returned 4 GiB (its processes have ended)"
    assert judge([LEFT], machine(gpu(300)), LATE_S + 60) == ([], {})


def test_a_little_that_stays_is_tolerated() -> None:
    assert not still_open(gpu(300 + 2 * GIB))
    assert still_open(gpu(301 + 2 * GIB))
    small = replace(LEFT, used_mib=600)
    assert not still_open(gpu(300 + 512), small)
    assert still_open(gpu(300 + 513), small)


@pytest.mark.parametrize(
    "seen",
    [
        gpu(300 + 9 * GIB, (NEIGHBOUR, 9 * GIB)),
        gpu(300 + 20 * GIB, (NEWCOMER, 12 * GIB), (NEIGHBOUR, 8 * GIB)),
    ],
    ids=["a neighbour has grown", "somebody else has come"],
)
def test_memory_that_others_hold_is_not_missing(seen: Gpu) -> None:
    """A neighbour that grows after our run's end would look the same to whoever goes by free memory alone."""
    assert judge([LEFT], machine(seen), LATE_S) == ([], {})


def test_memory_is_missing_beside_others_too() -> None:
    seen = gpu(300 + 8 * GIB + 6 * GIB, (NEIGHBOUR, 6 * GIB))
    assert reason_for(seen) == "run a has not returned 8 GiB (its processes have ended)"


def test_processes_that_survive_sigkill_are_no_excuse_and_need_no_patience() -> None:
    stuck = gpu(300 + 8 * GIB, (OURS, 8 * GIB))
    survivors = replace(LEFT, survivors=True)
    told = reason_for(stuck, survivors, LEFT.ended_s)
    assert told == "run a has not returned 8 GiB (its processes survive SIGKILL)"
    assert reason_for(stuck, now_s=LEFT.ended_s) is None
    assert reason_for(stuck) is not None


@pytest.mark.parametrize(
    "seen",
    [
        gpu(9 * GIB, free_mib=None),
        gpu(9 * GIB, error="GPU is lost"),
        gpu(9 * GIB, total_mib=None),
        gpu(9 * GIB, (NEIGHBOUR, None)),
        gpu(9 * GIB, uuid="GPU-1"),
    ],
    ids=["free unknown", "lost", "unified", "amounts untold", "not there"],
)
def test_what_cannot_be_told_keeps_nothing_aside_and_is_asked_again(seen: Gpu) -> None:
    assert reason_for(seen) is None
    assert still_open(seen)


def test_it_is_not_remembered_for_ever() -> None:
    stuck = machine(gpu(300 + 8 * GIB))
    assert judge([LEFT], stuck, LEFT.ended_s + FORGOTTEN_S)[1]
    assert judge([LEFT], stuck, LEFT.ended_s + FORGOTTEN_S + 1) == ([], {})


def test_two_segments_on_one_gpu_are_judged_each_by_itself() -> None:
    second = replace(LEFT, run_id="b", used_mib=GIB)
    open_still, reasons = judge([LEFT, second], machine(gpu(300 + GIB)), LATE_S)
    assert open_still == [second]
    assert reasons == {"GPU-0": "run b has not returned 1 GiB (its processes have ended)"}


def test_unexplained_memory() -> None:
    assert unexplained_mib(gpu(1000, (OURS, 400), (NEIGHBOUR, 350))) == 250
    assert unexplained_mib(gpu(1000, (OURS, 400), (NEIGHBOUR, 350)), frozenset({OURS})) == 650
    assert unexplained_mib(gpu(1000, (OURS, None))) is None
    assert unexplained_mib(gpu(1000, reserved_mib=None)) == 1500


def test_reasons_of_several_workers_are_one_map() -> None:
    assert merged({"GPU-0": "mine"}, {"GPU-0": "theirs", "GPU-1": "theirs"}) == {
        "GPU-0": "mine",
        "GPU-1": "theirs",
    }
