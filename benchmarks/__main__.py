"""Prints every figure in one table, beside those of other tools: `python -m benchmarks`, from the repository's root.

Needs an installed `backprop` (not an editable one, whose finder costs every command some milliseconds) and the standard
library. Other tools are measured as far as they are installed: task-spooler (`tsp`), nq and GNU parallel from Debian;
gflow (package `runqd`) and huey from PyPI, looked for beside this interpreter, beside $PEERS_PYTHON, and on PATH.
"""

import argparse
import sys
import time

from benchmarks import commands, history, latency, peers, resting
from benchmarks.machine import machine
from benchmarks.sample import table
from benchmarks.tools import Backprop


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what Backprop costs.")
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that it works")
    parser.add_argument("--alone", action="store_true", help="without other tools")
    asked = parser.parse_args()
    quick = asked.quick
    print(machine(), end="\n\n", flush=True)
    begun_s = time.monotonic()
    missing = {tool: tool.missing() for tool in peers.TOOLS}
    tools = tuple(tool for tool in peers.TOOLS if missing[tool] is None)
    tools = (Backprop,) if asked.alone else tools
    rows = peers.measure(tools, *((3, 20, 2.0) if quick else (10, 200, 20.0)))
    for what, more in (
        ("start and gap", lambda: latency.measure(3 if quick else 20, 4 if quick else 21)),
        ("commands", lambda: commands.measure(3 if quick else 30)),
        (
            "listing",
            lambda: history.listing((100, 1000) if quick else (100, 10_000, 1_000_000), 3 if quick else 15),
        ),
        ("timeboxes", lambda: history.timeboxes(4 if quick else 50, 1.0)),
        ("at rest", lambda: resting.measure(3.0 if quick else 30.0)),
        ("suspended", lambda: resting.suspended(5 if quick else 200, 3.0 if quick else 30.0)),
    ):
        print(what, file=sys.stderr, flush=True)
        rows += more()
    print(table(rows, [tool.name for tool in tools]))
    for tool, why in missing.items():
        if why is not None and not asked.alone:
            print(f"\nnot measured: {tool.name}: {why}")
    print(f"\n{time.monotonic() - begun_s:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
