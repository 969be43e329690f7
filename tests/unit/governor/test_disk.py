"""When a disk is full at its pace, and which run would fill it: nothing rather than a bad number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backprop.scheduler.governor.decide import Rule, decide
from backprop.scheduler.governor.disk import Growth, disk_of, full_in_s
from backprop.scheduler.governor.model import Need
from tests.support.governor_cases import HOST, LIMITS, machine

MINUTE_S = 60.0
GIB = 1024


def falling(per_minute_mib: float, minutes: int = 40, free_mib: int = 100 * GIB) -> list[tuple[float, int]]:
    return [(at * MINUTE_S, int(free_mib - at * per_minute_mib)) for at in range(minutes + 1)]


def test_a_steady_fall_ends_where_it_leads() -> None:
    readings = falling(1000)
    assert full_in_s(readings) == pytest.approx((100 * GIB - 40_000) / 1000 * MINUTE_S, rel=0.01)


def test_saves_in_steps_and_removals_between_are_a_pace_too() -> None:
    """A checkpoint of 5 GiB every four minutes; log files that come and go."""
    readings = [(at * MINUTE_S, 200 * GIB - at // 4 * 5 * GIB + at % 3 * 100) for at in range(61)]
    left_s = full_in_s(readings)
    assert left_s == pytest.approx((200 - 75) * 4 / 5 * MINUTE_S, rel=0.1)


@pytest.mark.parametrize(
    "readings",
    [
        [],
        falling(1000, minutes=15),
        falling(0),
        falling(-100),
        falling(1, free_mib=100 * GIB),
        [(at * MINUTE_S, 100 * GIB - (50 * GIB if at > 20 else 0)) for at in range(41)],
        [(at * MINUTE_S, 100 * GIB - min(at, 20) * 1000) for at in range(61)],
        [(at * 600.0, 100 * GIB - at * GIB) for at in range(8)],
        [(5.0, 100 - at) for at in range(40)],
    ],
    ids=[
        "none",
        "too short",
        "still",
        "growing",
        "far off",
        "one large file",
        "has stopped",
        "too few",
        "one moment",
    ],
)
def test_nothing_is_said_of_what_is_no_pace(readings: list[tuple[float, int]]) -> None:
    assert full_in_s(readings) is None


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 10**7)), max_size=200))
def test_whatever_was_read_a_time_is_ahead_and_not_far(readings: list[tuple[float, int]]) -> None:
    readings.sort()
    left_s = full_in_s(readings)
    assert left_s is None or 0 <= left_s <= 12 * (readings[-1][0] - readings[0][0])


def test_a_path_lies_on_the_nearest_disk() -> None:
    disks = (("/", 10), ("/data", 20), ("/data/nfs", None))
    assert disk_of("/data/a/b", disks) == ("/data", 20)
    assert disk_of("/data", disks) == ("/data", 20)
    assert disk_of("/database/x", disks) == ("/", 10)
    assert disk_of("/data/nfs/x", disks) == ("/data/nfs", None)
    assert disk_of("/x", ()) is None


@pytest.mark.parametrize(
    ("growth", "refused"),
    [
        (Growth("/data/out", 3 * GIB), True),
        (Growth("/data/out", GIB), False),
        (Growth("/data/out", 0), False),
        (Growth("/home/ada", 3 * GIB), False),
        (Growth("/data/nfs", 90 * GIB), False),
        (None, False),
    ],
)
def test_a_run_that_would_fill_its_disk_waits_and_is_told_why(growth: Growth | None, refused: bool) -> None:
    disks = (("/", 50 * GIB), ("/data", 4 * GIB), ("/data/nfs", None))
    now = replace(machine(), host=replace(HOST, disks=disks))
    decision = decide(Need(vram_mib=0, gpus=0), replace(LIMITS, growth=growth), now, (), 0)
    assert decision.admitted is not refused
    if refused:
        (denial,) = decision.denials
        assert denial.rule is Rule.DISK
        assert denial.text == (
            "would fill /data; 3 GiB a segment so far, 4 GiB free and 2 GiB to be left (minFreeDiskGB); free some, or"
            " keep fewer (--keep-checkpoints)"
        )
