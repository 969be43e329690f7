"""Puts together what is known of a run's checkpoints, and judges which of them may go.

`rotation_of` reads the database, in the thread of the ticks; `judged` reads the files, in any.
"""

from collections.abc import Mapping, Sequence

import msgspec

from backprop.scheduler.home.layout import Home
from backprop.scheduler.outcome.group_budget import parse_goal
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import CheckpointRecord, RunRecord, SegmentRecord
from backprop.scheduler.store import groups
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import company, metrics, queries
from backprop.worker.checkpoints.resume import first_segment, usable
from backprop.worker.checkpoints.rotation.choice import Judgement, Keeping, choose, surplus
from backprop.worker.checkpoints.rotation.evidence import fault_since, why_named, why_not_ours
from backprop.worker.checkpoints.seen.baseline import beginning_of


class Rotation(msgspec.Struct, frozen=True):
    """What the database knows. `saved`: the run's checkpoints that count, newest first, each path once. `surplus`:
    those that enough newer ones are there for. `protected`: why one has to stay, by path. `values`: of the metric, as
    (Unix seconds, value), oldest first. `started_s`: when the run's first segment began."""

    run: RunRecord
    keeping: Keeping
    saved: Sequence[CheckpointRecord]
    surplus: Sequence[CheckpointRecord]
    protected: Mapping[str, str]
    values: Sequence[tuple[float, float]]
    started_s: float


def rotation_of(database: Database, run: RunRecord, newest: int | None = None) -> Rotation | None:
    """Return what is known for a rotation that keeps the `newest`, by default as many as the run says; None where there
    is nothing to remove. Raises DatabaseBusy."""
    newest = newest or run.spec.keep_checkpoints
    if newest is None:
        return None
    saved: dict[str, CheckpointRecord] = {}
    for record in usable(run, queries.checkpoints(database, run.id)):
        saved.setdefault(record.path, record)
    keeping = keeping_of(database, run, newest)
    extra = surplus([*saved.values()], keeping)
    if not extra:
        return None
    segments = queries.segments(database, run.id)
    protected = company.in_use_elsewhere(database, run.id, [record.path for record in extra])
    protected |= _needed(run, segments)
    protected |= {each.path: why for each in extra if (why := _of_lost_rows(each, run, segments)) is not None}
    curve = [(at_s, value) for _, at_s, value, _ in metrics.curve(database, run.id, keeping.metric)]
    started_s = segments[0].started_at_s if segments else run.created_at_s
    return Rotation(run, keeping, [*saved.values()], extra, protected, sorted(curve), started_s)


def keeping_of(database: Database, run: RunRecord, newest: int) -> Keeping:
    """Return what stays of a run's checkpoints: the best is by its own metric, else by its group's, else by the loss.
    Raises DatabaseBusy."""
    if run.spec.keep_metric is not None:
        name, _, direction = run.spec.keep_metric.partition(":")
        return Keeping(newest, name, direction == "max", named=True)
    rules = groups.rules(database, run.group_name) if run.group_name is not None else None
    if rules is not None and rules.keep_metric is not None:
        return Keeping(newest, rules.keep_metric, rules.keep_highest, named=True)
    if rules is not None and rules.until is not None:
        goal = parse_goal(rules.until)
        return Keeping(newest, goal.metric, goal.relation.startswith(">"), named=True)
    return Keeping(newest)


def judged(home: Home, rotation: Rotation) -> list[Judgement]:
    """Judge the run's checkpoints. Reads their files."""
    run, plan = rotation.run, rotation.run.spec.plan
    needs = plan.needs if plan is not None else ()
    faults = {each.path: why for each in rotation.saved if (why := fault_since(each, needs)) is not None}
    began = beginning_of(home.segment_folder(run.id, 1), rotation.started_s)
    extra = {record.path for record in rotation.surplus}
    kept = [record for record in rotation.saved if record.path not in extra]
    protected = dict(rotation.protected)
    for record in rotation.surplus:
        why = protected.get(record.path) or why_not_ours(record, began) or why_named(record, kept)
        if why is not None:
            protected[record.path] = why
    return choose(rotation.saved, faults, protected, rotation.keeping, rotation.values)


def _needed(run: RunRecord, segments: Sequence[SegmentRecord]) -> dict[str, str]:
    """Return what the run itself begins from, or has begun from last."""
    last = segments[-1].checkpoint_used if segments else None
    given = {
        path: "the run was told to begin from it" for path in (run.spec.resume_from, run.resume_pin) if path
    }
    return given | ({last: f"segment {segments[-1].number} began from it"} if last is not None else {})


def _of_lost_rows(record: CheckpointRecord, run: RunRecord, segments: Sequence[SegmentRecord]) -> str | None:
    """Return why what is known of a checkpoint may not be all: what was best then is forgotten."""
    recovered = [segment.number for segment in segments if segment.outcome is SegmentOutcome.RECOVERED]
    if record.segment <= max(recovered, default=0):
        return "the database was put together again since"
    return "of an earlier start of the run" if record.segment < first_segment(run) else None
