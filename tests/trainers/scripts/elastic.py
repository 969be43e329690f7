"""A launcher such as `torchrun`: two ranks, an agent that watches them, and exit code 1 when a signal ends it."""

import os
import signal
import subprocess
import sys
import time


class SignalException(Exception):
    pass


def terminate(number, frame):
    raise SignalException(number)


signal.signal(signal.SIGTERM, terminate)
signal.signal(signal.SIGINT, terminate)
ranks = [
    subprocess.Popen(
        [sys.executable, "-u", *sys.argv[1:]], env=dict(os.environ, RANK=str(rank), WORLD_SIZE="2")
    )
    for rank in range(2)
]
try:
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() not in (None, 0) for rank in ranks):
            raise SignalException("a rank failed")
        time.sleep(0.05)
except SignalException:
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signal.SIGTERM)
    for rank in ranks:
        rank.wait()
    sys.exit(1)
sys.exit(max(rank.returncode for rank in ranks))
