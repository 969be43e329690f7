"""How much time ran since a stored moment, whatever was done to the wall clock and however long the machine slept."""

import pytest

from backprop.worker.clock import Clock

STORED_S = 1_000_000.0


class Hands(Clock):
    """Clocks set by hand: time runs, the wall clock is set, the machine sleeps."""

    def __init__(self) -> None:
        self.ran_s, self.set_by_s, self.asleep_s = 0.0, 0.0, 0.0

    def wall_s(self) -> float:
        return STORED_S + self.ran_s + self.set_by_s + self.asleep_s

    def monotonic_s(self) -> float:
        return 50.0 + self.ran_s

    def boot_s(self) -> float:
        return self.monotonic_s() + self.asleep_s


@pytest.fixture
def clock() -> Hands:
    clock = Hands()
    assert clock.since_s(STORED_S) == 0
    return clock


def test_time_that_runs_counts(clock: Hands) -> None:
    clock.ran_s += 600
    assert clock.since_s(STORED_S) == 600


@pytest.mark.parametrize("by_s", [86_400.0, -86_400.0, 5.0, -5.0])
def test_a_clock_that_is_set_neither_ages_nor_renews(clock: Hands, by_s: float) -> None:
    clock.ran_s += 60
    clock.set_by_s += by_s
    assert clock.since_s(STORED_S) == pytest.approx(60)
    clock.ran_s += 60
    assert clock.since_s(STORED_S) == pytest.approx(120)
    assert clock.since_s(clock.wall_s() - 20) == pytest.approx(20), "stored after the jump"


def test_a_sleep_does_not_count_and_is_told_once(clock: Hands) -> None:
    assert clock.slept_s() == 0
    clock.ran_s += 60
    clock.asleep_s += 28_800
    assert clock.slept_s() == 28_800
    assert clock.slept_s() == 0
    assert clock.since_s(STORED_S) == pytest.approx(60)


def test_a_clock_that_is_set_is_no_sleep(clock: Hands) -> None:
    clock.slept_s()
    clock.set_by_s += 28_800
    assert clock.slept_s() == 0


def test_several_jumps(clock: Hands) -> None:
    for by_s in (3600.0, -7200.0, 30.0):
        clock.ran_s += 10
        clock.set_by_s += by_s
        assert clock.slept_s() == 0
    clock.ran_s += 10
    assert clock.since_s(STORED_S) == pytest.approx(40)


def test_drift_counts_as_time(clock: Hands) -> None:
    for _ in range(100):
        clock.ran_s += 1
        clock.set_by_s += 0.001
        clock.slept_s()
    assert clock.since_s(STORED_S) == pytest.approx(100, abs=0.2)
