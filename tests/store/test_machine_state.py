"""One assembler for the machine's state: what a worker knows of other programs, every other process knows too."""

from pathlib import Path

import pytest

from backprop.scheduler.config.settings import DEFAULTS
from backprop.scheduler.governor.decide import Need
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.governor.vram import PEAK_HOLD_S, PEAK_REFRESH_S
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store import gpu_history
from backprop.scheduler.store.connection import Database
from backprop.worker.clock import Clock
from backprop.worker.console.console import Console
from backprop.worker.context import Context
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.machine.monitor import RuntimeMonitor
from backprop.worker.machine.state import MachineState, read_state
from tests.support.governor_cases import GIB, LIMITS, NoReader, gpu, machine

NOW_S = 1_800_000_000.0
NEED = Need(vram_mib=7 * GIB, source="declared")
REFUSED = "GPU 0: needs 7 GiB; 6 of 24 GiB free (18 lately used by other programs)"


class Hands(Clock):
    """Two clocks set by hand. Each process of a boot shares the monotonic one; the wall clock may be set."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.set_by_s = 0.0

    def wall_s(self) -> float:
        return NOW_S + self.passed_s + self.set_by_s

    def monotonic_s(self) -> float:
        return 50.0 + self.passed_s


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def monitor(database: Database, clock: Hands) -> RuntimeMonitor:
    return new_monitor(database, clock)


def new_monitor(database: Database, clock: Clock) -> RuntimeMonitor:
    home = database.home
    context = Context(home, database, LocalExecutor(home), "w1", DEFAULTS, clock, Console(quiet=True))
    return RuntimeMonitor(context, NoReader())


def used(mib: int, *pids: int) -> Snapshot:
    return machine(gpu(free=24 * GIB - mib, used_by_pid=tuple((pid, None) for pid in pids)))


def observe(monitor: RuntimeMonitor, clock: Hands, seconds: int, mib: int, *pids: int) -> MachineState:
    """Let a worker read the machine every two seconds; return its last state."""
    for _ in range(seconds // 2):
        state = monitor.read_state(used(mib, *pids))
        clock.passed_s += 2
    return state


def seen_by_a_command(database: Database, clock: Clock, snapshot: Snapshot) -> MachineState:
    return read_state(database, snapshot, LocalExecutor(database.home), DEFAULTS, clock)


def test_a_command_refuses_what_the_worker_refuses(
    database: Database, clock: Hands, monitor: RuntimeMonitor
) -> None:
    """Somebody's job pauses and returns most of its memory; only who has watched it knows that it will be back."""
    observe(monitor, clock, 30, 18 * GIB, 42)
    worker = observe(monitor, clock, 30, 2 * GIB, 42)
    command = seen_by_a_command(database, clock, used(2 * GIB, 42))
    for state in (worker, command):
        assert state.decide(NEED, LIMITS).sentence() == REFUSED
        memory = state.room(state.snapshot.gpus[0])
        assert memory is not None
        assert (memory.foreign_mib, memory.available_mib) == (18 * GIB, 6 * GIB)


def test_a_peak_ends_with_its_process_or_in_time_for_a_command_too(
    database: Database, clock: Hands, monitor: RuntimeMonitor
) -> None:
    observe(monitor, clock, 30, 18 * GIB, 42)
    gone = seen_by_a_command(database, clock, used(0))
    assert gone.decide(NEED, LIMITS).admitted
    clock.passed_s += PEAK_HOLD_S
    late = seen_by_a_command(database, clock, used(2 * GIB, 42))
    assert late.decide(NEED, LIMITS).admitted


def test_a_long_peak_does_not_grow_old_in_the_database(
    database: Database, clock: Hands, monitor: RuntimeMonitor
) -> None:
    observe(monitor, clock, int(3 * PEAK_HOLD_S), 18 * GIB, 42)
    command = seen_by_a_command(database, clock, used(2 * GIB, 42))
    assert command.decide(NEED, LIMITS).sentence() == REFUSED


def test_the_next_worker_knows_what_the_last_one_saw(
    database: Database, clock: Hands, monitor: RuntimeMonitor
) -> None:
    observe(monitor, clock, 30, 18 * GIB, 42)
    successor = new_monitor(database, clock)
    state = observe(successor, clock, 60, 2 * GIB, 42)
    assert state.decide(NEED, LIMITS).sentence() == REFUSED
    assert observe(successor, clock, 4, 0).decide(NEED, LIMITS).admitted
    assert seen_by_a_command(database, clock, used(2 * GIB, 43)).decide(NEED, LIMITS).admitted


@pytest.mark.parametrize("set_by_s", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_neither_keeps_a_peak_nor_loses_it_for_long(
    database: Database, clock: Hands, monitor: RuntimeMonitor, set_by_s: float
) -> None:
    observe(monitor, clock, 30, 18 * GIB, 42)
    clock.set_by_s = set_by_s
    observe(monitor, clock, 4, 18 * GIB, 42)
    assert not seen_by_a_command(database, clock, used(2 * GIB, 42)).decide(NEED, LIMITS).admitted
    observe(monitor, clock, int(2 * PEAK_HOLD_S), 2 * GIB, 42)
    assert seen_by_a_command(database, clock, used(2 * GIB, 42)).decide(NEED, LIMITS).admitted


def test_peaks_are_written_when_they_change_and_not_every_reading(
    database: Database, clock: Hands, monitor: RuntimeMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = 0
    record = gpu_history.record_foreign_peaks

    def counting(*words: object) -> None:
        nonlocal writes
        writes += 1
        record(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(gpu_history, "record_foreign_peaks", counting)
    observe(monitor, clock, 600, 0)
    assert writes == 0
    for at in range(300):
        observe(monitor, clock, 2, 18 * GIB + at % 7, 42, 43 + at)
    assert writes <= 1 + 600 / PEAK_REFRESH_S
    assert len(gpu_history.foreign_peaks(database)) == 1


def test_a_machine_without_a_queue_has_a_state(clock: Hands, tmp_path: Path) -> None:
    state = read_state(None, used(18 * GIB, 42), LocalExecutor(Home(tmp_path / "none")), DEFAULTS, clock)
    assert (state.segments, state.quarantined, state.opening.closed) == ([], {}, None)
    assert not state.decide(NEED, LIMITS).admitted
