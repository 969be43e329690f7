"""Two homes share one GPU: together they never promise more than it has, whichever worker dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backprop.worker.executor.board import VARIABLE, Board
from tests.support import gpu_turns
from tests.support.fake_gpus import QUICK, allocated, impatient, promised_mib, queue, status, wait_for_reason
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.harness import Bench, alive, wait_until

NEED_MIB = 10_000
TOTAL_MIB = 24_576


@pytest.fixture
def neighbour(bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """Another home on the same machine."""
    made = Bench(tmp_path / "neighbour")
    made.environment["BACKPROP_BOARD"] = bench.environment["BACKPROP_BOARD"]
    try:
        yield made
    finally:
        made.close()


def test_four_runs_of_two_homes_where_two_fit(
    bench: Bench, neighbour: Bench, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, bench.environment[VARIABLE])
    driver.show(FakeGpu("GPU-aaaa", total=TOTAL_MIB))
    homes = (bench, neighbour)
    neighbour.environment |= {name: bench.environment[name] for name in ("LD_LIBRARY_PATH", "FAKE_NVML_DIR")}
    words = ("--gpu-min-vram", str(NEED_MIB), "--", "--mib", str(NEED_MIB), "--delay-s", "0.5", "--until")
    runs = [(home, queue(home, *words, f"go-{number}")) for number in range(2) for home in homes]
    workers = {home: home.worker("-p", "4", command=impatient(*QUICK)) for home in homes}

    def running() -> list[tuple[Bench, str]]:
        assert sum(sum(promised_mib(home).values()) for home in homes) <= TOTAL_MIB
        assert sum(len(amounts) for amounts in allocated(driver).values()) <= 2
        return [(home, run) for home, run in runs if home.state(run) == "running"]

    wait_until(lambda: len(running()) == 2, saw=lambda: f"{bench.output()}{neighbour.output()}")
    started = running()
    for home, run in started:
        home.wait_for_log(run, "allocated")
    home, run = started[0]
    other, its = next((one, its) for one, its in runs if one is not home and (one, its) not in started)
    assert "GPU 0: needs 9.8 GiB; " in wait_for_reason(other, its, "promised by another home")
    assert "promised by another home" in other.backprop("why", its, "--json").stdout
    assert status(other)["gpus"][0]["promised_elsewhere_mib"] >= NEED_MIB

    # Worker and supervisor are gone: the leader keeps the promise.
    workers[home].send_signal(signal.SIGKILL)
    workers[home].wait()
    os.kill(supervisor := home.supervisor(run), signal.SIGKILL)
    wait_until(lambda: not alive(supervisor))
    board = Board(other.home)
    assert len(board.others()) == sum(one is home for one, _ in started)
    assert sorted(running(), key=str) == sorted(started, key=str)
    os.kill(home.leader(run), signal.SIGKILL)
    other.wait_for_log(its, "allocated")
    assert len(allocated(driver)["GPU-aaaa"]) == 2
    for one in homes:
        for number in range(2):
            (one.project / f"go-{number}").touch()
    wait_until(lambda: not home.left() and not board.others(), saw=home.left)


def test_vram_in_ram_leaves_its_place_to_another_home_and_waits_for_it(
    bench: Bench, neighbour: Bench, driver: FakeDriver
) -> None:
    driver.show(gpu_turns.CARD)
    neighbour.environment |= {name: bench.environment[name] for name in ("LD_LIBRARY_PATH", "FAKE_NVML_DIR")}
    gpu_turns.prove(bench)
    mine = gpu_turns.queue(bench, "a", 100_000, "-m", "10")
    bench.worker(command=gpu_turns.QUICK)
    wait_until(lambda: gpu_turns.step_of(bench, mine) > 5, saw=bench.output)
    other = gpu_turns.queue(neighbour, "b", 100_000, "-m", "10")
    neighbour.worker(command=gpu_turns.QUICK)
    wait_for_reason(neighbour, other, "promised by another home")
    assert bench.backprop("suspend", mine).returncode == 0
    assert gpu_turns.is_out(bench, driver, mine)
    wait_until(lambda: gpu_turns.step_of(neighbour, other) > 5, saw=neighbour.output)
    at = gpu_turns.step_of(bench, mine)
    assert bench.backprop("unsuspend", mine).returncode == 0
    wait_for_reason(bench, mine, "promised by another home")
    assert (bench.state(mine), gpu_turns.step_of(bench, mine)) == ("suspended", at)
    assert neighbour.backprop("stop", other).returncode == 0
    wait_until(lambda: gpu_turns.step_of(bench, mine) > at, saw=bench.output)
    late = gpu_turns.queue(neighbour, "c", 100_000, "-m", "10")
    wait_for_reason(neighbour, late, "promised by another home")
    for home, run in ((bench, mine), (neighbour, late)):
        assert home.backprop("stop", run).returncode == 0
        home.wait_for(run, "stopped")
