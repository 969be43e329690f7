"""Assembles the state of the machine that the governor decides on.

Admission, the runtime monitor, `--dry-run` and `status` all get the same object, so that none of them can promise
what another refuses. It holds one reading of the machine, what the live segments were promised and use in that
reading, what other programs lately used, which GPUs are quarantined, and whether anything may start at all.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from backprop.scheduler.config.settings import Settings
from backprop.scheduler.governor import gpu_quarantine, opening
from backprop.scheduler.governor.decide import Decision, decide
from backprop.scheduler.governor.model import Denial, Limits, Need
from backprop.scheduler.governor.need import reservations_of
from backprop.scheduler.governor.snapshot import Gpu, Snapshot
from backprop.scheduler.governor.suspension import may_return, need_to_thaw
from backprop.scheduler.governor.vram import (
    ForeignPeak,
    Reservation,
    Room,
    adopt_peaks,
    allocation_has_shown,
    hold_peaks,
    is_news,
    room,
)
from backprop.scheduler.records import ForeignPeakRecord, SegmentRecord
from backprop.scheduler.store import drain, gpu_history
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import queries
from backprop.worker.clock import Clock
from backprop.worker.executor.base import Executor
from backprop.worker.machine.gpu_usage import Processes, Usage, processes_of, usage_of, use_below


class Opening(msgspec.Struct, frozen=True):
    """Whether anything may start. `drained`: why and since when the user stopped all starts. `closed`: why nothing
    may start now, for that or for the active hours; None when runs may start."""

    drained: opening.Drained | None
    closed: Denial | None


class Remembered(msgspec.Struct, frozen=True):
    """What a process knows from its earlier readings. `peaks`: other programs' use, by GPU UUID, on the monotonic
    clock. `quarantined`: GPU UUID → why, of the GPUs that it quarantines itself."""

    peaks: Mapping[str, ForeignPeak] = {}
    quarantined: Mapping[str, str] = {}


class MachineState(msgspec.Struct, frozen=True):
    """The machine at one moment, with what the runs on it were promised and use in the same reading.

    `suspended`: ids of the runs that keep their promises and hold no slot. `serial`: the admission serial that
    `segments` knows of. `segments`: all live ones of this machine, of any worker. `processes`: their pids. `usage`:
    theirs. `reservations`: theirs, and those of other homes, which `elsewhere` holds alone. `peaks`: other programs'
    recent use, carried over to this reading. `recorded`: the same as the database had it. `quarantined`: GPU UUID → why
    no run may start there.
    """

    snapshot: Snapshot
    serial: int
    segments: list[SegmentRecord]
    processes: Processes
    usage: Usage
    reservations: list[Reservation]
    elsewhere: list[Reservation]
    peaks: dict[str, ForeignPeak]
    recorded: dict[str, ForeignPeak]
    quarantined: dict[str, str]
    opening: Opening
    suspended: frozenset[str] = frozenset()

    @property
    def running(self) -> int:
        """How many runs hold a slot."""
        return sum(segment.run_id not in self.suspended for segment in self.segments)

    def decide(
        self, need: Need, limits: Limits, planned: Sequence[Reservation] = (), starting: int = 0
    ) -> Decision:
        """Judge one start. `planned`: reservations of the `starting` runs that are about to start too."""
        reservations = [*self.reservations, *planned]
        running = self.running + starting
        return decide(need, limits, self.snapshot, reservations, running, self.quarantined, self.peaks)

    def without(self, run_id: str) -> "MachineState":
        """Return the same state as if nothing were promised to a run."""
        left = [one for one in self.reservations if one.elsewhere or one.run_id != run_id]
        return msgspec.structs.replace(self, reservations=left)

    def judge_return(
        self, segment: SegmentRecord, limits: Limits, planned: Sequence[Reservation] = ()
    ) -> tuple[Need, tuple[Denial, ...]]:
        """Judge whether the VRAM of a suspended segment may come back from RAM; also return what it is promised then.
        `planned`: as for `decide`."""
        out_mib = segment.vram_out_mib or 0
        need = need_to_thaw(segment.promised_mib, segment.peak_mib, out_mib, segment.exclusive)
        reservations = [*self.reservations, *planned]
        uuid, quarantined = segment.gpu_uuids[0], self.quarantined
        return need, may_return(need, limits, self.snapshot, reservations, uuid, quarantined, self.peaks)

    def room(self, gpu: Gpu) -> Room | None:
        """Count one GPU's memory; None if it cannot be read."""
        return room(gpu, self.snapshot, self.reservations, self.peaks)


