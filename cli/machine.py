"""One look at the machine, for commands that need no worker."""

import select
import time
from pathlib import Path

from backprop.scheduler import home as homes
from backprop.scheduler.home import Home
from backprop.scheduler.settings import Settings, load
from backprop.scheduler.snapshot import Snapshot
from backprop.worker.probes.client import GpuProbe
from backprop.worker.probes.host import read_host


class Machine:
    """Reads host and GPUs as often as asked, through one helper. Close it."""

    def __init__(self, home: Home, settings: Settings | None = None) -> None:
        self.settings = settings or load(Path.cwd(), homes.locate().root, None, {}).settings
        self._probe = GpuProbe(self.settings.gpu_probe.value)
        # Disk space is that of the home, or of the folder it will be created in.
        self._place = home.root if home.root.exists() else home.root.parent

    def look(self) -> Snapshot:
        """The machine now; waits for a GPU driver 10 s at most."""
        while True:
            now_s = time.monotonic()
            self._probe.request(now_s)
            if (reading := self._probe.poll(now_s)) is not None:
                break
            if (handle := self._probe.fileno()) is None:
                reading = self._probe.latest
                break
            select.select([handle], [], [], 0.1)
        return reading.with_host(read_host(self._place), time.monotonic())

    def close(self) -> None:
        self._probe.close()


def look(home: Home, settings: Settings | None = None) -> Snapshot:
    """One look. `settings`: None for those of this directory."""
    machine = Machine(home, settings)
    try:
        return machine.look()
    finally:
        machine.close()
