"""Keeps what the machine was like and why nothing started, for reports of nights that have passed.

Samples are bounded: one per GPU and one of the host every half minute, whoever writes them, for two days. After that
one in five minutes stays, for 90 days. A change of the reasons is kept at once.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.records import NOT_DUE, NOTHING_QUEUED, ClockChange, Refusal
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.rows import execute, insert_row

EVERY_S: Final = 30.0
THINNED_AFTER_S: Final = 2 * 86400.0
THINNED_TO_S: Final = 300
KEPT_S: Final = 90 * 86400.0
_THINNED_WITHIN_S: Final = 7 * 86400.0
"""A machine that was off for longer keeps two days of samples whole, until their time is over."""
_SAME_CHANGE_S: Final = 10.0

_IS_RECENT: Final = "SELECT 1 FROM samples WHERE at_s > ? AND at_s <= ? LIMIT 1"
_HAS_QUEUED: Final = "SELECT 1 FROM runs WHERE state = 'queued' LIMIT 1"
_ALIVE: Final = "SELECT run_id, gpu_uuids FROM segments WHERE ended_at_s IS NULL ORDER BY serial"
_THIN: Final = f"""
    DELETE FROM samples WHERE at_s >= :begin AND at_s < :end AND serial NOT IN (
        SELECT MIN(serial) FROM samples WHERE at_s >= :begin AND at_s < :end
        GROUP BY gpu_uuid, CAST(at_s / {THINNED_TO_S} AS INTEGER))
"""
_KNOWN_CHANGE: Final = "SELECT 1 FROM clock_changes WHERE ABS(at_s - ?) < ? AND ABS(by_s - ?) < 2 LIMIT 1"


def keep(
    database: Database,
    snapshot: Snapshot | None,
    now_s: float,
    refusals: Collection[Refusal] = (),
    limits_c: Mapping[str, int] | None = None,
    *,
    at_once: bool = False,
) -> bool:
    """Keep a reading of host and GPUs, unless a recent one is there. False if it is.

    `snapshot` None: the machine was not read. `refusals`: why the head of the queue does not start; none where there is
    no head. `limits_c`: by GPU UUID. `at_once`: even beside a recent one.
    """

    def verb() -> bool:
        if not at_once and database.rows(_IS_RECENT, now_s - EVERY_S, now_s):
            return False
        told = tuple(refusals) or ((NOT_DUE,) if database.rows(_HAS_QUEUED) else (NOTHING_QUEUED,))
        alive = [
            (run_id, msgspec.json.decode(uuids, type=list[str])) for run_id, uuids in database.rows(_ALIVE)
        ]
        host = snapshot.host if snapshot is not None else None
        values: dict[str, Any] = {
            "at_s": now_s,
            "free_mib": host.ram_free_mib if host else None,
            "load_1m": host.load_1m if host else None,
            "run_ids": _json([run_id for run_id, _ in alive]),
            "refusals": _json(told),
            "disks": _json({folder: free for folder, free in host.disks if free is not None})
            if host
            else None,
        }
        insert_row("samples", values)
        for gpu in snapshot.gpus if snapshot is not None else ():
            values = {
                "at_s": now_s,
                "gpu_uuid": gpu.uuid,
                "gpu_index": gpu.index,
                "gpu_name": gpu.name,
                "free_mib": gpu.free_mib,
                "total_mib": gpu.total_mib,
                "temp_c": gpu.temp_c,
                "limit_c": (limits_c or {}).get(gpu.uuid),
                "utilisation_pct": gpu.utilisation_pct,
                "power_w": gpu.power_w,
                "run_ids": _json([run_id for run_id, uuids in alive if gpu.uuid in uuids]),
            }
            insert_row("samples", values)
        return True

    return database.write(verb)


def thin(database: Database, now_s: float) -> None:
    """Delete what is not to be kept any more. Call it now and then."""
    end_s = (now_s - THINNED_AFTER_S) // THINNED_TO_S * THINNED_TO_S

    def verb() -> None:
        execute("DELETE FROM samples WHERE at_s < ?", (now_s - KEPT_S,))
        execute("DELETE FROM clock_changes WHERE at_s < ?", (now_s - KEPT_S,))
        execute(_THIN, {"begin": end_s - _THINNED_WITHIN_S, "end": end_s})

    database.write(verb)


def note_clock_change(database: Database, change: ClockChange) -> None:
    """Keep it, unless another worker has."""

    def verb() -> None:
        if not database.rows(_KNOWN_CHANGE, change.at_s, _SAME_CHANGE_S, change.by_s):
            insert_row("clock_changes", msgspec.structs.asdict(change))

    database.write(verb)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
