"""`backprop list`: every run and how far it is."""

import time

import click

from backprop.cli.session import open_existing
from backprop.cli.views import duration, number, print_json, run_view

DEFAULT_LIMIT = 50


@click.command(name="list")
@click.option("-n", "--limit", type=click.IntRange(min=0), default=DEFAULT_LIMIT, show_default=True,
              help="The newest N runs; 0 for all.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
def command(limit: int, as_json: bool) -> None:
    """List runs, newest first."""
    from backprop.scheduler import reads

    _, database = open_existing()
    runs = reads.list_runs(database, limit or None) if database is not None else []
    if as_json:
        newest = reads.newest_checkpoints(database, [run.id for run in runs]) if database is not None else {}
        print_json([run_view(run, last_checkpoint=newest.get(run.id)) for run in runs])
        return
    if database is None or not runs:
        click.echo("no runs yet; queue one with: backprop run SCRIPT", err=True)
        return
    from backprop.cli.table import print_table

    now_s = time.time()
    rows = [
        (
            run.id,
            run.name,
            run.state.value,
            str(run.segment),
            "-" if run.last_step is None else str(run.last_step),
            number(run.last_loss),
            duration(now_s - run.created_at_s),
            run.reason,
        )
        for run in runs
    ]
    print_table(
        ("ID", "NAME", "STATE", "SEG", "STEP", "LOSS", "AGE", "REASON"), rows, ("SEG", "STEP", "LOSS", "AGE")
    )
    if limit and len(runs) == limit:
        total = sum(reads.state_counts(database).values())
        if total > limit:
            click.echo(f"… and {total - limit} more; all of them with: backprop list -n 0", err=True)
