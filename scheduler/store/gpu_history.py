"""Remembers the GPUs: VRAM peaks of segments, what other programs used, and quarantined GPUs."""

# peewee's query builder is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from backprop.scheduler.records import ForeignPeakRecord, QuarantineRecord
from backprop.scheduler.spec import RunSpec
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.schema import GpuForeignPeak, Quarantine, Run, Segment, Worker

LEARNED_FROM: Final = 20
"""So many of the newest segments of the same script tell what it needs."""


def record_peak(database: Database, run_id: str, number: int, peak_mib: int) -> None:
    """A segment was seen to use `peak_mib` on a GPU; kept if it is the most so far."""
    more = Segment.peak_mib.is_null() | (Segment.peak_mib < peak_mib)
    here = (Segment.run_id == run_id) & (Segment.number == number)
    database.write(lambda: Segment.update(peak_mib=peak_mib).where(here & more).execute())


def learned_mib(database: Database, run_id: str, spec: RunSpec) -> int | None:
    """The most VRAM this run's earlier segments were seen to use, else those of the same script; None if unknown."""

    def query() -> int | None:
        from peewee import fn

        own = Segment.select(fn.MAX(Segment.peak_mib)).where(Segment.run_id == run_id).scalar()
        if own is not None:
            return own
        script = spec.script or spec.program
        recent: Any = (
            Segment.select(Segment.peak_mib)
            .join(Run, on=(Run.id == Segment.run_id))
            .where((Run.script == script) & ~Segment.peak_mib.is_null())
            .order_by(Segment.serial.desc())
            .limit(LEARNED_FROM)
            .tuples()
        )
        return max((peak for (peak,) in recent), default=None)

    return database.read(query)


def set_quarantine(database: Database, worker: str, reasons: Mapping[str, str], now_s: float) -> None:
    """This worker keeps aside exactly these GPUs, by UUID with the reason; it takes back the others it had."""

    def verb() -> None:
        mine = Quarantine.worker == worker
        Quarantine.delete().where(mine & Quarantine.gpu_uuid.not_in(list(reasons))).execute()
        for uuid, reason in reasons.items():
            row = {"gpu_uuid": uuid, "worker": worker, "reason": reason, "since_s": now_s}
            keep = {Quarantine.reason: reason, Quarantine.worker: worker}
            Quarantine.insert(row).on_conflict(conflict_target=[Quarantine.gpu_uuid], update=keep).execute()

    database.write(verb)


def quarantined(database: Database) -> list[QuarantineRecord]:
    """The GPUs kept aside, by whichever worker is there: one that has gone cannot take anything back."""

    def query() -> list[QuarantineRecord]:
        there = Worker.select(Worker.id).where(Worker.stopped_at_s.is_null())
        rows = Quarantine.select().where(Quarantine.worker.in_(there))
        return [QuarantineRecord(**row.__data__) for row in rows]

    return database.read(query)


def record_foreign_peaks(database: Database, peaks: Sequence[ForeignPeakRecord]) -> None:
    """Replace what is remembered of these GPUs. Call it only for news: it is a write each time."""

    def verb() -> None:
        for peak in peaks:
            pids = msgspec.json.encode(peak.pids).decode()
            GpuForeignPeak.replace(gpu_uuid=peak.gpu_uuid, mib=peak.mib, pids=pids, at_s=peak.at_s).execute()

    database.write(verb)


def foreign_peaks(database: Database) -> list[ForeignPeakRecord]:
    """What other programs were lately seen to use, one record per GPU. The reader judges whether it still counts."""

    def query() -> list[ForeignPeakRecord]:
        return [
            ForeignPeakRecord(
                gpu_uuid=row.gpu_uuid,
                mib=row.mib,
                pids=msgspec.json.decode(row.pids, type=tuple[int, ...]),
                at_s=row.at_s,
            )
            for row in GpuForeignPeak.select()
        ]

    return database.read(query)
