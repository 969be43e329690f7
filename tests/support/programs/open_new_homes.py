"""Opens twenty new homes below argv[2], each at a line on stdin, and adds the run argv[1]. Says "ready" before each."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import open_database
from tests.support.store_rows import add_run

run_id, root = sys.argv[1:]
for number in range(20):
    print("ready", flush=True)
    sys.stdin.readline()
    opened = open_database(layout.ensure(Home(Path(root) / str(number))))
    add_run(opened, run_id)
    opened.close()
