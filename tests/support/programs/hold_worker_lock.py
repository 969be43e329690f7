"""Holds the lock of the worker "w1" in the folder argv[1], and sleeps."""

import sys
import time
from pathlib import Path

from backprop.worker.executor import locks

lock = locks.hold_worker_lock(Path(sys.argv[1]), "w1")
print("held", flush=True)
time.sleep(600)
