"""Prints what would happen, judged as a worker would judge it on the same state of the machine. Writes nothing."""

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

import click
import msgspec

from backprop.cli.context import open_existing
from backprop.cli.render import stop_view
from backprop.cli.render.slots import slots_of
from backprop.cli.render.tables import print_pairs
from backprop.cli.render.terminal_text import safe
from backprop.cli.submit import recipe_view
from backprop.cli.submit.goes_on import timebox_text
from backprop.scheduler.config.settings import Settings
from backprop.scheduler.errors import BadCommand
from backprop.scheduler.governor import starvation
from backprop.scheduler.governor.decide import Decision, Denial, Need, Rule
from backprop.scheduler.governor.disk import Growth
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import QueuePosition, RunSpec
from backprop.scheduler.store import gpu_history
from backprop.scheduler.store.reads import disk_use, queries
from backprop.scheduler.store.writes import enqueue
from backprop.worker.admission.judge import Judge
from backprop.worker.admission.missing_paths import MissingPaths
from backprop.worker.admission.waiting_reasons import Starving, head_of_line, recorded_since
from backprop.worker.clock import Clock
from backprop.worker.environment.presence import trouble_with
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.executor.locks import worker_alive
from backprop.worker.machine.reader import read_machine
from backprop.worker.machine.state import read_state
from backprop.worker.user_files import UserFiles

if TYPE_CHECKING:
    from backprop.cli.submit.submission import Submission
    from backprop.scheduler.store.connection import Database


def describe_start(wanted: "Submission", home: Home, place: QueuePosition, met: Collection[str]) -> int:
    """Print what `run` would queue, and whether it could start now, behind the runs that are queued already."""
    _, database = open_existing()
    if (
        wanted.run_id is not None
        and database is not None
        and queries.run_by_id(database, wanted.run_id) is not None
    ):
        raise BadCommand(enqueue.id_taken([wanted.run_id]))
    forecast = _Forecast(home, database, wanted.settings)
    ahead = queries.queue(database, time.time()) if database is not None else []
    for run in ahead:
        forecast.of_queued(run)
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
                timebox_text(spec),
            ),
            ("stop signal", stop_view.planned(spec)),
            ("after it", chain if spec.auto_resume else "not requeued: auto-resume is off"),
            *recipe_view.pairs(spec),
            ("on a resume", recipe_view.resume_text(spec)),
            *_place(place, met),
            ("ahead of it", f"{len(ahead)} queued" if ahead else "nothing"),
            ("governor", forecast.of_new(spec, when="then" if waits else "now")),
        ]
    )
    return 0


def _command(wanted: "Submission") -> list[tuple[str, str]]:
    return [("command", wanted.command), ("program", wanted.spec.program), ("directory", wanted.spec.cwd)]


def _at_most(home: Home, database: "Database | None") -> int | None:
    """Return how many runs at once the living workers allow, or `backprop parallel`; None where neither is there."""
    if database is None:
        return None
    alive = [worker for worker in queries.workers(database) if worker_alive(home.locks, worker.id)]
    slots = slots_of(database, alive)
    return None if slots is None else slots.at_most


def _place(place: QueuePosition, met: Collection[str]) -> list[tuple[str, str]]:
    """Return what the governor does not know: it says what the machine has room for, not whose turn it is."""
    pairs = [("group", place.group)] if place.group is not None else []
    pairs += [("priority", str(place.priority))] if place.priority else []
    pairs += [("held", "until: backprop release")] if place.held else []
    return pairs + enqueue.conditions(place, met)


def describe_drill(wanted: "Submission", home: Home, seconds: float) -> int:
    """Print what `drill` would do, and whether it could start now."""
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
            ("stop signal", stop_view.planned(spec)),
            ("after it", "nothing of it is left but what the script writes"),
            *recipe_view.pairs(spec),
            ("on a resume", recipe_view.resume_text(spec)),
            ("governor", _Forecast(home, database, wanted.settings).of_new(spec)),
        ]
    )
    return 0


