"""Reads the machine for the governor: the host at once, the GPUs as their helper process last reported them.

A worker reads again and again without waiting (`MachineReader`); a command reads once and waits (`read_machine`).
"""

import re
import select
import time
from typing import Final, Protocol

from backprop.scheduler.config.files import current_directory
from backprop.scheduler.config.settings import Settings, load
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.worker.context import Context
from backprop.worker.probes.client import GpuProbe
from backprop.worker.probes.host import read_host
from backprop.worker.probes.reading import Reading, unknown

FRESH_S: Final = 3.0
"""No decision is made on an older reading: memory is taken and returned within seconds."""
PATIENCE_S: Final = 0.5
"""How long an answer is awaited. A driver needs milliseconds, a sick one takes for ever; after that the GPUs count as
unknown, which holds back only the runs that need one."""

_NUMBER: Final = re.compile(r"\d+")


class MachineReadings(Protocol):
    """What `MachineReader.snapshot` is."""

    def __call__(self, fresh_s: float | None = None, /) -> Snapshot | None: ...


class MachineReader:
    """Reads GPUs only while asked to. It requests the first reading at once, so that it is there when needed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._probe = GpuProbe(context.settings.gpu_probe.value)
        self._read_s: float | None = None
        self._awaited_s: float | None = None
        self._trouble: dict[str, str] = {}
        self._given: tuple[float, Snapshot] | None = None
        self._probe.request(context.clock.monotonic_s())

    def pump(self) -> None:
        """Take an answer that has come. Call it once per tick; it never waits."""
        now_s = self._context.clock.monotonic_s()
        if (reading := self._probe.poll(now_s)) is not None:
            self._read_s = now_s
            self._report_trouble(reading)
        if self._probe.fileno() is None:
            self._awaited_s = None
        elif self._awaited_s is None:
            self._awaited_s = now_s

    def snapshot(self, fresh_s: float | None = None, /) -> Snapshot | None:
        """Return the machine now; None while a reading of its GPUs is awaited, which is not for long. `fresh_s`: how
        old that may be, if not `FRESH_S`."""
        self.pump()
        exactly, fresh_s = fresh_s is not None, FRESH_S if fresh_s is None else fresh_s
        now_s = self._context.clock.monotonic_s()
        old = self._read_s is None or (bool(self._probe.latest.gpus) and now_s - self._read_s > fresh_s)
        if old or self._probe.stale:
            self._probe.request(now_s)
            self.pump()
        reading = self._probe.latest
        if self._awaited_s is not None and (self._read_s is None or old):
            awaited_s = now_s - self._awaited_s
            if awaited_s < PATIENCE_S:
                return None
            reading = unknown(reading.gpus, f"the GPU driver has not answered for {awaited_s:.1f} s")
        elif exactly and old and self._read_s is not None and now_s - self._read_s > fresh_s:
            return None  # they were asked too short a time ago to be asked again
        taken_s = now_s if self._read_s is None else self._read_s
        snapshot = reading.with_host(read_host(self._context.home.root), taken_s)
        self._given = (now_s, snapshot)
        return snapshot

    def recent(self) -> Snapshot | None:
        """Return what was last read for a decision; None if that is longer ago than a decision may be. Reads
        nothing."""
        if self._given is None or self._context.clock.monotonic_s() - self._given[0] > FRESH_S:
            return None
        return self._given[1]

    def forget(self) -> None:
        """Decide nothing on the last reading: the machine has slept since."""
        self._read_s = None
        self._probe.request(self._context.clock.monotonic_s())

    def wake_fds(self) -> list[int]:
        """Return descriptors that become readable when an answer comes."""
        handle = self._probe.fileno()
        return [] if handle is None else [handle]

    def close(self) -> None:
        """End the helper process."""
        self._probe.close()

    def _report_trouble(self, reading: Reading) -> None:
        """Print once what is wrong with which GPU, and once that it no longer is."""
        now = {f"GPU {gpu.index} ({gpu.name})": gpu.error for gpu in reading.gpus if gpu.error is not None}
        if reading.problem is not None:
            now = {"the GPUs": reading.problem}
        for which, why in now.items():
            if _NUMBER.sub("", why) != _NUMBER.sub("", self._trouble.get(which, "")):
                self._context.console.event("trouble", more=f"{which} cannot be used: {why}")
        for which in self._trouble.keys() - now.keys():
            if reading.problem is None:
                self._context.console.event("recovered", more=f"{which} can be used again")
        self._trouble = now


class OneOffReader:
    """Reads host and GPUs as often as asked, through one helper. Close it."""

    def __init__(self, home: Home, settings: Settings | None = None) -> None:
        self.settings = settings or _settings_here()
        self._probe = GpuProbe(self.settings.gpu_probe.value)
        # Free disk is that of the home, or of the folder it will be created in.
        self._folder = home.root if home.root.exists() else home.root.parent

    def read(self) -> Snapshot:
        """Return the machine now; waits for a GPU driver 10 s at most."""
        while True:
            now_s = time.monotonic()
            self._probe.request(now_s)
            if (reading := self._probe.poll(now_s)) is not None:
                break
            if (handle := self._probe.fileno()) is None:
                reading = self._probe.latest
                break
            select.select([handle], [], [], 0.1)
        return reading.with_host(read_host(self._folder), time.monotonic())

    def close(self) -> None:
        self._probe.close()


def _settings_here() -> Settings:
    """Return the settings of this directory; without a project's where it was removed: the machine can be looked at
    from anywhere. Raises BadConfig."""
    try:
        cwd = current_directory()
    except BadCommand:
        cwd = None
    return load(cwd, layout.locate().root, None, {}).settings


def read_machine(home: Home, settings: Settings | None = None) -> Snapshot:
    """Read the machine once. `settings`: None for those of this directory."""
    reader = OneOffReader(home, settings)
    try:
        return reader.read()
    finally:
        reader.close()
