"""Two agents queue into one GPU at the same time: it is never overbooked, no run has a twin, and in one home both
get their turns.

Each is a program without a model that asks for everything twice, as one does that was killed before it saw the answer.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_gpus import HOST_IS_FINE, QUICK, allocated, impatient, promised_mib
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.harness import COMMAND, SCRIPTS, Bench, wait_until

TOTAL_MIB = 24_576
NEED_MIB = 10_000
EACH = 4
AGENT = f"""
import json, subprocess, sys
name = sys.argv[1]
for number in range({EACH}):
    for again in range(2):
        subprocess.run(
            ["{COMMAND}", "run", "--json", "--key", f"{{name}}-{{number}}", "-n", f"{{name}}-{{number}}",
             *{HOST_IS_FINE!r}, "--gpu-min-vram", "{NEED_MIB}", "{SCRIPTS / "gpu_trainer.py"}", "--",
             "--mib", "{NEED_MIB}",
             "--delay-s", "0.3", "--until", "go"],
            check=True, stdout=subprocess.DEVNULL,
        )
"""


@pytest.fixture
def neighbour(bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """Another home on the same machine."""
    made = Bench(tmp_path / "neighbour")
    made.environment["BACKPROP_BOARD"] = bench.environment["BACKPROP_BOARD"]
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("homes", [1, 2], ids=["one home", "two homes"])
def test_two_agents_share_one_gpu(bench: Bench, neighbour: Bench, driver: FakeDriver, homes: int) -> None:
    driver.show(FakeGpu("GPU-aaaa", total=TOTAL_MIB))
    neighbour.environment |= {name: bench.environment[name] for name in ("LD_LIBRARY_PATH", "FAKE_NVML_DIR")}
    of_agent = {"a": bench, "b": bench if homes == 1 else neighbour}
    used = [bench] if homes == 1 else [bench, neighbour]
    for home in used:
        home.worker("-p", "4", command=impatient(*QUICK))
        (home.project / "go").touch()
        wait_until(lambda home=home: "ready" in home.output())
    agents = [
        subprocess.Popen([sys.executable, "-c", AGENT, name], env=home.environment, cwd=home.project)
        for name, home in of_agent.items()
    ]
    order: list[str] = []

    def all_done() -> bool:
        promised = [promised_mib(home) for home in used]
        if [promised_mib(home) for home in used] == promised:  # two homes are not read in one moment
            assert sum(one.total() for one in promised) <= TOTAL_MIB
        held = allocated(driver)
        assert sum(map(sum, held.values())) <= TOTAL_MIB, "taken twice"
        for home in used:
            order.extend(one["name"] for one in _ended(home) if one["name"] not in order)
        return all(agent.poll() == 0 for agent in agents) and len(order) == 2 * EACH

    try:
        wait_until(all_done, timeout_s=100, saw=lambda: f"{order} {[home.output() for home in used]}")
    finally:
        for agent in agents:
            agent.terminate()
            agent.wait()
    runs = [one for home in used for one in home.runs()]
    assert sorted(one["name"] for one in runs) == sorted(
        f"{name}-{at}" for name in "ab" for at in range(EACH)
    )
    for home in used:
        for one in home.runs():
            assert one["state"] == "completed", one
            assert "out of memory" not in home.log(one["id"])
    if homes == 2:
        return  # homes know each other's promises, and no turns of each other
    # Neither has finished its own before the other has begun to.
    first = {name: next(at for at, run in enumerate(order) if run[0] == name) for name in "ab"}
    last = {name: max(at for at, run in enumerate(order) if run[0] == name) for name in "ab"}
    assert first["a"] < last["b"]
    assert first["b"] < last["a"]


def _ended(home: Bench) -> list[dict[str, str]]:
    return json.loads(home.backprop("list", "-n", "0", "--state", "completed,failed", "--json").stdout)
