"""What would happen? The same rules on the same readings, and nothing written."""

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

import click
import msgspec

from backprop.cli.context import open_existing
from backprop.cli.render.tables import print_pairs
from backprop.cli.render.terminal_text import safe
from backprop.cli.submit import recipe_view
from backprop.scheduler.config.settings import Settings
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.governor import need as terms
from backprop.scheduler.governor import opening
from backprop.scheduler.governor.decide import Reservation, decide
from backprop.scheduler.home.layout import Home
from backprop.scheduler.spec import QueuePosition, RunSpec
from backprop.scheduler.store import drain, gpu_history
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import enqueue
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.executor.locks import worker_alive
from backprop.worker.machine.gpu_usage import Usage, usage_of
from backprop.worker.machine.reader import read_machine

if TYPE_CHECKING:
    from backprop.cli.submit.submission import Submission
    from backprop.scheduler.store.connection import Database


def describe_start(wanted: "Submission", home: Home, place: QueuePosition, met: Collection[str]) -> int:
    """Print what `run` would queue and what the governor says of it now, behind what is queued already."""
    _, database = open_existing()
    if (
        wanted.run_id is not None
        and database is not None
        and queries.run_by_id(database, wanted.run_id) is not None
    ):
        raise BadCommand(enqueue.id_taken([wanted.run_id]))
    judge = _Judge(home, database, wanted.settings)
    ahead = queries.queue(database, time.time()) if database is not None else []
    for run in ahead:
        judge.verdict(run.id, run.spec, run.need_mib)
    spec = wanted.spec
    waits = place.held or enqueue.conditions(place, met)
    ends = [f"{spec.max_segments} segments"] if spec.max_segments else []
    ends += [f"{spec.max_total_s / 60:g} minutes"] if spec.max_total_s else []
    chain = f"requeued until it is done{', at most ' + ' or '.join(ends) if ends else ''}"
    print_pairs(
        [
            ("would queue", wanted.name),
            *_command(wanted),
            (
                "timebox",
                f"{spec.timebox_s / 60:g} min, then SIG{spec.stop_signal} and {spec.grace_s:g} s to save",
            ),
            ("after it", chain if spec.auto_resume else "not requeued: auto-resume is off"),
            *recipe_view.pairs(spec),
            ("on a resume", recipe_view.resume_text(spec)),
            *_place(place, met),
            ("ahead of it", f"{len(ahead)} queued" if ahead else "nothing"),
            ("governor", judge.verdict("", spec, when="then" if waits else "now")),
        ]
    )
    return 0


def _command(wanted: "Submission") -> list[tuple[str, str]]:
    return [("command", wanted.command), ("program", wanted.spec.program), ("directory", wanted.spec.cwd)]


def _at_most(home: Home, database: "Database | None") -> int | None:
    """The most runs that one of the workers here lets run at once; None where there is none."""
    if database is None:
        return None
    alive = [one for one in queries.workers(database) if worker_alive(home.locks, one.id)]
    return max((one.max_parallel for one in alive), default=None)


def _place(place: QueuePosition, met: Collection[str]) -> list[tuple[str, str]]:
    """What the governor does not know of: it says what the machine has room for, not whose turn it is."""
    found = [("group", place.group)] if place.group is not None else []
    found += [("priority", str(place.priority))] if place.priority else []
    found += [("held", "until: backprop release")] if place.held else []
    return found + enqueue.conditions(place, met)


def describe_drill(wanted: "Submission", home: Home, seconds: float) -> int:
    """Print what `drill` would do and what the governor says of it now."""
    _, database = open_existing()
    spec = wanted.spec
    print_pairs(
        [
            ("would drill", wanted.name),
            *_command(wanted),
            (
                "segments",
                f"two of {seconds:g} s, each then SIG{spec.stop_signal} and {spec.grace_s:g} s to save",
            ),
            ("after it", "nothing of it is left but what the script writes"),
            *recipe_view.pairs(spec),
            ("on a resume", recipe_view.resume_text(spec)),
            ("governor", _Judge(home, database, wanted.settings).verdict("", spec)),
        ]
    )
    return 0


def describe_queue(home: Home, settings: Settings) -> int:
    """Print which queued runs a worker would start now, in its order, and why the others would wait."""
    _, database = open_existing()
    runs = queries.queue(database, time.time()) if database is not None else []
    if not runs:
        click.echo("nothing is queued that may start now")
        return 0
    judge = _Judge(home, database, settings)
    for run in runs:
        click.echo(f"{run.id}  {safe(run.name)}: {safe(judge.verdict(run.id, run.spec, run.need_mib))}")
    return 0


class _Judge:
    """The governor on one look at the machine. What it admits counts against what it is asked next."""

    def __init__(self, home: Home, database: "Database | None", settings: Settings) -> None:
        self._database = database
        at_most = _at_most(home, database)
        self._settings = (
            settings if at_most is None else msgspec.structs.replace(settings, max_parallel=at_most)
        )
        self._snapshot = snapshot = read_machine(home, settings)
        alive = queries.live_segments(database)[1] if database is not None else []
        usage: Usage = usage_of(alive, snapshot, LocalExecutor(home)) if snapshot.gpus else {}
        self._reservations = terms.reservations_of(alive, usage, time.time())
        self._running = len(alive)
        kept_aside = gpu_history.quarantined(database) if database is not None and snapshot.gpus else []
        self._quarantined = {one.gpu_uuid: one.reason for one in kept_aside}
        drained = drain.drained(database) if database is not None else None
        self._closed = opening.closed(drained, settings.active_hours or (), time.time())

    def verdict(self, run_id: str, spec: RunSpec, raised_mib: int | None = None, when: str = "now") -> str:
        """In words. `run_id`: empty for a run that is not queued yet. `when`: it would start if nothing refuses it."""
        snapshot, database = self._snapshot, self._database
        learns = database is not None and bool(snapshot.gpus)
        learned_mib = gpu_history.learned_mib(database, run_id, spec) if database and learns else None
        need = terms.need_of(spec, snapshot, learned_mib, raised_mib)
        limits = terms.limits_of(spec, self._settings)
        decision = decide(need, limits, snapshot, self._reservations, self._running, self._quarantined)
        if decision.infeasible is not None:
            return f"fits nowhere: {decision.infeasible}"
        if not decision.admitted:
            return f"would wait: {decision.sentence()}"
        if self._closed is not None:
            return f"would wait: {self._closed.sentence()}"
        self._running += 1
        self._reservations += [
            Reservation(
                run_id=run_id,
                gpu_uuid=uuid,
                promised_mib=need.vram_mib,
                seen_mib=0,
                started_s=time.time(),
                settled=False,
                exclusive=need.exclusive,
            )
            for uuid in decision.gpu_uuids
        ]
        names = [gpu.name for gpu in snapshot.gpus if gpu.uuid in decision.gpu_uuids]
        return f"would start {when}{' on ' + ', '.join(names) if names else ''}"
