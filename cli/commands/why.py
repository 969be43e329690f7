"""`backprop why RUN`: each rule that keeps a run waiting, what it needs, what is there, and since when."""

import time
from typing import TYPE_CHECKING, Any

import click

from backprop.cli.completion import complete_runs
from backprop.cli.context import need_existing
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord, Waiting


@click.command(name="why")
@click.argument("run", shell_complete=complete_runs)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
def command(run: str, as_json: bool) -> None:
    """Say why RUN is where it is: for a waiting one, every rule that fails."""
    from backprop.cli.render.json_views import clock, iso, print_json
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.reads import queries, start_conditions
    from backprop.worker.executor.locks import worker_alive

    home, database = need_existing()
    found = queries.find_run(database, run)
    alive = any(worker_alive(home.locks, one.id) for one in queries.workers(database))
    before = start_conditions.reasons(database, found, time.time(), clock)
    if as_json:
        print_json(
            {
                "id": found.id,
                "state": found.state.value,
                "reason": found.reason,
                "worker_alive": alive,
                "not_before": iso(found.not_before_s or None),
                "waits": before,
                "rules": [_rule_view(one) for one in found.waiting],
            }
        )
        return
    click.echo(f"{found.id} {safe(found.name)} is {found.state}: {safe(found.reason)}")
    if found.state is not State.QUEUED:
        return
    for line in before:
        click.echo(safe(line))
    if not alive:
        click.echo("no worker is running; start one with: backprop worker")
    if before or not alive:
        return
    if found.waiting:
        _print_rules(found)
    else:
        click.echo("no worker has judged it yet; ask again in a moment")


def _print_rules(run: "RunRecord") -> None:
    from backprop.cli.render.json_views import duration
    from backprop.cli.render.tables import print_table

    now_s = time.time()
    rows = [
        (
            one.rule,
            "-" if one.gpu_index is None else str(one.gpu_index),
            _amount(one.needed),
            _amount(one.present),
            duration(max(now_s - one.since_s, 0.0)),
            one.text,
        )
        for one in run.waiting
    ]
    print_table(
        ("RULE", "GPU", "NEEDED", "PRESENT", "SINCE", "IN WORDS"), rows, ("GPU", "NEEDED", "PRESENT", "SINCE")
    )


def _rule_view(one: "Waiting") -> dict[str, Any]:
    from backprop.cli.render.json_views import iso

    return {
        "rule": one.rule,
        "gpu_index": one.gpu_index,
        "needed": one.needed,
        "present": one.present,
        "since": iso(one.since_s),
        "text": one.text,
    }


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:g}" if value < 1000 else f"{value:.0f}"
