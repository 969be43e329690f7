"""Stores what a segment reports: its progress, checkpoints and metrics, each once and kept in bounds.

A run may report a step every millisecond. Of each metric the last value per `GRAIN_S` seconds is kept.
"""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from backprop.scheduler.errors import LostRace
from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.lifecycle import HAS_PROCESSES
from backprop.scheduler.records import CheckpointRecord, MetricRecord
from backprop.scheduler.store.connection import Database, proxy
from backprop.scheduler.store.reads import metrics
from backprop.scheduler.store.schema import Checkpoint, Run, Segment

KEPT_CHECKPOINTS: Final = 20
GRAIN_S: Final = 5.0
MAX_METRICS: Final = 32
"""Names per run; further ones, in the order of their first report, are not kept."""

_REPLACE_METRIC: Final = """
    UPDATE metrics SET at_s = :at_s, step = :step, value = :value, source = :source
    WHERE serial = (SELECT MAX(serial) FROM metrics WHERE run_id = :run AND name = :name)
    AND segment = :segment AND CAST(at_s / :grain AS INTEGER) = CAST(:at_s / :grain AS INTEGER)
"""
_INSERT_METRIC: Final = """
    INSERT INTO metrics (run_id, segment, at_s, step, name, value, source)
    VALUES (:run, :segment, :at_s, :step, :name, :value, :source)
"""


class SegmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment reported since the last read.

    Offsets are bytes into its log and its events file. `first_output_s`: seconds from its start to its first output.
    `nonfinite`: its loss is NaN or infinite. `checkpoints`: announced. `spotted`: seen on disk rather than announced.
    `first_step_s`: seconds from its start to its first step, once. `metrics`: the last value of each name.
    `step_source`, `loss_source`: of the two numbers, where they are given. `step_unit`, `step_total`, `step_fell`: of
    the segment's steps in its plain output, and of `first_step`; None where it announced them. `shared`: paths of files
    that other runs, by id, wrote as well, and why these no longer count. `saving_s`: what its saves took, as far as
    that is known.
    """

    log_from: int
    log_to: int
    events_from: int
    events_to: int
    last_step: int | None = None
    last_loss: float | None = None
    checkpoints: Sequence[CheckpointRecord] = ()
    bad_events: int = 0
    first_output_s: float | None = None
    first_step: int | None = None
    nonfinite: bool = False
    spotted: Sequence[CheckpointRecord] = ()
    shared: Sequence[tuple[str, str, str]] = ()
    metrics: Sequence[MetricRecord] = ()
    step_source: str | None = None
    loss_source: str | None = None
    step_unit: str | None = None
    step_total: int | None = None
    step_fell: bool | None = None
    first_step_s: float | None = None
    saving_s: float = 0.0


def record(
    database: Database, run_id: str, number: int, report: SegmentReport, *, live: bool = False
) -> bool:
    """Store a report once: compare-and-set on the offsets it was read from. Returns False if it was stored before.

    `live`: raise LostRace if somebody has settled the segment's end; its run may be in the next one by now.
    """
    from peewee import Case, fn

    def verb() -> bool:
        values: dict[str, Any] = {
            "log_offset": report.log_to,
            "events_offset": report.events_to,
            "bad_events": Segment.bad_events + report.bad_events,
        }
        if report.saving_s:
            values["saving_s"] = Segment.saving_s + report.saving_s
        if report.first_output_s is not None:
            values["first_output_s"] = report.first_output_s
        if report.first_step_s is not None:
            values["first_step_s"] = report.first_step_s
        if report.first_step is not None:
            # Another counter's first step says nothing of this one.
            same = (
                Segment.step_unit.is_null()
                if report.step_unit is None
                else Segment.step_unit == report.step_unit
            )
            kept = fn.COALESCE(Segment.first_step, report.first_step)
            values["first_step"] = Case(None, [(same, kept)], report.first_step)
            values["step_unit"] = report.step_unit
            values["step_total"] = report.step_total
            values["step_fell"] = report.step_fell
        own = (Segment.run_id == run_id) & (Segment.number == number)
        unread = (Segment.log_offset == report.log_from) & (Segment.events_offset == report.events_from)
        now = (Run.id == run_id) & (Run.segment == number) & Run.state.in_(list(HAS_PROCESSES))
        if live and not Run.select().where(now).exists():
            raise LostRace(f"segment {number} of {run_id} has been settled meanwhile")
        if not Segment.update(values).where(own & unread).execute():
            return False
        for checkpoint in report.checkpoints:
            if not _known(checkpoint):
                _forget_same_file(checkpoint)
                insert_checkpoint(checkpoint)
        for checkpoint in report.spotted:
            if not Checkpoint.select().where(_same_file(checkpoint)).exists():
                insert_checkpoint(checkpoint)
        for other, path, why in report.shared:
            same = (Checkpoint.run_id == other) & (Checkpoint.path == path) & Checkpoint.refused.is_null()
            Checkpoint.update(refused=why).where(same).execute()
        if report.checkpoints or report.spotted:
            _forget_old_checkpoints(run_id)
        _store_metrics(run_id, number, report.metrics)
        values = _progress(report)
        if report.nonfinite:
            values["fault"] = Fault.NAN
        if values:
            Run.update(values).where(Run.id == run_id).execute()
        return True

    return database.write(verb)


def _progress(report: SegmentReport) -> dict[str, Any]:
    """Return the columns of the run that a report changes."""
    values: dict[str, Any] = {}
    if report.last_step is not None:
        values |= {"last_step": report.last_step, "step_source": report.step_source}
        values |= {"step_unit": report.step_unit, "step_total": report.step_total}
    if report.last_loss is not None:
        values |= {"last_loss": report.last_loss, "loss_source": report.loss_source}
    return values


def _store_metrics(run_id: str, segment: int, reported: Sequence[MetricRecord]) -> None:
    """Inside a transaction: keep the last values that a segment reported."""
    if not reported:
        return
    known = metrics.names(run_id)
    for metric in reported:
        values = {
            "run": run_id,
            "segment": segment,
            "at_s": metric.at_s,
            "step": metric.step,
            "name": metric.name,
            "value": metric.value,
            "grain": GRAIN_S,
            "source": metric.source,
        }
        if metric.name not in known and len(known) >= MAX_METRICS:
            continue
        known.add(metric.name)
        connection = proxy.connection()
        if connection.execute(_REPLACE_METRIC, values).rowcount == 0:
            connection.execute(_INSERT_METRIC, values)


def _known(checkpoint: CheckpointRecord) -> bool:
    """Return whether it was announced before, in a log truncated since: stored again, it would look the newest."""
    same_save = (Checkpoint.segment == checkpoint.segment) & (Checkpoint.step == checkpoint.step)
    return (
        checkpoint.refused is None and Checkpoint.select().where(_same_file(checkpoint) & same_save).exists()
    )


def _same_file(checkpoint: CheckpointRecord) -> Any:
    """Return the condition for the very same content at the same place, whichever segment it was reported of."""
    same = (Checkpoint.run_id == checkpoint.run_id) & (Checkpoint.path == checkpoint.path)
    return (
        same & (Checkpoint.mtime_ns == checkpoint.mtime_ns) & (Checkpoint.size_bytes == checkpoint.size_bytes)
    )


def _forget_same_file(checkpoint: CheckpointRecord) -> None:
    """Forget what was seen on disk before it was announced: the announcement says more, above all its step."""
    own = (Checkpoint.segment == checkpoint.segment) & Checkpoint.refused.is_null()
    if checkpoint.refused is None:
        Checkpoint.delete().where(_same_file(checkpoint) & own).execute()


def removed(database: Database, gone: Sequence[CheckpointRecord], why: str) -> None:
    """Refuse checkpoints that were removed from disk from now on, and say `why`."""

    def verb() -> None:
        for checkpoint in gone:
            Checkpoint.update(refused=why).where(
                _same_file(checkpoint) & Checkpoint.refused.is_null()
            ).execute()

    database.write(verb)


def insert_checkpoint(checkpoint: CheckpointRecord) -> None:
    """Insert a checkpoint's row. Call inside a transaction."""
    Checkpoint.insert(
        run_id=checkpoint.run_id,
        segment=checkpoint.segment,
        path=checkpoint.path,
        step=checkpoint.step,
        size_bytes=checkpoint.size_bytes,
        mtime_ns=checkpoint.mtime_ns,
        is_dir=checkpoint.is_dir,
        saved_at_s=checkpoint.saved_at_s,
        refused=checkpoint.refused,
        seen_step=checkpoint.seen_step,
        attribution=checkpoint.attribution,
        observed=checkpoint.observed,
    ).execute()


def _forget_old_checkpoints(run_id: str) -> None:
    """Keep the newest good and the newest refused checkpoints of a run. Forgets rows only: files are the user's."""
    for kind in (Checkpoint.refused.is_null(), ~Checkpoint.refused.is_null()):
        own = (Checkpoint.run_id == run_id) & kind
        newest = Checkpoint.select(Checkpoint.serial).where(own).order_by(Checkpoint.serial.desc())
        Checkpoint.delete().where(own & Checkpoint.serial.not_in(newest.limit(KEPT_CHECKPOINTS))).execute()
