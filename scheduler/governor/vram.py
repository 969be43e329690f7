"""Counts how much of a GPU may still be reserved.

    available = usable - reserved by our runs - used by other programs

A run counts with its reservation, or with its use if that is more, so nothing is reserved twice. Runs of other homes
on this machine count the same way, by what those homes promise. Whatever the reading shows beyond is foreign. So the
available memory never exceeds what is free now less the parts of reservations not yet taken, and nothing that is in use
is reserved.

Foreign use is what neither our runs nor the driver's own reserve account for. Its recent peak counts for a while
longer, since a pause in somebody else's job is not free space. Where the driver does not say which process uses what
(containers, WSL2), a run's use is bounded by its reservation: it counts as foreign until the run has settled, and as
the run's own after that.

A unified GPU shares the host's RAM: its memory is what RAM has beyond the floor kept free, and all unified GPUs draw on
that one pool.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.governor.snapshot import Gpu, Snapshot

SETTLE_S: Final = 120.0
"""A run that has not touched the GPU by then counts as settled. Importing torch and building a data set can take most
of a minute on a cold disk; judged, not measured."""

PEAK_HOLD_S: Final = 300.0
"""How long a foreign peak counts after it was last reached, while the process that made it may still live."""

PEAK_CONFIRM_S: Final = 10.0
"""Foreign use must last this long to be held as a peak. Otherwise the seconds between a run's end and the driver's
taking its memory back would look like a foreign process, after every segment."""


PEAK_STEP_MIB: Final = 64
"""A peak that moved by less is the same peak."""

PEAK_REFRESH_S: Final = 60.0
"""A recorded peak that still holds is recorded anew this often, so that others do not take it for over."""


class Reservation(msgspec.Struct, frozen=True):
    """What one running run has reserved on one GPU; a run on several GPUs has one for each.

    `seen_mib`: the run's own use there in the *same* reading as the snapshot; None if it cannot be told. `started_s`:
    Unix seconds. `settled`: its allocation has shown, or has had its time to. `exclusive`: no other may share the GPU.
    `elsewhere`: it is a run of another home, which has no `run_id` here.
    """

    run_id: str
    gpu_uuid: str
    promised_mib: int
    seen_mib: int | None
    started_s: float
    settled: bool
    exclusive: bool = False
    elsewhere: bool = False


class ForeignPeak(msgspec.Struct, frozen=True):
    """What is remembered of foreign use on one GPU, see `hold_peaks`.

    `held_mib` was last reached at `held_s` by a process among `pids` (empty: the driver names none). `lowest_mib` is
    the lowest reading since `window_s`: use that lasts through a window is confirmed.
    """

    held_mib: int
    held_s: float
    pids: frozenset[int]
    lowest_mib: int
    window_s: float


class Room(msgspec.Struct, frozen=True):
    """A GPU's memory in MiB, as the governor counts it.

    `usable_mib`: what it could ever hand out. `free_mib`: free now. `promised_mib`: reserved by all runs on it, each
    counted with at least its use. `untaken_mib`: reserved, but not allocated yet. `foreign_mib`: other programs', the
    held peak included. `available_mib`: what may be reserved now; may be negative. `elsewhere_mib`: the part of
    `promised_mib` that other homes have promised.
    """

    usable_mib: int
    free_mib: int
    promised_mib: int
    untaken_mib: int
    foreign_mib: int
    available_mib: int
    elsewhere_mib: int = 0


def allocation_has_shown(seen_mib: int | None, age_s: float, settle_s: float = SETTLE_S) -> bool:
    """Return whether a run's allocation shows on the device, or has had its time to."""
    return bool(seen_mib) or age_s >= settle_s


def usable_mib(gpu: Gpu, snapshot: Snapshot, ram_floor_mib: int = 0) -> int | None:
    """Return what the GPU could hand out if nothing used it; None if that cannot be told."""
    if gpu.unified:
        total_mib = snapshot.host.ram_total_mib
        return None if total_mib is None else max(0, total_mib - ram_floor_mib)
    return None if gpu.total_mib is None else gpu.total_mib - (gpu.reserved_mib or 0)


def room(
    gpu: Gpu,
    snapshot: Snapshot,
    reservations: Iterable[Reservation],
    peaks: Mapping[str, ForeignPeak] | None = None,
    ram_floor_mib: int = 0,
) -> Room | None:
    """Count one GPU's memory; None if it cannot be read. `reservations`: of all runs on the machine."""
    memory = _usable_and_free(gpu, snapshot, ram_floor_mib)
    if memory is None:
        return None
    usable, free = memory
    held = (peaks or {}).get(gpu.uuid)
    return _count(usable, free, sharing(gpu, snapshot, reservations), held.held_mib if held else 0)


def sharing(gpu: Gpu, snapshot: Snapshot, reservations: Iterable[Reservation]) -> tuple[Reservation, ...]:
    """Return the reservations that draw on the same memory as `gpu`."""
    pool = {other.uuid for other in snapshot.gpus if other.unified} if gpu.unified else {gpu.uuid}
    return tuple(reservation for reservation in reservations if reservation.gpu_uuid in pool)


