"""One look at the machine, for commands that need no worker."""

import time
from pathlib import Path

from backprop.scheduler import home as homes
from backprop.scheduler.home import Home
from backprop.scheduler.settings import load
from backprop.scheduler.snapshot import Snapshot
from backprop.worker.probes.client import read_once
from backprop.worker.probes.host import read_host


def look(home: Home, kind: str | None = None) -> Snapshot:
    """Read host and GPUs now; waits for a GPU driver 10 s at most. `kind`: of probe; None for the configured one.

    Disk space is that of the home, or of the folder it will be created in.
    """
    chosen = kind or load(Path.cwd(), homes.locate().root, None, {}).settings.gpu_probe.value
    place = home.root if home.root.exists() else home.root.parent
    return read_once(chosen).with_host(read_host(place), time.monotonic())
