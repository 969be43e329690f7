"""What the governor says of a start: rules one by one, with their words."""

import pytest
from msgspec.structs import replace

from backprop.scheduler.governor.decide import Decision, Need, Reservation, Rule, decide
from backprop.scheduler.governor.snapshot import Host
from backprop.scheduler.governor.vram import allocation_has_shown, room
from tests.support.governor_cases import GIB, HOST, LIMITS, NEED, ask, gpu, machine, promise, rules

# Starts: the host


def test_an_idle_machine_admits() -> None:
    assert ask(machine(gpu())) == Decision((), ("GPU-0",))


@pytest.mark.parametrize(
    ("host", "running", "rule", "words"),
    [
        (HOST, 8, Rule.PARALLEL, "waiting for a slot (8 of 8 busy)"),
        (
            replace(HOST, ram_free_mib=3174),
            0,
            Rule.RAM,
            "needs 4 GiB of free RAM; has 3.1 GiB (--min-free-ram)",
        ),
        (
            replace(HOST, ram_free_mib=None),
            0,
            Rule.RAM,
            "needs 4 GiB of free RAM; it cannot be read (--min-free-ram)",
        ),
        (
            replace(HOST, load_1m=40.0),
            0,
            Rule.LOAD,
            "CPU load is too high; 5.00 per core, at most 4.00 (--max-cpu-load)",
        ),
        (
            replace(HOST, load_1m=None),
            0,
            Rule.LOAD,
            "CPU load cannot be read; at most 4.00 per core (--max-cpu-load)",
        ),
        (
            replace(HOST, disk_free_mib=700),
            0,
            Rule.DISK,
            "needs 2 GiB of free disk; has 700 MiB (minFreeDiskGB)",
        ),
        (
            replace(HOST, disk_free_mib=None),
            0,
            Rule.DISK,
            "needs 2 GiB of free disk; it cannot be read (minFreeDiskGB)",
        ),
    ],
)
def test_the_hosts_rules(host: Host, running: int, rule: Rule, words: str) -> None:
    for need in (NEED, Need(vram_mib=0, gpus=0)):
        decision = ask(machine(gpu(), host=host), running=running, need=need)
        assert [(one.rule, one.sentence()) for one in decision.denials] == [(rule, words)]
        assert not decision.admitted
        assert decision.gpu_uuids == ()


def test_every_failing_rule_is_named() -> None:
    host = Host(ram_free_mib=1000, ram_total_mib=64 * GIB, load_1m=99.0, cores=8, disk_free_mib=0)
    hot = gpu(free=1000, temp_c=82, throttled=True)
    decision = ask(machine(hot, host=host), running=8)
    assert rules(decision) == [
        Rule.PARALLEL,
        Rule.RAM,
        Rule.LOAD,
        Rule.DISK,
        Rule.TEMPERATURE,
        Rule.SLOWDOWN,
        Rule.VRAM,
    ]
    assert all(one.sentence() in decision.sentence() for one in decision.denials)


def test_denials_carry_their_amounts() -> None:
    (denial,) = ask(machine(gpu(free=4 * GIB))).denials
    assert (denial.needed, denial.present, denial.gpu_uuid) == (6 * GIB, 4 * GIB, "GPU-0")
    assert denial.sentence() == ("GPU 0: needs 6 GiB; 4 of 24 GiB free (20 used by other programs)")


# Starts: with and without GPUs


def test_a_machine_without_gpus_has_no_gpu_rules() -> None:
    assert ask(machine()) == Decision((), ())


def test_gpus_that_cannot_be_read_are_not_used() -> None:
    decision = ask(machine(problem="the NVIDIA driver is not loaded"))
    assert decision.sentence() == "no GPU can be used: the NVIDIA driver is not loaded"
    known = ask(machine(gpu(free=None, error="GPU is lost"), problem="all lost"))
    assert known.sentence() == "GPU 0: not used: GPU is lost"
    assert known.infeasible is None


def test_a_cpu_run_never_waits_behind_gpu_rules() -> None:
    cpu = Need(vram_mib=0, gpus=0)
    for snapshot in (machine(problem="broken"), machine(gpu(free=0, temp_c=99, throttled=True)), machine()):
        assert ask(snapshot, need=cpu) == Decision((), ())


def test_one_lost_gpu_leaves_the_other() -> None:
    assert ask(machine(gpu(0, error="GPU is lost"), gpu(1))).gpu_uuids == ("GPU-1",)


def test_the_most_room_wins_and_the_lower_index_among_equals() -> None:
    assert ask(machine(gpu(0, free=10 * GIB), gpu(1, free=20 * GIB))).gpu_uuids == ("GPU-1",)
    assert ask(machine(gpu(1), gpu(0))).gpu_uuids == ("GPU-0",)
    # Promised memory is not room, although nothing of it is allocated yet.
    assert ask(machine(gpu(0), gpu(1, free=20 * GIB)), promise("a", 8 * GIB)).gpu_uuids == ("GPU-1",)


