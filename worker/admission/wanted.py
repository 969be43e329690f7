"""Finds the live runs whose places waiting runs could use: at the end of their boxes that makes a difference.

A waiting run could use a place if it fits into what that run frees together with all that are leaving already. One that
has waited for long has every place kept for it that it needs, until it fits.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from backprop.scheduler.config.settings import Settings
from backprop.scheduler.governor import starvation
from backprop.scheduler.governor.decide import Decision, Rule
from backprop.scheduler.governor.snapshot import Gpu
from backprop.scheduler.records import RunRecord
from backprop.worker.admission.judge import Judge
from backprop.worker.machine.state import MachineState
from backprop.worker.segments.boxes.facts import Wanted

ASKED: Final = 16
"""So many of the front of the queue are looked at."""
COME_BACK: Final = frozenset({Rule.RAM, Rule.LOAD})
"""What an end frees as well, by amounts that nobody knows beforehand."""
ELSEWHERE: Final = frozenset({Rule.PATH, Rule.PORT, Rule.HOST, Rule.DRAINED, Rule.HOURS, Rule.DISK})
"""What no end of a run of ours changes."""


def wanted_places(
    waiting: Sequence[tuple[RunRecord, Decision]],
    live: Sequence[RunRecord],
    state: MachineState,
    settings: Settings,
    learned_mib: Mapping[str, int | None],
    full_groups: Collection[str],
    now_s: float,
) -> dict[str, Wanted]:
    """Return the live runs that are wanted, by id. `waiting`: with why each waits, in queue order. `full_groups`: that
    have reached their cap and have members waiting. `now_s`: Unix seconds."""
    leaving = {run.id for run in live if run.intent is not None}
    all_ids = {run.id for run in live}
    wanted = {run.id: Wanted() for run in live if run.group_name in full_groups}
    without: dict[frozenset[str], MachineState] = {}

    def fits(run: RunRecord, gone: Collection[str]) -> bool:
        key = frozenset(gone)
        if key not in without:
            without[key] = _without(state, key)
        _, decision = Judge(without[key], settings).judge(run.spec, learned_mib.get(run.id), run.need_mib)
        return decision.infeasible is None and {one.rule for one in decision.denials} <= COME_BACK

    for run, decision in waiting[:ASKED]:
        if ELSEWHERE & {denial.rule for denial in decision.denials}:
            continue
        since_s = [rule.since_s for rule in run.waiting]
        aged = bool(since_s) and now_s - min(since_s) >= starvation.STARVING_S
        for other in live:
            if other.id in leaving or (other.id in wanted and wanted[other.id].urgently):
                continue
            if fits(run, leaving | {other.id}) or (aged and fits(run, all_ids)):
                urgently = aged or run.priority > other.priority
                wanted[other.id] = Wanted(urgently=urgently)
    return wanted


def _without(state: MachineState, gone: Collection[str]) -> MachineState:
    """Return the state as it would be without these runs."""
    freed: dict[str, int] = {}
    for reservation in state.reservations:
        if reservation.run_id in gone:
            mib = reservation.promised_mib if reservation.seen_mib is None else reservation.seen_mib
            freed[reservation.gpu_uuid] = freed.get(reservation.gpu_uuid, 0) + mib
    gpus = tuple(_with_more(gpu, freed.get(gpu.uuid, 0)) for gpu in state.snapshot.gpus)
    return replace(
        state,
        snapshot=replace(state.snapshot, gpus=gpus),
        segments=[segment for segment in state.segments if segment.run_id not in gone],
        reservations=[one for one in state.reservations if one.run_id not in gone],
    )


def _with_more(gpu: Gpu, mib: int) -> Gpu:
    if gpu.free_mib is None:
        return gpu
    most_mib = gpu.total_mib if gpu.total_mib is not None else gpu.free_mib + mib
    return replace(gpu, free_mib=min(gpu.free_mib + mib, most_mib))