def hold_peaks(
    peaks: Mapping[str, ForeignPeak],
    snapshot: Snapshot,
    reservations: Sequence[Reservation],
    now_s: float,
    hold_s: float = PEAK_HOLD_S,
) -> dict[str, ForeignPeak]:
    """Carry the foreign peaks over one more reading. Call it for every reading, with the same clock.

    A peak falls at once when every process that was there at its time is gone, else `hold_s` after foreign use could
    last have been as high. A GPU that cannot be read keeps what is remembered of it.
    """
    held = dict(peaks)
    for gpu in snapshot.gpus:
        memory = _usable_and_free(gpu, snapshot, 0)
        if memory is None:
            continue
        least, most = _foreign_bounds(memory[0] - memory[1], sharing(gpu, snapshot, reservations))
        pids = frozenset(pid for pid, _ in gpu.used_by_pid)
        old = peaks.get(gpu.uuid)
        held[gpu.uuid] = _carry(old, least, most, pids, now_s, hold_s) if old else _first(least, pids, now_s)
    return held


def adopt_peaks(
    own: Mapping[str, ForeignPeak], recorded: Mapping[str, ForeignPeak]
) -> dict[str, ForeignPeak]:
    """Combine what a process remembers with what any process recorded: per GPU, the higher peak counts."""
    combined = {**recorded, **own}
    for uuid, peak in recorded.items():
        if peak.held_mib >= combined[uuid].held_mib + PEAK_STEP_MIB:
            combined[uuid] = msgspec.structs.replace(
                combined[uuid], held_mib=peak.held_mib, held_s=peak.held_s, pids=peak.pids
            )
    return combined


def is_news(peak: ForeignPeak, recorded: ForeignPeak | None) -> bool:
    """Return whether `peak` has to be recorded: another amount, none of the recorded
    processes any more, or a record that grows old."""
    old_mib = 0 if recorded is None else recorded.held_mib
    if max(peak.held_mib, old_mib) < PEAK_STEP_MIB:
        return False
    if recorded is None or abs(peak.held_mib - old_mib) >= PEAK_STEP_MIB:
        return True
    others = bool(peak.pids) and not (peak.pids & recorded.pids)
    return others or peak.held_s - recorded.held_s >= PEAK_REFRESH_S


def _usable_and_free(gpu: Gpu, snapshot: Snapshot, ram_floor_mib: int) -> tuple[int, int] | None:
    usable = usable_mib(gpu, snapshot, ram_floor_mib)
    free = snapshot.host.ram_free_mib if gpu.unified else gpu.free_mib
    if usable is None or free is None or gpu.error is not None:
        return None
    return usable, min(usable, free - ram_floor_mib if gpu.unified else free)


def _count(usable: int, free: int, ours: Sequence[Reservation], peak_mib: int) -> Room:
    counted = [(own.elsewhere, max(own.promised_mib, own.seen_mib or 0)) for own in ours]
    promised = sum(mib for _, mib in counted)
    elsewhere = sum(mib for is_elsewhere, mib in counted if is_elsewhere)
    used = usable - free
    # A run whose use cannot be told may not have allocated yet: until it settles, what is used is foreign.
    known = sum(own.seen_mib for own in ours if own.seen_mib is not None)
    silent = sum(own.promised_mib for own in ours if own.seen_mib is None and own.settled)
    foreign = max(peak_mib, used - known - silent, 0)
    untaken = sum(max(0, own.promised_mib - (own.seen_mib or 0)) for own in ours)
    untaken -= max(0, used - known - foreign)
    return Room(usable, free, promised, untaken, foreign, usable - promised - foreign, elsewhere)


def _foreign_bounds(used: int, ours: Sequence[Reservation]) -> tuple[int, int]:
    """Return the least and the most that others may be using, given runs whose own use cannot be told."""
    known = sum(own.seen_mib for own in ours if own.seen_mib is not None)
    silent = sum(own.promised_mib for own in ours if own.seen_mib is None)
    return max(0, used - known - silent), max(0, used - known)


def _first(least: int, pids: frozenset[int], now_s: float) -> ForeignPeak:
    return ForeignPeak(held_mib=0, held_s=now_s, pids=pids, lowest_mib=least, window_s=now_s)


def _carry(
    old: ForeignPeak, least: int, most: int, pids: frozenset[int], now_s: float, hold_s: float
) -> ForeignPeak:
    lowest, window_s = min(old.lowest_mib, least), old.window_s
    held_mib, held_s, makers = old.held_mib, old.held_s, old.pids
    gone = bool(makers) and not (makers & pids)
    if most >= held_mib and not gone:
        held_s = now_s
    if gone or now_s - held_s >= hold_s:
        held_mib, held_s, makers = min(lowest, held_mib), now_s, pids
    if now_s - window_s >= PEAK_CONFIRM_S:
        if lowest >= held_mib:
            held_mib, held_s, makers = lowest, now_s, pids
        lowest, window_s = least, now_s
    return ForeignPeak(held_mib, held_s, makers, lowest, window_s)
