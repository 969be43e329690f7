"""Migrates the database argv[1] by two steps, and kills itself in the middle of the second."""

import os
import signal
import sqlite3
import sys
from pathlib import Path

from backprop.migrations import runner

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
steps = [("CREATE TABLE a (x)",), ("CREATE TABLE b (x)", "SELECT die()")]
runner.migrate(connection, Path(sys.argv[1]), steps)
