"""Has a scanner look at the checkpoints of a run."""

import time

from backprop.worker.checkpoints import scanner
from backprop.worker.checkpoints.scanner import CheckpointScanner
from tests.support.harness import wait_until
from tests.support.unannounced_run import names


def looks(worker: CheckpointScanner, for_s: float = 0.5) -> list[str]:
    """Return all that a series of looks finds."""
    found: list[str] = []
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        found += names(worker.scan())
        time.sleep(0.02)
    return found


def until_found(worker: CheckpointScanner, count: int = 1) -> list[scanner.ScannedCheckpoint]:
    """Scan until so many are found: files that were written one after the other settle one after the other."""
    found: list[scanner.ScannedCheckpoint] = []
    wait_until(lambda: found.extend(worker.scan()) or len(found) >= count)
    return found
