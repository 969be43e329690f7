"""`backprop why RUN`: shows each rule that refuses a waiting run: what it needs, what there is, and since when."""

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import click

from backprop.cli.context import NO_WORKER, need_existing, silent_workers
from backprop.cli.help.completion import complete_runs
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backprop.cli.render.slots import Slots
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord, Waiting
    from backprop.scheduler.store.connection import Database

SHOWN_LIVE: Final = 8


@click.command(name="why")
@click.argument("run", shell_complete=complete_runs)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
def command(run: str, as_json: bool) -> None:
    """Say why RUN is where it is: for a waiting one, every rule that fails."""
    from backprop.cli.render.json_views import clock, iso, print_json
    from backprop.cli.render.slots import slots_of
    from backprop.scheduler.lifecycle import State
    from backprop.scheduler.store.reads import queries, start_conditions
    from backprop.worker.executor.locks import worker_alive

    home, database = need_existing()
    waiting = (State.QUEUED, State.SUSPENDED)
    record = queries.find_run(database, run)
    living = [worker for worker in queries.workers(database) if worker_alive(home.locks, worker.id)]
    alive, slots = bool(living), slots_of(database, living)
    silent = silent_workers(home)
    before = start_conditions.reasons(database, record, time.time(), clock)
    blocking = _blocking(home, queries.live_runs(database)) if record.state in waiting else []
    if as_json:
        print_json(
            {
                "id": record.id,
                "state": record.state.value,
                "reason": record.reason,
                "worker_alive": alive,
                "silent_workers": silent,
                "not_before": iso(record.not_before_s or None),
                "waits": before,
                "rules": [_rule_view(rule) for rule in record.waiting],
                "parallel": None if slots is None else slots.view(),
                "blocked_by": [{"id": one.id, "reason": one.reason} for one in blocking],
            }
        )
        return
    click.echo(f"{record.id} {safe(record.name)} is {record.state}: {safe(record.reason)}")
    for line in silent:
        click.echo(line)
    if record.state not in waiting:
        return
    for line in before:
        click.echo(safe(line))
    if not alive:
        click.echo(NO_WORKER)
    for line in _place(home, database, record):
        click.echo(safe(line))
    if before or not alive:
        return
    if record.waiting:
        _print_rules(record)
        if slots is not None and (said := _of_slots(record, slots)):
            click.echo(safe(said))
        for one in blocking:
            click.echo(safe(f"{one.name} ({one.id}) {one.reason}; to free its place: backprop stop {one.id}"))
    else:
        click.echo("no worker has judged it yet; ask again in a moment")


def _place(home: "Home", database: "Database", run: "RunRecord") -> list[str]:
    """Return its place in the queue, and when the runs that have its room give it back."""
    from backprop.cli.render import outlook
    from backprop.cli.render.box_ends import boxes_left
    from backprop.cli.render.run_rows import clock_face
    from backprop.scheduler.store.reads import listing, queries

    now_s = time.time()
    ahead = listing.ahead_of(database, run)
    lines = [f"{ahead:,} queued run{'' if ahead == 1 else 's'} before it" if ahead else "it is next in turn"]
    shown = queries.live_runs(database)[:SHOWN_LIVE]
    left = boxes_left(home, shown, queries.live_segments(database)[1], now_s)
    for live in shown:
        left_s = left.get(live.id)
        if left_s is None:
            lines.append(f"{live.name} ({live.id}) runs without a timebox")
        elif left_s > 0:
            lines.append(f"{live.name} ({live.id}) runs; its box ends in {clock_face(left_s)}")
    end = outlook.end_words(outlook.outlook(home, database, now_s), run.id, now_s)
    return [*lines, *([f"it will have ended {end}"] if end != "?" else [])]


def _blocking(home: "Home", live: "Sequence[RunRecord]") -> "list[RunRecord]":
    """Return the runs that keep their places past their timeboxes."""
    from backprop.worker.executor.box_files import goes_past

    found: list[RunRecord] = []
    for run in live:
        with contextlib.suppress(OSError):
            if goes_past(home.segment_folder(run.id, run.segment)):
                found.append(run)
    return found


def _of_slots(run: "RunRecord", slots: "Slots") -> str:
    """Return who has decided how many runs may run at once, where that keeps the run from starting."""
    from backprop.cli.render.slots import CHANGE
    from backprop.scheduler.governor.model import Rule

    full = any(rule.rule == Rule.PARALLEL and rule.needed == slots.at_most for rule in run.waiting)
    return f"{slots.sentence()}; {CHANGE}" if full else ""


def _print_rules(run: "RunRecord") -> None:
    from backprop.cli.render.json_views import duration
    from backprop.cli.render.tables import print_table

    now_s = time.time()
    rows = [
        (
            rule.rule,
            "-" if rule.gpu_index is None else str(rule.gpu_index),
            _amount(rule.needed),
            _amount(rule.present),
            duration(now_s - rule.since_s),
            rule.text,
        )
        for rule in run.waiting
    ]
    print_table(
        ("RULE", "GPU", "NEEDED", "PRESENT", "SINCE", "IN WORDS"), rows, ("GPU", "NEEDED", "PRESENT", "SINCE")
    )


def _rule_view(rule: "Waiting") -> dict[str, Any]:
    from backprop.cli.render.json_views import iso

    return {
        "rule": rule.rule,
        "gpu_index": rule.gpu_index,
        "needed": rule.needed,
        "present": rule.present,
        "since": iso(rule.since_s),
        "text": rule.text,
        "path": rule.path,
    }


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:g}" if value < 1000 else f"{value:.0f}"
