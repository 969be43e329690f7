"""Writes to the database of the home argv[1] for argv[2] seconds, with a pause of argv[3] after each transaction."""

import sys
import time
from pathlib import Path

from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import open_database
from backprop.scheduler.store.schema import Run

opened = open_database(Home(Path(sys.argv[1])))
print("ready", flush=True)
end_s = time.monotonic() + float(sys.argv[2])
number = 0
while time.monotonic() < end_s:
    update = Run.update(last_step=number).where(Run.id == "heard")
    opened.write(lambda update=update: (update.execute(), time.sleep(0.005)))
    number += 1
    time.sleep(float(sys.argv[3]))
opened.close()
