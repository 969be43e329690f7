"""Lets a command wake sleeping workers at once: a byte in a worker's FIFO means "read the queue now".

A follower (`backprop run --follow` without a worker) is a worker for one run only. It is woken like any other, but
starts nothing else.
"""

from pathlib import Path
from typing import Final

from backprop.scheduler.home.wake_pipes import is_read

FOLLOWER: Final = "follow-"
"""Prefix of the id of a worker that serves one run only."""


def wake_path(locks: Path, worker: str) -> Path:
    """Return the path of a worker's FIFO. `locks`: the home's folder of locks."""
    return locks / f"worker-{worker}.wake"


def wake_workers(locks: Path) -> int:
    """Wake every living worker of this home; return how many of them start whatever is queued: all but followers."""
    woken = [path for path in locks.glob("worker-*.wake") if is_read(path, b".")]
    return sum(not path.name.startswith(f"worker-{FOLLOWER}") for path in woken)


def any_alive(locks: Path) -> bool:
    """Return whether a worker of this home is alive, a follower included, and wake none."""
    return any(is_read(path) for path in locks.glob("worker-*.wake"))
