"""Samples of the machine and changes of the clock, in a real database, and when a worker takes them."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from backprop.scheduler.governor.model import Denial, Rule
from backprop.scheduler.governor.snapshot import Gpu, Host, Snapshot
from backprop.scheduler.lifecycle import State
from backprop.scheduler.records import NOT_DUE, NOTHING_QUEUED, ClockChange, Refusal, SampleRecord
from backprop.scheduler.store import samples
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import nights
from backprop.worker.clock import Clock
from backprop.worker.context import Context
from backprop.worker.machine import sampler
from backprop.worker.machine.sampler import Sampler
from tests.support.store_rows import add_run

HOST = Host(ram_free_mib=32_000, ram_total_mib=64_000, load_1m=1.5, cores=8, disk_free_mib=100_000)
DAY_S = 86400.0
HOT = Refusal("temperature", "GPU 0: 87 °C", 0)


def machine(*gpus: str) -> Snapshot:
    seen = tuple(
        Gpu(uuid, at, "RTX", 24_000, 20_000, 50, 90, False, 7, power_w=300.5) for at, uuid in enumerate(gpus)
    )
    return Snapshot(HOST, seen, "nvml", None, 0.0)


def kept(database: Database) -> list[SampleRecord]:
    return nights.samples(database, 0.0, 1e12)


def test_a_sample_says_what_the_machine_was_like_and_why_nothing_started(database: Database) -> None:
    add_run(database, "a", State.RUNNING)
    database.write(lambda: database._db.execute_sql("UPDATE segments SET gpu_uuids = '[\"GPU-1\"]'"))
    lost = replace(
        machine("GPU-0", "GPU-1").gpus[1], free_mib=None, temp_c=None, utilisation_pct=None, power_w=None
    )
    seen = replace(machine("GPU-0"), gpus=(*machine("GPU-0").gpus, lost))
    assert samples.keep(database, seen, 100.0, [HOT], {"GPU-0": 85})
    host, first, second = kept(database)
    assert (host.gpu_uuid, host.free_mib, host.refusals, host.run_ids) == (None, 32_000, (HOT,), ("a",))
    assert (first.gpu_uuid, first.gpu_index, first.gpu_name, first.total_mib) == ("GPU-0", 0, "RTX", 24_000)
    assert (first.free_mib, first.temp_c, first.limit_c, first.utilisation_pct) == (20_000, 50, 85, 7)
    assert (first.power_w, first.run_ids, first.refusals) == (300.5, (), None)
    assert (second.free_mib, second.temp_c, second.utilisation_pct, second.power_w) == (
        None,
        None,
        None,
        None,
    )
    assert (second.run_ids, second.limit_c) == (("a",), None)


def test_without_a_head_of_the_queue_the_sample_says_what_is_queued(database: Database) -> None:
    samples.keep(database, None, 100.0)
    add_run(database, "a")
    samples.keep(database, None, 200.0)
    assert [one.refusals for one in kept(database)] == [(NOTHING_QUEUED,), (NOT_DUE,)]


def test_samples_keep_their_distance_whoever_writes_them(database: Database) -> None:
    taken = [samples.keep(database, machine("GPU-0"), 1000.0 + at) for at in (0, 1, 29, 30, 31, 60)]
    assert taken == [True, False, False, True, False, True]
    assert samples.keep(database, machine("GPU-0"), 1061.0, at_once=True)
    assert [one.at_s for one in kept(database) if one.gpu_uuid is None] == [1000.0, 1030.0, 1060.0, 1061.0]


def test_a_clock_set_back_does_not_stop_them(database: Database) -> None:
    assert samples.keep(database, machine("GPU-0"), 5000.0)
    assert samples.keep(database, machine("GPU-0"), 1000.0)


def test_samples_are_thinned_after_two_days_and_kept_for_ninety(database: Database) -> None:
    now_s = 100 * DAY_S
    for age_s in (91 * DAY_S, 3 * DAY_S, 3 * DAY_S - 60, 3 * DAY_S - 400, 3600.0, 3540.0):
        samples.keep(database, machine("GPU-0"), now_s - age_s)
    samples.thin(database, now_s)
    ages = [now_s - one.at_s for one in kept(database) if one.gpu_uuid == "GPU-0"]
    assert ages == [3 * DAY_S, 3 * DAY_S - 400, 3600.0, 3540.0]
    # Of a machine with eight GPUs, a few tens of megabytes.
    whole = samples.THINNED_AFTER_S / samples.EVERY_S + samples.KEPT_S / samples.THINNED_TO_S
    assert whole * 9 < 300_000


def test_a_change_of_the_clock_is_noted_once_by_all_workers(database: Database) -> None:
    for at_s, by_s in ((1000.0, 3600.0), (1000.4, 3600.3), (1000.0, -30.0), (5000.0, 3600.0)):
        samples.note_clock_change(database, ClockChange(at_s, by_s, 0.0))
    assert [one.by_s for one in nights.clock_changes(database)] == [3600.0, -30.0, 3600.0]


# When a worker takes them


@dataclass
class HandClock(Clock):
    """Clocks that a test moves."""

    now_s: float = 10.0
    set_s: float = 1_000_000.0
    asleep_s: float = 0.0
    taken: list[float] = field(default_factory=list[float])

    def wall_s(self) -> float:
        return self.now_s + self.set_s + self.asleep_s

    def monotonic_s(self) -> float:
        return self.now_s

    def boot_s(self) -> float:
        return self.now_s + self.asleep_s


class Hand:
    """A sampler, its clock, and the reading that it finds."""

    def __init__(self, database: Database) -> None:
        self.database, self.clock = database, HandClock()
        self.snapshot: Snapshot | None = machine("GPU-0")
        settings = SimpleNamespace(gpu_max_temp_c=85)
        context: Any = SimpleNamespace(database=database, clock=self.clock, settings=settings)
        self.sampler = Sampler(cast("Context", context), lambda: self.snapshot)

    def tick(self, passed_s: float, *rules: Rule, stopping: bool = False) -> int:
        """Let time pass, tick, and return how many samples of the host there are then."""
        self.clock.now_s += passed_s
        denials = [Denial(rule, None, None, rule.value) for rule in rules]
        self.sampler.sample(denials, stopping=stopping)
        return sum(one.gpu_uuid is None for one in kept(self.database))


@pytest.fixture
def hand(database: Database) -> Hand:
    return Hand(database)


def test_a_worker_takes_a_sample_every_half_minute_and_when_the_reasons_change(hand: Hand) -> None:
    assert [hand.tick(0), hand.tick(2), hand.tick(27), hand.tick(1)] == [1, 1, 1, 2]
    assert hand.tick(1, Rule.RAM) == 2, "a change waits for a few seconds"
    assert hand.tick(sampler.LEAST_APART_S, Rule.RAM) == 3
    assert hand.tick(sampler.LEAST_APART_S, Rule.RAM) == 3
    assert hand.tick(sampler.LEAST_APART_S, stopping=True) == 4
    told = [one.refusals for one in kept(hand.database) if one.gpu_uuid is None]
    assert [refusals[0].rule for refusals in told if refusals] == [
        "nothing queued", "nothing queued", "free RAM", "stopping",
    ]  # fmt: skip


def test_a_worker_at_rest_notes_the_reasons_alone_and_seldom(hand: Hand) -> None:
    hand.snapshot = None
    assert [hand.tick(0), hand.tick(60), hand.tick(200), hand.tick(45)] == [1, 1, 1, 2]
    assert all(one.gpu_uuid is None and one.free_mib is None for one in kept(hand.database))


def test_a_clock_that_is_set_and_a_machine_that_sleeps_are_noted(hand: Hand) -> None:
    hand.tick(0)
    hand.tick(2)
    hand.clock.set_s += 3600
    hand.tick(2)
    hand.clock.asleep_s += 500
    hand.tick(2)
    hand.clock.set_s -= 7200
    hand.tick(2)
    changes = nights.clock_changes(hand.database)
    assert [(one.by_s, one.slept_s) for one in changes] == [(3600.0, 0.0), (500.0, 500.0), (-7200.0, 0.0)]
