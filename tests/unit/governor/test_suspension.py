"""Suspended runs keep their RAM: whatever is frozen and thawed, in any order, it fits, and everybody has a turn."""

import random
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from backprop.scheduler.governor.decide import Reservation, Rule
from backprop.scheduler.governor.suspension import (
    PROMISED_RAM_MIB,
    RamRoom,
    comes_first,
    may_return,
    may_thaw,
    need_to_thaw,
    why_no_room,
)
from tests.support.governor_cases import GIB, HOST, LIMITS, gpu, machine, promise, rules

ROOM = RamRoom(free_mib=32 * GIB, least_mib=4 * GIB, suspended_mib=(), most_mib=32 * GIB, most=4)


@pytest.mark.parametrize(
    ("own_gib", "changes", "swaps", "why"),
    [
        (20, {}, False, None),
        (33, {}, False, "suspended runs would keep 33 GiB of RAM, at most 32 GiB may be kept"),
        (20, {"free_mib": 5 * GIB}, False, "it keeps its RAM: 6 GiB would have to be free, 5 GiB are"),
        (20, {"free_mib": 5 * GIB, "suspended_mib": (GIB,)}, True, None),
        (20, {"free_mib": 6 * GIB, "running_mib": (GIB,)}, False, "it keeps its RAM: 7 GiB would have"),
        (1, {"suspended_mib": (GIB,) * 4}, False, "4 runs are suspended, at most 4 may be"),
        (1, {"suspended_mib": (GIB,) * 4}, True, None),
        (1, {"suspended_mib": (GIB,) * 5}, True, "5 runs are suspended, at most 4 may be"),
        (1, {"free_mib": None}, False, "free RAM cannot be read"),
        (1, {"most": 0}, False, "0 runs are suspended, at most 0 may be"),
    ],
)
def test_room(own_gib: int, changes: dict[str, object], swaps: bool, why: str | None) -> None:
    found = why_no_room(own_gib * GIB, replace(ROOM, **changes), True, swaps)  # type: ignore[arg-type]
    assert found == why if why is None else (found or "").startswith(why)


def test_a_thaw_needs_a_slot_and_a_cool_gpu_and_where_it_is_alone_no_ram() -> None:
    short = machine(gpu(), host=replace(HOST, ram_free_mib=GIB, load_1m=99.0))
    assert may_thaw(LIMITS, machine(gpu(free=0)), 1, ("GPU-0",)).gpu_uuids == ("GPU-0",)
    assert may_thaw(LIMITS, short, 0, ()).admitted
    assert rules(may_thaw(LIMITS, short, 1, ())) == [Rule.RAM, Rule.LOAD]
    assert rules(may_thaw(LIMITS, machine(gpu()), LIMITS.max_parallel, ())) == [Rule.PARALLEL]
    assert rules(may_thaw(LIMITS, machine(gpu(temp_c=90)), 0, ("GPU-0",))) == [Rule.TEMPERATURE]
    assert may_thaw(LIMITS, machine(gpu(temp_c=90)), 0, ()).admitted


def test_vram_that_was_moved_counts_as_ram_and_comes_back_only_where_there_is_room() -> None:
    assert why_no_room(GIB, replace(ROOM, free_mib=20 * GIB), False, False, 16 * GIB) is None
    short = why_no_room(GIB, replace(ROOM, free_mib=19 * GIB), False, False, 16 * GIB)
    assert short == "it keeps its RAM: 20 GiB would have to be free, 19 GiB are"
    kept = why_no_room(GIB, replace(ROOM, most_mib=16 * GIB), False, False, 16 * GIB)
    assert kept is not None and kept.startswith("suspended runs would keep 17 GiB of RAM")
    assert need_to_thaw(6 * GIB, 9 * GIB, 8 * GIB, False).vram_mib == 9 * GIB, "what it had at its most"
    assert need_to_thaw(6 * GIB, None, 8 * GIB, False).vram_mib == 8 * GIB * 105 // 100 + 1
    card, need = machine(gpu(), gpu(1)), need_to_thaw(12 * GIB, None, 8 * GIB, False)

    def denied(*reservations: Reservation, **changes: object) -> list[Rule]:
        on = machine(gpu(**changes), gpu(1)) if changes else card
        found = may_return(need, LIMITS, on, reservations, "GPU-0", {}, {})
        return [denial.rule for denial in found]

    assert denied() == []
    assert denied(promise("other", 13 * GIB)) == [Rule.VRAM], "it waits for its own GPU"
    assert denied(promise("other", 13 * GIB, on=1)) == []
    assert denied(promise("other", GIB, exclusive=True)) == [Rule.EXCLUSIVE]
    assert denied(temp_c=90) == [Rule.TEMPERATURE]
    assert may_return(need, LIMITS, machine(gpu(1)), (), "GPU-0", {}, {})[0].rule is Rule.GPU_READABLE


def test_a_fresh_run_waits_while_enough_are_kept() -> None:
    assert comes_first(0, 4, 4) is None
    assert comes_first(1, 3, 4) is None
    denial = comes_first(1, 4, 4)
    assert denial is not None
    assert denial.rule is Rule.SUSPENDED


@dataclass
class Simulated:
    peak_mib: int
    left: int
    used_mib: int = 0
    turns: int = 0
    waited: int = 0


@pytest.mark.parametrize("seed", range(40))
def test_ram_is_never_overbooked_and_nobody_starves(seed: int) -> None:
    """One slot, runs that save nothing, each turn decided by the rules: all of them complete, and none waits for longer
    than all the others together take."""
    chance = random.Random(seed)
    total_mib, least_mib, most = chance.choice([8, 16, 24]) * GIB, GIB, chance.choice([0, 1, 2, 4])
    work = [Simulated(chance.randint(100, PROMISED_RAM_MIB), chance.randint(1, 6)) for _ in range(9)]
    bound = sum(run.left for run in work)
    queue, running = list(work), None
    for _ in range(bound + len(work)):
        suspended = [run for run in queue if run.used_mib]
        if running is None:
            fresh = [run for run in queue if not run.used_mib]
            behind = comes_first(len(suspended), len(suspended), most) is not None
            able = [run for run in queue if run.used_mib or not behind] or fresh
            if not able:
                break
            running = able[0]
            queue.remove(running)
        running.used_mib, running.turns = running.peak_mib, running.turns + 1
        running.left -= 1
        for run in queue:
            run.waited += 1
        assert sum(run.used_mib for run in work) + least_mib <= total_mib
        if running.left == 0:
            running.used_mib, running = 0, None
            continue
        warm = [run for run in queue if run.used_mib]
        room = RamRoom(
            free_mib=total_mib - sum(run.used_mib for run in work),
            least_mib=least_mib,
            suspended_mib=[run.used_mib for run in warm],
            most_mib=total_mib // 2,
            most=most,
        )
        swaps = bool(warm) and len(warm) >= most
        if queue and why_no_room(running.used_mib, room, True, swaps) is None:
            queue.append(running)
            running = None
    assert not any(run.left for run in work)
    assert all(run.waited <= bound for run in work)
