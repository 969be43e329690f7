"""`backprop status`: shows the machine, the workers and the queue at a glance; with RUN, the same as `show`."""

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from backprop.cli.context import need_existing, open_existing
from backprop.cli.help.completion import complete_runs

if TYPE_CHECKING:
    from backprop.cli.render.machine_view import Overview

REFRESH_S: Final = 2.0


@click.command(name="status")
@click.argument("run", required=False, shell_complete=complete_runs)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@click.option(
    "--watch", is_flag=True, help="On a terminal, as `top`; else refresh every two seconds, until Ctrl-C."
)
def command(run: str | None, as_json: bool, watch: bool) -> int:
    """Show host, GPUs, workers and queue; or one RUN."""
    if run is not None:
        from backprop.cli.commands.show import show

        show(*need_existing(), run, as_json)
        return 0
    from backprop.cli.live.watch import can_redraw
    from backprop.cli.render.json_views import print_json
    from backprop.cli.render.machine_view import overview, view
    from backprop.worker.machine.reader import OneOffReader

    if watch and not as_json and can_redraw():
        from backprop.cli.commands import top

        return top.show(live=True)
    home, database = open_existing()
    reader = OneOffReader(home)
    try:
        while True:
            shown = overview(home, database, reader.read(), reader.settings)
            if as_json:
                print_json(view(shown))
            else:
                _print(shown)
            if not watch:
                return 0
            sys.stdout.flush()
            time.sleep(REFRESH_S)
    finally:
        reader.close()


def _print(shown: "Overview") -> None:
    from backprop.cli.options.run_selection import counted
    from backprop.cli.render.json_views import clock
    from backprop.cli.render.status_text import (
        GPU_COLUMNS,
        RIGHT,
        disk_lines,
        gpu_notes,
        gpu_row,
        mib,
        run_rows,
    )
    from backprop.cli.render.tables import print_pairs, print_table
    from backprop.scheduler.lifecycle import State

    host, snapshot = shown.snapshot.host, shown.snapshot
    load = "cannot be read" if host.load_1m is None else f"{host.load_1m:.2f} on {host.cores} cores"
    queue = ", ".join(f"{shown.counts[state]} {state}" for state in State if state in shown.counts) or "empty"
    no_gpu = (
        f"none can be read: {snapshot.problem}" if snapshot.problem else "none here: GPU rules do not apply"
    )
    # What it was started with says nothing where the user has set another number since.
    own = shown.slots is None or shown.slots.since_s is None
    workers = [
        f"{worker.id}, pid {worker.pid}, {f'at most {counted(worker.max_parallel)}, ' if own else ''}"
        f"since {clock(worker.started_at_s)}"
        for worker in shown.workers
    ] or ["none is running; start one with: backprop worker"]
    print_pairs(
        [
            ("RAM", f"{mib(host.ram_free_mib)} free of {mib(host.ram_total_mib)}"),
            ("load", load),
            ("disk", f"{mib(host.disk_free_mib)} free at {shown.home.root}"),
            *(("", line) for line in disk_lines(shown.full_at, time.time())),
            ("GPUs", f"{len(snapshot.gpus)}, read by {snapshot.source}" if snapshot.gpus else no_gpu),
            *(("worker" if not at else "", line) for at, line in enumerate(workers)),
            *_parallel(shown),
            ("queue", queue),
            *_starts(shown),
            *(("warning" if not at else "", line) for at, line in enumerate(shown.warnings)),
        ]
    )
    if shown.gpus:
        click.echo()
        print_table(GPU_COLUMNS, [gpu_row(view) for view in shown.gpus], GPU_COLUMNS[:-1])
        for line in gpu_notes(shown):
            click.echo(f"  {line}")
    if shown.live:
        click.echo()
        columns, rows = run_rows(shown, time.time())
        print_table(columns, rows, [column for column in columns if column in RIGHT])


def _parallel(shown: "Overview") -> list[tuple[str, str]]:
    """Return how many runs may run at once, where that is not what the workers were started with."""
    slots = shown.slots
    return [("parallel", slots.sentence())] if slots is not None and slots.since_s is not None else []


def _starts(shown: "Overview") -> list[tuple[str, str]]:
    """Return why nothing may start now; else, where hours are set, until when runs may start."""
    from backprop.scheduler.config import active_hours
    from backprop.scheduler.governor import opening

    if shown.closed is not None:
        return [("starts", f"none: {shown.closed}")]
    if not shown.active_hours:
        return []
    windows = active_hours.parse_all(shown.active_hours)
    return [
        (
            "starts",
            f"in activeHours ({'; '.join(shown.active_hours)}), {opening.opens_words(windows, time.time())}",
        )
    ]
