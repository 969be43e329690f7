"""Executes argv[2] with the home of argv[1] and the names below at hand, as a process beside the one that tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from backprop.scheduler.errors import DatabaseBusy
from backprop.scheduler.home import layout
from backprop.scheduler.home.layout import Home
from backprop.scheduler.store.connection import open_database
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.schema import Run
from tests.support.store_rows import SPEC, add_run, enqueue_run

NAMES = {
    "DatabaseBusy": DatabaseBusy,
    "Run": Run,
    "SPEC": SPEC,
    "add_run": add_run,
    "enqueue_run": enqueue_run,
    "home": Home(Path(sys.argv[1])),
    "layout": layout,
    "open_database": open_database,
    "queries": queries,
}
exec(compile(sys.argv[2], "snippet", "exec"), NAMES)
