"""`backprop why RUN`: shows each rule that refuses a waiting run: what it needs, what there is, and since when."""

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from backprop.cli.context import NO_WORKER, need_existing, silent_workers
from backprop.cli.help.completion import complete_runs
from backprop.cli.options.global_options import brief_option
from backprop.cli.render.terminal_text import safe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backprop.cli.render.slots import Slots
    from backprop.scheduler.home.layout import Home
    from backprop.scheduler.records import RunRecord, Waiting
    from backprop.scheduler.store.connection import Database
    from backprop.worker.machine.holders import Holder

SHOWN_LIVE: Final = 8
BRIEF_COUNT, BRIEF_TEXT = 2, 90
"""With --brief: how many of each kind, and bytes of each text in JSON."""


@click.command(name="why")
@click.argument("run", shell_complete=complete_runs)
@click.option("--json", "as_json", is_flag=True, help="As JSON, documented in docs/json.md.")
@brief_option
def command(run: str, as_json: bool, brief: bool) -> None:
    """Say why RUN is where it is: for a waiting one, every rule that fails."""
    from backprop.scheduler.store.reads import queries

    home, database = need_existing()
    record = queries.find_run(database, run)
    if as_json or brief:
        _print_json(home, database, record, brief)
        return
    for line in lines(home, database, record):
        click.echo(line)
    for index, holder in _holders(home, database, record):
        click.echo(safe(f"GPU {index} is held by {holder.sentence()}"))


def _holders(home: "Home", database: "Database", run: "RunRecord") -> "list[tuple[int, Holder]]":
    """Return who else holds the GPUs whose rules keep a run waiting. Reads the machine only where there are any."""
    indices = {rule.gpu_index for rule in run.waiting if rule.gpu_index is not None}
    if not indices or not _waits(run):
        return []
    from backprop.worker.clock import Clock
    from backprop.worker.executor.local import LocalExecutor
    from backprop.worker.machine.holders import holders_of, own_pids
    from backprop.worker.machine.reader import OneOffReader
    from backprop.worker.machine.state import read_state

    reader = OneOffReader(home)
    try:
        snapshot = reader.read()
        own = own_pids(read_state(database, snapshot, LocalExecutor(home), reader.settings, Clock()))
    finally:
        reader.close()
    gpus = [gpu for gpu in snapshot.gpus if gpu.index in indices]
    return [(gpu.index, holder) for gpu in gpus for holder in holders_of(gpu, own, database)]


def _print_json(home: "Home", database: "Database", record: "RunRecord", brief: bool) -> None:
    from backprop.cli.render.json_views import iso, print_json
    from backprop.scheduler.store.reads import disk_use

    known = _reasons(home, database, record)
    view: dict[str, Any] = {
        "id": record.id,
        "state": record.state.value,
        "reason": record.reason,
        "worker_alive": known.alive,
        "silent_workers": known.silent,
        "not_before": iso(record.not_before_s or None),
        "waits": known.before,
        "rules": [_rule_view(rule) for rule in record.waiting],
        "disks_full_at": {
            folder: iso(at_s) for folder, at_s in disk_use.full_at(database, time.time()).items()
        },
        "parallel": None if known.slots is None else known.slots.view(),
        "blocked_by": [{"id": one.id, "reason": one.reason} for one in known.blocking],
    }
    if brief:
        import json

        click.echo(json.dumps(brief_view(view)))
        return
    holders = _holders(home, database, record)
    print_json(
        view
        | {"gpu_holders": [{"gpu_index": index, **msgspec.structs.asdict(one)} for index, one in holders]}
    )


def brief_view(view: "Mapping[str, Any]") -> dict[str, Any]:
    """Return at most 1 KB of the answer: the first few of each kind, their texts cut."""
    from backprop.cli.render.answers import short

    return {
        **{name: view[name] for name in ("id", "state", "worker_alive", "not_before")},
        "reason": short(view["reason"], BRIEF_TEXT),
        "silent_workers": [short(line, BRIEF_TEXT) for line in view["silent_workers"][:1]],
        "waits": [short(line, BRIEF_TEXT) for line in view["waits"][:BRIEF_COUNT]],
        "rules": [
            {"rule": rule["rule"], "text": short(rule["text"], BRIEF_TEXT)}
            for rule in view["rules"][:BRIEF_COUNT]
        ],
        "blocked_by": [one["id"] for one in view["blocked_by"][:BRIEF_COUNT]],
    }