def describe_queue(home: Home, settings: Settings, *, own_parallel: bool) -> int:
    """Print which queued runs a worker would start now, in its order, and why the others would wait. `own_parallel`: it
    is given a number of runs, which counts whatever holds now."""
    _, database = open_existing()
    runs = queries.queue(database, time.time()) if database is not None else []
    if not runs:
        click.echo("nothing is queued that may start now")
        return 0
    at_most = settings.max_parallel if own_parallel else None
    forecast = _Forecast(home, database, settings, at_most)
    for run in runs:
        click.echo(f"{run.id}  {safe(run.name)}: {safe(forecast.of_queued(run))}")
    return 0


class _Forecast:
    """Judges runs in the order of the queue on one reading of the machine, as a worker's admission does."""

    def __init__(
        self, home: Home, database: "Database | None", settings: Settings, at_most: int | None = None
    ) -> None:
        self._database = database
        at_most = at_most or _at_most(home, database)
        snapshot = read_machine(home, settings)
        self._state = read_state(database, snapshot, LocalExecutor(home), settings, Clock())
        self._judge = Judge(
            self._state,
            settings if at_most is None else msgspec.structs.replace(settings, max_parallel=at_most),
        )
        self._paths = MissingPaths(Clock(), UserFiles())
        self._starving: Starving | None = None
        self._learned: dict[str, int | None] = {}

    def of_queued(self, run: RunRecord) -> str:
        """Say whether a queued run would start now, and count it if so."""
        need, decision = self._judge.judge(
            run.spec, self._learned_mib(run.spec, run), run.need_mib, self._growth(run)
        )
        if not decision.admitted and self._starving is None and self._state.segments:
            self._starving = head_of_line(run, decision, recorded_since(run), time.time())
        if decision.admitted and (missing := self._missing(run.spec, run)) is not None:
            decision = missing
        return self._say(run.id, need, decision, "now")

    def of_new(self, spec: RunSpec, when: str = "now") -> str:
        """Say whether a run that is not queued yet would start. `when`: it would if nothing refuses it."""
        need, decision = self._judge.judge(spec, self._learned_mib(spec), None)
        if decision.admitted and (missing := self._missing(spec)) is not None:
            decision = missing
        return self._say("", need, decision, when)

    def _say(self, run_id: str, need: Need, decision: Decision, when: str) -> str:
        if decision.infeasible is not None:
            return decision.sentence()
        if not decision.admitted:
            return f"would wait: {decision.sentence()}"
        if self._state.opening.closed is not None:
            return f"would wait: {self._state.opening.closed.sentence()}"
        if self._starving is not None and starvation.keeps_back(self._starving.wait, need.gpus):
            return f"would wait: {self._starving.behind().sentence()}"
        self._judge.plan(run_id, need, decision, time.time())
        names = [gpu.name for gpu in self._state.snapshot.gpus if gpu.uuid in decision.gpu_uuids]
        return f"would start {when}{' on ' + ', '.join(names) if names else ''}"

    def _missing(self, spec: RunSpec, run: RunRecord | None = None) -> Decision | None:
        """Return the decision on a run that would wait for a path. Of a checkpoint only a worker's own look tells."""
        if (decision := self._paths.of_spec(spec)) is not None:
            return decision
        noted = [rule for rule in (run.waiting if run is not None else ()) if rule.rule == Rule.PATH.value]
        away = [rule for rule in noted if rule.path is not None and trouble_with(rule.path) is not None]
        return Decision((Denial(Rule.PATH, None, None, away[0].text),), ()) if away else None

    def _growth(self, run: RunRecord) -> Growth | None:
        return (
            disk_use.usual_growth(self._database, run) if self._database is not None and run.segment else None
        )

    def _learned_mib(self, spec: RunSpec, run: RunRecord | None = None) -> int | None:
        """Ask once per script, but for a run that has segments of its own."""
        if self._database is None or not self._state.snapshot.gpus:
            return None
        run_id = run.id if run is not None and run.segment else ""
        key = run_id or spec.script or spec.program
        if key not in self._learned:
            self._learned[key] = gpu_history.learned_mib(self._database, run_id, spec)
        return self._learned[key]
