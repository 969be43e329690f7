"""What has a segment reported? Its progress, checkpoints and metrics, stored once and kept in bounds."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from backprop.scheduler.faults import Fault
from backprop.scheduler.records import CheckpointRecord, MetricRecord
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import metrics
from backprop.scheduler.store.schema import Checkpoint, Run, Segment

KEPT_CHECKPOINTS: Final = 20


@dataclass(frozen=True, kw_only=True)
class SegmentReport:
    """What a segment said since the last read. Offsets are bytes into its log and its events file. `nonfinite`: that
    its loss is NaN or infinite. `spotted`: checkpoints that were seen on disk rather than announced. `metrics`: the
    last value of each name."""

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
    metrics: Sequence[MetricRecord] = ()


def record(database: Database, run_id: str, number: int, heard: SegmentReport) -> bool:
    """Store what a segment said, once: compare-and-set on the offsets read from. False if it was stored before."""
    from peewee import fn

    def verb() -> bool:
        values: dict[str, Any] = {
            "log_offset": heard.log_to,
            "events_offset": heard.events_to,
            "bad_events": Segment.bad_events + heard.bad_events,
        }
        if heard.first_output_s is not None:
            values["first_output_s"] = heard.first_output_s
        if heard.first_step is not None:
            values["first_step"] = fn.COALESCE(Segment.first_step, heard.first_step)
        here = (Segment.run_id == run_id) & (Segment.number == number)
        at = (Segment.log_offset == heard.log_from) & (Segment.events_offset == heard.events_from)
        if not Segment.update(values).where(here & at).execute():
            return False
        for checkpoint in heard.checkpoints:
            if not _known(checkpoint):
                _forget_same_file(checkpoint)
                insert_checkpoint(checkpoint)
        for checkpoint in heard.spotted:
            if not Checkpoint.select().where(_same_file(checkpoint)).exists():
                insert_checkpoint(checkpoint)
        if heard.checkpoints or heard.spotted:
            _forget_old_checkpoints(run_id)
        metrics.store(run_id, number, heard.metrics)
        said = {"last_step": heard.last_step, "last_loss": heard.last_loss}
        news: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        if heard.nonfinite:
            news["fault"] = Fault.NAN
        if news:
            Run.update(news).where(Run.id == run_id).execute()
        return True

    return database.write(verb)


def _known(checkpoint: CheckpointRecord) -> bool:
    """Heard before, from a log that was truncated since: put in again, it would look like the newest."""
    said = (Checkpoint.segment == checkpoint.segment) & (Checkpoint.step == checkpoint.step)
    return checkpoint.refused is None and Checkpoint.select().where(_same_file(checkpoint) & said).exists()


def _same_file(checkpoint: CheckpointRecord) -> Any:
    """The very same content at the same place, whichever segment it was told of."""
    same = (Checkpoint.run_id == checkpoint.run_id) & (Checkpoint.path == checkpoint.path)
    return (
        same & (Checkpoint.mtime_ns == checkpoint.mtime_ns) & (Checkpoint.size_bytes == checkpoint.size_bytes)
    )


def _forget_same_file(checkpoint: CheckpointRecord) -> None:
    """Seen on disk before it was announced: the script's own word says more, its step above all."""
    mine = (Checkpoint.segment == checkpoint.segment) & Checkpoint.refused.is_null()
    if checkpoint.refused is None:
        Checkpoint.delete().where(_same_file(checkpoint) & mine).execute()


def insert_checkpoint(checkpoint: CheckpointRecord) -> None:
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
    ).execute()


def _forget_old_checkpoints(run_id: str) -> None:
    """Keep the newest good and the newest refused claims of a run. Forgets rows only: files are the user's."""
    for kind in (Checkpoint.refused.is_null(), ~Checkpoint.refused.is_null()):
        mine = (Checkpoint.run_id == run_id) & kind
        newest = Checkpoint.select(Checkpoint.serial).where(mine).order_by(Checkpoint.serial.desc())
        Checkpoint.delete().where(mine & Checkpoint.serial.not_in(newest.limit(KEPT_CHECKPOINTS))).execute()