def read_state(
    database: Database | None,
    snapshot: Snapshot,
    executor: Executor,
    settings: Settings,
    clock: Clock,
    remembered: Remembered | None = None,
) -> MachineState:
    """Put a reading together with what the database and this process know. `database` None: nothing was ever queued.

    Raises DatabaseBusy."""
    remembered = remembered or Remembered()
    serial, everywhere = queries.live_segments(database) if database is not None else (0, [])
    segments = [segment for segment in everywhere if segment.cluster is None]
    processes = processes_of(segments, snapshot, executor)
    usage = usage_of(segments, snapshot, processes)
    elsewhere = _promised_elsewhere(snapshot, executor, clock)
    reservations = [*reservations_of(segments, usage, clock.since_s), *elsewhere]
    recorded: dict[str, ForeignPeak] = {}
    quarantined = dict(remembered.quarantined)
    if database is not None and snapshot.gpus:
        recorded = {record.gpu_uuid: _peak(record, clock) for record in gpu_history.foreign_peaks(database)}
        others = {record.gpu_uuid: record.reason for record in gpu_history.quarantined(database)}
        quarantined = gpu_quarantine.merged(quarantined, others)
    peaks = adopt_peaks(remembered.peaks, recorded)
    return MachineState(
        snapshot=snapshot,
        serial=serial,
        segments=segments,
        processes=processes,
        usage=usage,
        reservations=reservations,
        elsewhere=elsewhere,
        peaks=hold_peaks(peaks, snapshot, reservations, clock.monotonic_s()),
        recorded=recorded,
        quarantined=quarantined,
        opening=read_opening(database, settings, clock.wall_s()),
        suspended=queries.suspended(database) if database is not None else frozenset(),
    )


def look_elsewhere_again(state: MachineState, executor: Executor, clock: Clock) -> MachineState:
    """Return the same state with what other homes have promised by now."""
    elsewhere = _promised_elsewhere(state.snapshot, executor, clock)
    own = [reservation for reservation in state.reservations if not reservation.elsewhere]
    return msgspec.structs.replace(state, elsewhere=elsewhere, reservations=[*own, *elsewhere])


def _promised_elsewhere(snapshot: Snapshot, executor: Executor, clock: Clock) -> list[Reservation]:
    """Return the reservations of other homes on the GPUs of this reading."""
    found: list[Reservation] = []
    for promise in executor.board.others() if snapshot.gpus else ():
        for gpu in snapshot.gpus:
            if gpu.uuid in promise.gpus:
                seen_mib = use_below(gpu, promise.holder)
                found.append(
                    Reservation(
                        run_id="",
                        gpu_uuid=gpu.uuid,
                        promised_mib=promise.mib,
                        seen_mib=seen_mib,
                        started_s=promise.since_s,
                        settled=allocation_has_shown(seen_mib, clock.since_s(promise.since_s)),
                        exclusive=promise.exclusive,
                        elsewhere=True,
                    )
                )
    return found


def read_opening(database: Database | None, settings: Settings, now_s: float) -> Opening:
    """Return whether anything may start at `now_s` (Unix seconds). Raises DatabaseBusy."""
    drained = drain.drained(database) if database is not None else None
    return Opening(drained, _closed(drained, settings.active_hours or (), int(now_s // 60)))


@lru_cache(maxsize=4)
def _closed(drained: opening.Drained | None, active_hours: tuple[str, ...], minute: int) -> Denial | None:
    """Work it out once per minute: the next opening is found by going through the week."""
    return opening.closed(drained, active_hours, minute * 60.0)


def unrecorded_peaks(state: MachineState, clock: Clock) -> list[ForeignPeakRecord]:
    """The peaks of the GPUs in this reading that the database does not have yet. Empty most of the time."""
    to_wall_s = clock.wall_s() - clock.monotonic_s()
    return [
        ForeignPeakRecord(
            gpu_uuid=uuid, mib=peak.held_mib, pids=tuple(sorted(peak.pids)), at_s=peak.held_s + to_wall_s
        )
        for uuid, peak in state.peaks.items()
        if state.snapshot.gpu(uuid) is not None and is_news(peak, state.recorded.get(uuid))
    ]


def _peak(record: ForeignPeakRecord, clock: Clock) -> ForeignPeak:
    """A recorded peak on the monotonic clock: the wall clock may have been set since."""
    now_s = clock.monotonic_s()
    held_s = now_s - clock.since_s(record.at_s)
    return ForeignPeak(record.mib, held_s, frozenset(record.pids), lowest_mib=record.mib, window_s=now_s)