def test_several_gpus() -> None:
    two = replace(NEED, gpus=2)
    assert ask(machine(gpu(0), gpu(1), gpu(2, free=0)), need=two).gpu_uuids == ("GPU-0", "GPU-1")
    short = ask(machine(gpu(0), gpu(1, free=0)), need=two)
    assert rules(short) == [Rule.VRAM, Rule.GPU_COUNT]
    assert short.denials[-1].sentence() == "needs 2 GPUs, 1 is free enough"


def test_quarantine() -> None:
    decision = decide(NEED, LIMITS, machine(gpu()), (), 0, {"GPU-0": "its VRAM did not come back"})
    assert decision.sentence() == "GPU 0: quarantined: its VRAM did not come back"


# Starts: memory is never promised twice


def test_the_classic_race() -> None:
    """Sixteen runs of 6 GiB on two cards of 24 GiB, none of which has allocated anything yet."""
    started: list[Reservation] = []
    snapshot = machine(gpu(0), gpu(1))
    for number in range(16):
        decision = ask(snapshot, *started, limits=replace(LIMITS, max_parallel=16), running=len(started))
        if decision.admitted:
            started.append(Reservation(f"r{number}", decision.gpu_uuids[0], 6 * GIB, 0, 0.0, False))
    assert [one.gpu_uuid for one in started].count("GPU-0") == 4
    assert [one.gpu_uuid for one in started].count("GPU-1") == 4


@pytest.mark.parametrize(
    ("free_gib", "seen_gib", "settled", "left_gib"),
    [
        (24, 0, False, 16),  # nothing allocated yet: in full
        (21, 3, True, 16),  # on its way: what is seen and what is to come
        (16, 8, True, 16),  # all there: not counted twice
        (14, 10, True, 14),  # beyond its promise: what it uses counts
        (16, None, False, 8),  # nobody knows whose use it is: foreign, until the run has settled
        (16, None, True, 16),  # then its own
        (21, None, True, 16),  # its own, and the rest of the promise still to come
        (12, None, True, 12),  # its own up to the promise, and others'
        (24, None, True, 16),  # it may still come
        (24, 8, True, 16),  # a reading that contradicts itself breaks no promise
    ],
)
def test_what_a_promise_counts(free_gib: int, seen_gib: int | None, settled: bool, left_gib: int) -> None:
    card = gpu(free=free_gib * GIB)
    seen = None if seen_gib is None else seen_gib * GIB
    memory = room(card, machine(card), [promise("a", 8 * GIB, seen, settled=settled)])
    assert memory is not None
    assert memory.available_mib == left_gib * GIB


def test_settling() -> None:
    assert not allocation_has_shown(None, age_s=119)
    assert not allocation_has_shown(0, age_s=119)
    assert allocation_has_shown(300, age_s=1)
    assert allocation_has_shown(None, age_s=120)


def test_the_drivers_reserve_is_nobodys() -> None:
    card = gpu(free=23 * GIB, reserved_mib=GIB)
    memory = room(card, machine(card), [])
    assert memory is not None
    assert (memory.usable_mib, memory.foreign_mib, memory.available_mib) == (23 * GIB, 0, 23 * GIB)


def test_exclusive() -> None:
    alone = replace(NEED, exclusive=True)
    assert ask(machine(gpu()), need=alone).admitted
    shared = ask(machine(gpu()), promise("run-7", GIB), need=alone)
    assert shared.sentence() == "GPU 0: needed exclusively; run-7 is running there (--exclusive)"
    beside = ask(machine(gpu()), promise("run-7", GIB, exclusive=True))
    assert beside.sentence() == "GPU 0: run run-7 has it exclusively"
    assert ask(machine(gpu(0), gpu(1, free=9 * GIB)), promise("x", GIB), need=alone).gpu_uuids == ("GPU-1",)


def test_what_another_home_has_promised_is_taken_and_said() -> None:
    theirs = promise("", 20 * GIB, elsewhere=True)
    refused = ask(machine(gpu()), theirs)
    assert refused.sentence() == "GPU 0: needs 6 GiB; 4 of 24 GiB free (20 promised by another home)"
    used = ask(machine(gpu(free=4 * GIB)), promise("", 20 * GIB, 20 * GIB, elsewhere=True))
    assert used.sentence() == refused.sentence(), "what is promised and used counts once"
    both = ask(machine(gpu()), theirs, promise("run-7", GIB))
    assert "3 of 24 GiB free (1 reserved by runs, 20 promised by another home)" in both.sentence()
    assert ask(machine(gpu()), promise("", 20 * GIB, elsewhere=True), need=replace(NEED, gpus=0)).admitted
    alone = ask(machine(gpu()), promise("", GIB, exclusive=True, elsewhere=True))
    assert alone.sentence() == "GPU 0: taken; another home has it exclusively"
    small = promise("", GIB, elsewhere=True)
    shared = ask(machine(gpu()), small, small, need=replace(NEED, vram_mib=1, exclusive=True))
    assert shared.sentence() == (
        "GPU 0: needed exclusively; another home's run is running there (--exclusive)"
    )


