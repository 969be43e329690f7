"""What would happen? The same rules on the same readings, and nothing written."""

import time
from typing import TYPE_CHECKING

import click

from backprop.cli.machine import look
from backprop.cli.safe import safe
from backprop.cli.session import open_existing
from backprop.cli.table import print_pairs
from backprop.scheduler import reads
from backprop.scheduler.governor import decide
from backprop.scheduler.home import Home
from backprop.scheduler.settings import Settings
from backprop.scheduler.snapshot import Snapshot
from backprop.scheduler.spec import RunSpec
from backprop.worker import terms
from backprop.worker.resume import command_line

if TYPE_CHECKING:
    from backprop.cli.submission import Submission
    from backprop.scheduler.database import Database


def describe_start(wanted: "Submission", home: Home) -> int:
    """Print what `run` would queue and what the governor says of it now."""
    _, database = open_existing()
    spec = wanted.spec
    told = command_line(spec, "CHECKPOINT")
    added = " ".join(told[len(spec.argv) :]) or "nothing is appended; the path is in BACKPROP_RESUME_FROM"
    ends = [f"{spec.max_segments} segments"] if spec.max_segments else []
    ends += [f"{spec.max_total_s / 60:g} minutes"] if spec.max_total_s else []
    chain = f"requeued until it is done{', at most ' + ' or '.join(ends) if ends else ''}"
    print_pairs(
        [
            ("would queue", wanted.name),
            ("command", wanted.command),
            ("program", spec.program),
            ("directory", spec.cwd),
            (
                "timebox",
                f"{spec.timebox_s / 60:g} min, then SIG{spec.stop_signal} and {spec.grace_s:g} s to save",
            ),
            ("after it", chain if spec.auto_resume else "not requeued: auto-resume is off"),
            ("on a resume", added),
            (
                "governor",
                _verdict(spec, wanted.settings, database, look(home, wanted.settings)),
            ),
        ]
    )
    return 0


def describe_queue(home: Home, settings: Settings) -> int:
    """Print which queued runs a worker would start now, and why the others wait."""
    _, database = open_existing()
    runs = reads.queue(database, time.time()) if database is not None else []
    if not runs:
        click.echo("nothing is queued")
        return 0
    snapshot = look(home, settings)
    for run in runs:
        click.echo(f"{run.id}  {safe(run.name)}: {safe(_verdict(run.spec, settings, database, snapshot))}")
    return 0


def _verdict(spec: RunSpec, settings: Settings, database: "Database | None", snapshot: Snapshot) -> str:
    alive = reads.live_segments(database)[1] if database is not None else []
    need = terms.need_of(spec, snapshot)
    decision = decide(
        need, terms.limits_of(spec, settings), snapshot, terms.reservations_of(alive, time.time()), len(alive)
    )
    if decision.admitted:
        names = [gpu.name for gpu in snapshot.gpus if gpu.uuid in decision.gpu_uuids]
        return f"would start now{' on ' + ', '.join(names) if names else ''}"
    return (
        f"would wait: {decision.sentence()}"
        if decision.infeasible is None
        else f"fits nowhere: {decision.infeasible}"
    )
