"""Makes machines for probes to read, and reads them as a worker does."""

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backprop.worker.probes.client import GpuProbe
from backprop.worker.probes.reading import Reading
from tests.support.fakes import FakeDriver, FakeGpu

A = FakeGpu("GPU-aaaa", used=1000, reserved=500, temp=45, util=7)
B = FakeGpu("GPU-bbbb", used=20_000, temp=81)


class Machine:
    """A folder that stands for a machine without a GPU, and the probes that look at it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tools = root / "tools"
        self.tools.mkdir()
        self._probes: list[GpuProbe] = []

    def probe(self, driver: FakeDriver | None = None, kind: str = "auto", **options: object) -> GpuProbe:
        environment = options.pop("environment", None) or (
            driver.environment() if driver else dict(os.environ)
        )
        defaults = {"deadline_s": 10.0, "interval_s": 0.0, "retry_s": 0.01, "back_off_s": 0.01} | options
        where = ("--root", str(self.root), "--tool-folder", str(self.tools))
        probe = GpuProbe(kind, environment=environment, helper_options=where, **defaults)
        self._probes.append(probe)
        return probe

    def close(self) -> None:
        for probe in self._probes:
            probe.close()


def read(probe: GpuProbe, within_s: float = 30.0) -> Reading:
    """Return one more reading, as a worker's loop gets it."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        now_s = time.monotonic()
        probe.request(now_s)
        if (reading := probe.poll(now_s)) is not None:
            return reading
        fd = probe.fileno()
        select.select([] if fd is None else [fd], [], [], 0.02)
    pytest.fail(f"no reading in {within_s} s; last: {probe.latest}")


def read_until(probe: GpuProbe, right: Callable[[Reading], bool], within_s: float = 30.0) -> Reading:
    end_s = time.monotonic() + within_s
    while not right(reading := read(probe)):
        assert time.monotonic() < end_s, f"never came; last: {reading}"
        time.sleep(0.02)
    return reading


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
