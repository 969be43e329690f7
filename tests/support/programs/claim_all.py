"""Claims queued runs of the home argv[1] as the worker argv[2] until none is left, and prints their ids.

Prints "ready" first, and begins when a line comes on stdin.
"""

import sys
from pathlib import Path

from backprop.scheduler.errors import LostRace
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import open_database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims

root, worker = sys.argv[1:]
database = open_database(Home(Path(root)))
print("ready", flush=True)
sys.stdin.readline()
own: list[str] = []
while True:
    serial, _ = queries.live_segments(database)
    waiting = queries.queue(database, 10.0, limit=5)
    if not waiting:
        break
    for run in waiting:
        try:
            if claims.claim(database, [claims.Claim(run=run, worker=worker, serial=serial)], 10.0) == [None]:
                break
        except LostRace:
            break
        own.append(run.id)
        serial += 1
database.close()
print(*own)