def test_unified_memory_is_ram_above_its_floor() -> None:
    card = gpu(total=None, unified=True, slowdown_c=None)
    host = replace(HOST, ram_free_mib=11 * GIB)
    assert ask(machine(card, host=host)).admitted
    tight = ask(machine(card, host=replace(HOST, ram_free_mib=9 * GIB)))
    assert rules(tight) == [Rule.VRAM]
    assert "5 of 60 GiB free, shared with RAM" in tight.sentence()
    assert rules(ask(machine(card, host=host), promise("a", 4 * GIB))) == [Rule.VRAM]
    blind = ask(machine(card, host=replace(HOST, ram_free_mib=None)))
    assert rules(blind) == [Rule.RAM, Rule.VRAM]


def test_two_unified_gpus_share_one_memory() -> None:
    cards = [gpu(index, total=None, unified=True) for index in (0, 1)]
    host = replace(HOST, ram_free_mib=14 * GIB)
    assert rules(ask(machine(*cards, host=host), promise("a", 6 * GIB, on=1))) == [Rule.VRAM, Rule.VRAM]
    assert Rule.GPU_COUNT in rules(ask(machine(*cards), need=replace(NEED, gpus=2)))


def test_memory_that_cannot_be_read() -> None:
    decision = ask(machine(gpu(total=None)))
    assert decision.sentence() == "GPU 0: not used: its memory cannot be read"
    assert decision.denials[0].present is None


# Starts: what cannot run here


@pytest.mark.parametrize(
    ("need", "gpus", "words"),
    [
        (Need(vram_mib=40 * GIB, source="declared"), 2, "needs 40 GiB of VRAM, the largest GPU has 24 GiB"),
        (
            Need(vram_mib=20 * GIB, gpus=2),
            2,
            "needs 20 GiB of VRAM on each of 2 GPUs, the GPUs here have 24 GiB, 12 GiB",
        ),
        (Need(vram_mib=1, gpus=3), 2, "needs 3 GPUs, this machine has 2"),
        (Need(vram_mib=1, gpus=2), 0, "needs 2 GPUs, this machine has 0"),
    ],
)
def test_infeasible(need: Need, gpus: int, words: str) -> None:
    cards = [gpu(index, total=size * GIB, free=0) for index, size in enumerate((24, 12)[:gpus])]
    decision = ask(machine(*cards), need=need)
    assert decision.infeasible == words
    assert decision.sentence() == f"can't run here: {words}"
    assert not decision.admitted


def test_infeasible_ram() -> None:
    decision = ask(machine(), limits=replace(LIMITS, min_free_ram_mib=100 * GIB))
    assert decision.infeasible == (
        "needs 100 GiB of free RAM, this machine has 64 GiB in all (--min-free-ram)"
    )


def test_what_cannot_be_read_might_be_large_enough() -> None:
    huge = Need(vram_mib=80 * GIB)
    assert ask(machine(gpu(0), gpu(1, total=None, error="lost")), need=huge).infeasible is None
    assert ask(machine(gpu(0), problem="hangs"), need=huge).infeasible is None
    assert ask(machine(gpu(0), gpu(1, error="lost")), need=huge).infeasible is not None


def test_the_reserve_can_make_it_infeasible() -> None:
    card = gpu(reserved_mib=600)
    assert ask(machine(card), need=Need(vram_mib=24 * GIB)).infeasible is not None


# Starts: heat


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temp_c": 78}, ""),
        ({"temp_c": 79}, "GPU 0: too hot (79 °C); a run starts at 78 °C or less (--gpu-max-temp)"),
        (
            {"temp_c": 70, "slowdown_c": 72},
            "GPU 0: too hot (70 °C); a run starts at 67 °C or less (--gpu-max-temp)",
        ),
        ({"temp_c": 50, "throttled": True}, "GPU 0: the driver is throttling it (too hot)"),
        ({"temp_c": None}, "GPU 0: not used: its temperature cannot be read"),
        ({"temp_c": 50, "throttled": None}, ""),
    ],
)
def test_temperature(values: dict[str, object], words: str) -> None:
    assert ask(machine(gpu(**values))).sentence() == words


def test_an_unknown_temperature_can_be_allowed() -> None:
    allowed = replace(LIMITS, allow_unknown_temp=True)
    assert ask(machine(gpu(temp_c=None)), limits=allowed).admitted
    assert not ask(machine(gpu(temp_c=None, throttled=True)), limits=allowed).admitted
