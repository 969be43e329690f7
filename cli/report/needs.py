"""Finds what of a night needs its user, each with the commands that help."""

from collections.abc import Iterator
from typing import Final

import msgspec

from backprop.cli.render.json_views import duration
from backprop.cli.report.books import HANDOVER, NO_WORKER
from backprop.cli.report.night import Night, stretch
from backprop.scheduler.records import NOTHING_QUEUED, RunRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.executor.heartbeat import silences
from backprop.worker.executor.locks import worker_alive

LONG_GAP_S: Final = 600
SHOWN_NAMES: Final = 5
EXPECTED: Final = {NOTHING_QUEUED.rule, HANDOVER.rule}
"""Reasons for an idle GPU that need nobody."""


class NeedOfUser(msgspec.Struct, frozen=True):
    """`title`: what it is about. `text`: what happened, in words. `commands`: what to type, to be copied."""

    title: str
    text: str
    commands: tuple[str, ...] = ()
    bad: bool = True


def find(night: Night, database: Database) -> list[NeedOfUser]:
    """Return what needs the user, the gravest first. Raises DatabaseBusy."""
    return [*_workers(night, database), *_failures(night), *_held(night), *_gaps(night), *_disk(night)]


def _workers(night: Night, database: Database) -> Iterator[NeedOfUser]:
    for silence in silences(night.home.locks):
        yield NeedOfUser("A worker does not tick", silence.sentence())
    alive = any(worker_alive(night.home.locks, one.id) for one in queries.workers(database))
    if not alive and night.unfinished > len(night.held):
        yield NeedOfUser(
            "No worker is running", "what is queued does not start", ("tmux new -d 'backprop worker'",)
        )


def _failures(night: Night) -> Iterator[NeedOfUser]:
    alike: dict[str, list[RunRecord]] = {}
    for run in night.failed:
        alike.setdefault(run.reason.partition(" at step ")[0], []).append(run)
    for runs in alike.values():
        first = runs[0].id
        logs, again = f"backprop logs {first}", "backprop resume " + " ".join(run.id for run in runs[:20])
        yield NeedOfUser(_names(runs), runs[0].reason, (logs, again))


def _held(night: Night) -> Iterator[NeedOfUser]:
    alike: dict[str, list[RunRecord]] = {}
    for run in night.held:
        alike.setdefault(run.reason, []).append(run)
    for reason, runs in alike.items():
        commands = (f"backprop why {runs[0].id}", "backprop release " + " ".join(run.id for run in runs[:20]))
        yield NeedOfUser(f"{_names(runs)}, held", reason, commands, bad=False)


def _gaps(night: Night) -> Iterator[NeedOfUser]:
    for gap in sorted(night.gaps, key=lambda one: -one.slice.seconds):
        rules = set(gap.slice.rules)
        if gap.slice.seconds < LONG_GAP_S or rules & EXPECTED or NO_WORKER.rule in rules:
            continue
        title = f"{gap.unit.label} idle {stretch(night, gap.slice)}, {duration(gap.slice.seconds)}"
        yield NeedOfUser(title, gap.text, bad=False)


def _disk(night: Night) -> Iterator[NeedOfUser]:
    for sentence in night.disk.sentences():
        text, _, command = sentence.rpartition(": ")
        yield NeedOfUser("Disk", text, (command,), bad=False)


def _names(runs: list[RunRecord]) -> str:
    shown = ", ".join(run.name for run in runs[:SHOWN_NAMES])
    return shown if len(runs) <= SHOWN_NAMES else f"{shown} and {len(runs) - SHOWN_NAMES} more"
