"""Finds the live runs whose places waiting runs could use: at the end of their boxes that makes a difference.

A waiting run could use a place if it fits into what that run frees together with all that are leaving already. One that
has waited for long has every place kept for it that it needs, until it fits.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.config.choices import SuspendRule
from backprop.scheduler.config.settings import Settings
from backprop.scheduler.governor import starvation
from backprop.scheduler.governor.box_end import BoxRule, rule_of
from backprop.scheduler.governor.decide import Decision, Denial, Rule
from backprop.scheduler.governor.snapshot import Gpu
from backprop.scheduler.governor.suspension import comes_first
from backprop.scheduler.lifecycle import HOLDS_A_SLOT, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec
from backprop.worker.admission.judge import Judge
from backprop.worker.machine.state import MachineState
from backprop.worker.segments.boxes.facts import Wanted
from backprop.worker.segments.boxes.known import claims_to_resume

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
    suspending: Collection[str] = (),
    movable: Collection[str] = (),
) -> dict[str, Wanted]:
    """Return the live runs that are wanted, by id. `waiting`: with why each waits, in queue order. `full_groups`: that
    have reached their cap and have members waiting. `now_s`: Unix seconds. `suspending`: ids of the runs that are about
    to be suspended. `movable`: of those whose VRAM would be moved to RAM then."""
    live = [run for run in live if run.state in HOLDS_A_SLOT]
    leaving = {run.id for run in live if run.intent is not None or run.id in suspending}
    all_ids = {run.id for run in live}
    wanted = {run.id: group_wants(run) for run in live if run.group_name in full_groups}
    without: dict[tuple[frozenset[str], bool], MachineState] = {}

    def fits(run: RunRecord, gone: Collection[str], suspended: bool = False) -> bool:
        key = frozenset(gone), suspended
        if key not in without:
            slots = msgspec.structs.replace(state, suspended=state.suspended | key[0])
            without[key] = (
                _without_vram(slots, key[0] & frozenset(movable)) if suspended else _without(state, key[0])
            )
        judge = Judge(without[key], settings)
        if run.state is State.SUSPENDED:
            _, decision = judge.judge_thaw(run)
        else:
            _, decision = judge.judge(run.spec, learned_mib.get(run.id), run.need_mib)
        passing = frozenset({Rule.LOAD}) if suspended else COME_BACK
        return decision.infeasible is None and {one.rule for one in decision.denials} <= passing

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
                before = wanted.get(other.id, Wanted())
                wanted[other.id] = msgspec.structs.replace(before, urgently=before.urgently or urgently)
                if not before.beside and fits(run, leaving | {other.id}, suspended=True):
                    swaps = run.state is State.SUSPENDED
                    wanted[other.id] = msgspec.structs.replace(wanted[other.id], beside=True, swaps=swaps)
    return wanted


def group_wants(run: RunRecord) -> Wanted:
    """Return that a member of a group at its cap is wanted by the others. They could run beside it where none of them
    needs a GPU."""
    return Wanted(beside=run.spec.gpus == 0 or run.spec.gpu_probe == "none")


def suspended_first(
    run: RunRecord,
    candidates: Sequence[RunRecord],
    thawed: Collection[str],
    state: MachineState,
    settings: Settings,
) -> Denial | None:
    """Return why a queued run does not start before those that are suspended, or None. One that is said to resume need
    not be suspended in its turn."""
    if len(state.suspended) < settings.max_suspended or not _would_be_suspended(run.spec):
        return None
    waiting = sum(
        one.state is State.SUSPENDED and one.id not in thawed and one.priority >= run.priority
        for one in candidates
    )
    return comes_first(waiting, len(state.suspended), settings.max_suspended)


def _would_be_suspended(spec: RunSpec) -> bool:
    kept = spec.suspend == SuspendRule.NEVER or rule_of(spec) is not BoxRule.AUTO or spec.order == "fifo"
    return not kept and not claims_to_resume(spec, announces=False)


def _without(state: MachineState, gone: Collection[str]) -> MachineState:
    """Return the state as it would be without these runs."""
    segments = [segment for segment in state.segments if segment.run_id not in gone]
    return msgspec.structs.replace(_without_vram(state, gone), segments=segments)


def _without_vram(state: MachineState, gone: Collection[str]) -> MachineState:
    """Return the state as it would be without the VRAM of these runs."""
    freed: dict[str, int] = {}
    for reservation in state.reservations:
        if reservation.run_id in gone:
            mib = reservation.promised_mib if reservation.seen_mib is None else reservation.seen_mib
            freed[reservation.gpu_uuid] = freed.get(reservation.gpu_uuid, 0) + mib
    gpus = tuple(_with_more(gpu, freed.get(gpu.uuid, 0)) for gpu in state.snapshot.gpus)
    return msgspec.structs.replace(
        state,
        snapshot=msgspec.structs.replace(state.snapshot, gpus=gpus),
        reservations=[one for one in state.reservations if one.run_id not in gone],
    )


def _with_more(gpu: Gpu, mib: int) -> Gpu:
    if gpu.free_mib is None:
        return gpu
    most_mib = gpu.total_mib if gpu.total_mib is not None else gpu.free_mib + mib
    return msgspec.structs.replace(gpu, free_mib=min(gpu.free_mib + mib, most_mib))