class _Reasons(msgspec.Struct, frozen=True):
    """Why a run waits. `alive`: a worker lives. `silent`: those that do not tick. `before`: what has to happen first.
    `blocking`: runs that keep their places past their timeboxes."""

    alive: bool
    silent: list[str]
    slots: "Slots | None"
    before: list[str]
    blocking: "list[RunRecord]"


def _reasons(home: "Home", database: "Database", record: "RunRecord") -> _Reasons:
    from backprop.cli.render.json_views import clock
    from backprop.cli.render.slots import slots_of
    from backprop.scheduler.store.reads import queries, start_conditions
    from backprop.worker.executor.locks import worker_alive

    living = [worker for worker in queries.workers(database) if worker_alive(home.locks, worker.id)]
    return _Reasons(
        bool(living),
        silent_workers(home),
        slots_of(database, living),
        start_conditions.reasons(database, record, time.time(), clock),
        _blocking(home, queries.live_runs(database)) if _waits(record) else [],
    )


def _waits(record: "RunRecord") -> bool:
    from backprop.scheduler.lifecycle import State

    return record.state in (State.QUEUED, State.SUSPENDED)


def lines(home: "Home", database: "Database", record: "RunRecord", whole: bool = False) -> list[str]:
    """Return in words why a run is where it is. `whole`: cut nothing to the width of a terminal."""
    from backprop.cli.render.status_text import disk_lines
    from backprop.cli.render.triage_view import triage_pairs
    from backprop.scheduler.lifecycle import FINAL
    from backprop.scheduler.store.reads import disk_use
    from backprop.worker.maintenance.triage_reader import triage_of_run

    known = _reasons(home, database, record)
    said = [f"{record.id} {safe(record.name)} is {record.state}: {safe(record.reason)}", *known.silent]
    if not _waits(record):
        triage = triage_of_run(home, database, record) if record.state in FINAL else None
        return [*said, *(safe(f"{label}: {text}") for label, text in triage_pairs(record.id, triage))]
    said += map(safe, known.before)
    said += [] if known.alive else [NO_WORKER]
    if record.cluster is not None:
        return said + [safe(line) for line in _of_cluster(home, database, record)]
    said += map(safe, _place(home, database, record))
    now_s = time.time()
    said += map(safe, disk_lines(disk_use.full_at(database, now_s), now_s))
    if known.before or not known.alive:
        return said
    if not record.waiting:
        return [*said, "no worker has judged it yet; ask again in a moment"]
    said += _rules(record, whole)
    if known.slots is not None and (of_slots := _of_slots(record, known.slots)):
        said.append(safe(of_slots))
    return said + [
        safe(f"{one.name} ({one.id}) {one.reason}; to free its place: backprop stop {one.id}")
        for one in known.blocking
    ]


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


def _of_cluster(home: "Home", database: "Database", run: "RunRecord") -> list[str]:
    """Return its place among the runs of its cluster, and how that is."""
    from backprop.cli.render.jobs import cluster_rows
    from backprop.scheduler.config.settings import load
    from backprop.scheduler.store.reads import listing

    ahead = listing.ahead_of(database, run)
    place = f"{ahead:,} queued run{'' if ahead == 1 else 's'} before it" if ahead else "it is next in turn"
    configured = load(None, home.root, None, {}).settings.clusters
    found = (one for one in cluster_rows.views(database, configured) if one.name == run.cluster)
    return [place, *(f"{one.name}: {one.sentence()}" for one in found)]


def _of_slots(run: "RunRecord", slots: "Slots") -> str:
    """Return who has decided how many runs may run at once, where that keeps the run from starting."""
    from backprop.cli.render.slots import CHANGE
    from backprop.scheduler.governor.model import Rule

    full = any(rule.rule == Rule.PARALLEL and rule.needed == slots.at_most for rule in run.waiting)
    return f"{slots.sentence()}; {CHANGE}" if full else ""


def _rules(run: "RunRecord", whole: bool) -> list[str]:
    from backprop.cli.render.json_views import duration
    from backprop.cli.render.tables import table_lines

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
    columns = ("RULE", "GPU", "NEEDED", "PRESENT", "SINCE", "IN WORDS")
    return table_lines(columns, rows, ("GPU", "NEEDED", "PRESENT", "SINCE"), whole)


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
