"""Moves the VRAM of one process, as its segment's folder orders: `python -I -S <this folder> SEGMENT_FOLDER`.

    vram.json         read      the worker's order: whose VRAM, out or in, and by when; with a number
    vram.lock         held      for as long as this program lives: somebody is moving VRAM, everybody else waits
    vram-answer.json  written   where the process stands, with the number of the order and what failed

Nobody kills it: a caller that ends in the middle of a call leaves the process out of step with the driver. What it
finds half done it takes up. Past its deadline the worker has given it up, so what it was to move out comes back in.
With `--canary MIB` it is the process whose VRAM is moved to find out whether a driver can do it. Standard library and
the supervisor's own modules only; a worker starts it in a session of its own.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "supervisor"))

import canary
import files
import process_tree
from libcuda import Driver, NoCuda
from moves import UNKNOWN, Mover, Outcome

ORDER, LOCK, ANSWER = "vram.json", "vram.lock", "vram-answer.json"
FORMAT = 1
LOCK_MS = 10_000
"""How long a process's own work on the GPU is waited for."""
USAGE = "usage: python -I -S worker/executor/vram/mover SEGMENT_FOLDER | --canary MIB"
EXIT_TAKEN = 3
"""Another such program is at work on this segment."""
EXIT_NO_ORDER = 4


def main(folder: Path) -> int:
    """Carry out the order in `folder`; return the exit code. Raises OSError when the answer cannot be written."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    if _lock(folder / LOCK) is None:
        return EXIT_TAKEN
    order = files.read_if_possible(folder / ORDER)
    if order is None or order.get("format") != FORMAT or order.get("boot_id") != process_tree.boot_id():
        return EXIT_NO_ORDER
    number, pid, ticks, wanted = (order.get(name) for name in ("number", "pid", "start_ticks", "wanted"))
    if not (isinstance(number, int) and isinstance(pid, int) and isinstance(ticks, int)):
        return EXIT_NO_ORDER
    target = process_tree.Process(pid, ticks)
    begun_s = time.monotonic()
    until_s = process_tree.of_this_boot(order, "until_monotonic_s")

    def is_late() -> bool:
        return until_s is not None and time.monotonic() > until_s

    outcome, what = Outcome(UNKNOWN), None
    try:
        mover = Mover(Driver(), pid, LOCK_MS, lambda: process_tree.alive(target))
        outcome = mover.out(is_late) if wanted == "out" else mover.into()
        what = str(outcome.error) if outcome.error is not None else None
    except NoCuda as error:
        what = str(error)
    answer: dict[str, object] = {
        "boot_id": process_tree.boot_id(),
        "number": number,
        "wanted": wanted,
        "reached": outcome.reached,
        "error": outcome.error.code if outcome.error is not None else None,
        "what": what,
        "seconds": time.monotonic() - begun_s,
        "mib": order.get("mib"),
        "is_late": is_late(),
    }
    files.write(folder / ANSWER, answer, durable=False)
    return 0


def _lock(path: Path) -> int | None:
    """Lock a file for the rest of this process's life; None when another process holds it. Raises OSError."""
    handle = files.open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return handle


def _run(words: Sequence[str]) -> int:
    if list(words) in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if len(words) == 2 and words[0] == "--canary" and words[1].isdecimal():
        return canary.main(int(words[1]))
    if len(words) != 1 or words[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 2
    return main(Path(words[0]))


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
