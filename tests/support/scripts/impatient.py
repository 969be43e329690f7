"""Runs the `backprop` command with shorter waits: what waits for minutes then waits for a second.

    python impatient.py scheduler.governor.gpu_quarantine.PATIENCE_S=1 -- worker --drain

GpuProbe.NAME=S and Database.patience_s=S set the default of one of their arguments.
"""

import sys
from importlib import import_module

from backprop.cli.main import main
from backprop.scheduler.store.connection import Database, open_database
from backprop.worker.probes.client import GpuProbe

at = sys.argv.index("--")
for setting in sys.argv[1:at]:
    name, _, value = setting.partition("=")
    module, _, constant = name.rpartition(".")
    if module == "GpuProbe":
        assert constant in (GpuProbe.__init__.__kwdefaults__ or {})
        GpuProbe.__init__.__kwdefaults__[constant] = float(value)
    elif name == "Database.patience_s":
        open_database.__defaults__ = Database.__init__.__defaults__ = (float(value),)
    else:
        there = import_module(f"backprop.{module}")
        setattr(there, constant, type(getattr(there, constant))(float(value)))
sys.argv[1 : at + 1] = []
sys.exit(main())
