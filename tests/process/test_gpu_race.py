"""Many runs, few GPUs, several workers, all at once: memory is never promised or taken twice, and none lies idle."""

import threading
from collections.abc import Callable

from tests.support.fake_gpus import allocated, promised_mib, queue
from tests.support.fakes import FakeDriver, FakeGpu
from tests.support.harness import Bench, wait_until

TOTAL_MIB = 24_576
NEED_MIB = 6000


class Watcher(threading.Thread):
    """Looks at the GPUs without a pause, and keeps what it has seen."""

    def __init__(self, bench: Bench, driver: FakeDriver) -> None:
        super().__init__()
        self.most_at_once = 0
        self.wrong: list[str] = []
        self.looks = 0
        self._bench, self._driver = bench, driver
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            self._check("taken", lambda: allocated(self._driver))
            self._check("promised", lambda: {uuid: [mib] for uuid, mib in promised_mib(self._bench).items()})
            self.looks += 1

    def _check(self, what: str, look: Callable[[], dict[str, list[int]]]) -> None:
        held = look()
        if what == "taken":
            self.most_at_once = max(self.most_at_once, sum(len(amounts) for amounts in held.values()))
        for uuid, amounts in held.items():
            if sum(amounts) > TOTAL_MIB or len(amounts) > 4:
                self.wrong.append(f"{what} on {uuid}: {amounts}")

    def stop(self) -> None:
        self._over.set()
        self.join()


def test_sixteen_runs_on_two_gpus_by_four_workers(bench: Bench, driver: FakeDriver) -> None:
    driver.show(FakeGpu("GPU-aaaa", total=TOTAL_MIB), FakeGpu("GPU-bbbb", total=TOTAL_MIB))
    words = ("--gpu-min-vram", str(NEED_MIB), "--", "--mib", str(NEED_MIB), "--delay-s", "1", "--until", "go")
    runs = [queue(bench, *words) for _ in range(16)]
    watcher = Watcher(bench, driver)
    watcher.start()
    try:
        workers = [bench.worker("-p", "16", "--drain") for _ in range(4)]
        wait_until(
            lambda: watcher.most_at_once == 8,
            timeout_s=60,
            saw=lambda: f"{watcher.most_at_once} at once; {bench.output()}",
        )
        assert sorted(len(amounts) for amounts in allocated(driver).values()) == [4, 4]
        (bench.project / "go").touch()
        codes = [worker.wait(timeout=90) for worker in workers]
    finally:
        watcher.stop()
    assert codes == [0] * 4
    assert not watcher.wrong
    assert watcher.looks > 20
    assert watcher.most_at_once == 8
    shown = {run["id"]: run["state"] for run in bench.runs()}
    assert shown == dict.fromkeys(runs, "completed")
    for run in runs:
        assert "out of memory" not in bench.log(run)
        assert "allocated" in bench.log(run)
