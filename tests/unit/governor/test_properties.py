"""What must hold of the governor's decisions whatever happens, in whatever order."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from backprop.scheduler.governor.decide import Limits, Need, Reservation, Rule, decide
from backprop.scheduler.governor.snapshot import Gpu, Host, Snapshot
from backprop.scheduler.governor.suspension import could_return, least_free_mib, may_return, need_to_thaw
from backprop.scheduler.governor.vram import ForeignPeak, allocation_has_shown, hold_peaks, room

LIMITS = Limits(
    max_parallel=1000,
    min_free_ram_mib=0,
    max_cpu_load=100.0,
    min_free_disk_mib=0,
    gpu_max_temp_c=83,
)
HOST = Host(ram_free_mib=64_000, ram_total_mib=64_000, load_1m=0.0, cores=8, disk_free_mib=1 << 20)


def card(index: int, total: int, free: int, reserved: int = 0, temp_c: int | None = 50) -> Gpu:
    return Gpu(
        uuid=f"GPU-{index}",
        index=index,
        name="GPU",
        total_mib=total,
        free_mib=free,
        temp_c=temp_c,
        slowdown_c=90,
        throttled=False,
        utilisation_pct=0,
        reserved_mib=reserved,
    )


needs_of_a_night = st.builds(
    Need,
    vram_mib=st.integers(1, 16).map(lambda gib: gib * 1024) | st.integers(1, 100 * 1024),
    gpus=st.sampled_from([1, 1, 1, 1, 2, 0, 3]),
    exclusive=st.sampled_from([False] * 7 + [True]),
)


@dataclass
class LiveRun:
    """`peak`: the most it has used. `out`: what of its VRAM lies in RAM while it is suspended."""

    run_id: str
    promised: int
    on: tuple[int, ...]
    used: int
    started_s: float
    exclusive: bool
    seen: int | None
    peak: int = 0
    out: int = 0


class Night(RuleBasedStateMachine):
    """A machine with its true memory, of which the governor only sees readings.

    Runs start when admitted, allocate when they like, up to their promise, and end; some are suspended, their VRAM in
    RAM, and come back when they may; others come and go; the driver tells whose memory it is, or does not, or tells it
    wrong."""

    @initialize(
        totals=st.lists(st.sampled_from([8, 24, 48]).map(lambda gib: gib * 1024), min_size=1, max_size=3),
        reserved=st.integers(0, 800),
        told=st.sampled_from(["told", "untold", "wrong"]),
    )
    def boot(self, totals: list[int], reserved: int, told: str) -> None:
        self.now_s = 0.0
        self.totals, self.reserved, self.told = totals, reserved, told
        self.foreign = [0] * len(totals)
        self.runs: list[LiveRun] = []
        self.suspended: list[LiveRun] = []
        self.peaks: dict[str, ForeignPeak] = {}
        self.started = 0

    def free(self, index: int) -> int:
        own = sum(run.used for run in self.runs if index in run.on)
        return self.totals[index] - self.reserved - self.foreign[index] - own

    def snapshot(self) -> Snapshot:
        cards = [card(i, total, self.free(i), self.reserved) for i, total in enumerate(self.totals)]
        return Snapshot(HOST, tuple(cards), "nvml", None, self.now_s)

    def reservations(self) -> list[Reservation]:
        return [
            Reservation(
                run.run_id,
                f"GPU-{index}",
                run.promised,
                run.seen,
                run.started_s,
                allocation_has_shown(run.seen, self.now_s - run.started_s),
                run.exclusive,
            )
            for run in self.runs
            for index in run.on
        ]

    @rule(needs=st.lists(needs_of_a_night, min_size=1, max_size=6))
    def start_several(self, needs: list[Need]) -> None:
        for need in needs:
            self.start(need)

    def start(self, need: Need) -> None:
        snapshot = self.snapshot()
        decision = decide(need, LIMITS, snapshot, self.reservations(), len(self.runs), peaks=self.peaks)
        possible = sum(total - self.reserved >= need.vram_mib for total in self.totals)
        assert (decision.infeasible is not None) == (possible < need.gpus)
        if not decision.admitted:
            return
        on = tuple(int(uuid.removeprefix("GPU-")) for uuid in decision.gpu_uuids)
        assert len(set(on)) == need.gpus
        for index in on:
            others = [run for run in self.runs if index in run.on]
            assert not any(run.exclusive for run in others)
            assert not (need.exclusive and others)
            assert self.free(index) >= need.vram_mib, "promised what somebody uses right now"
            if self.told == "told":
                promised = sum(run.promised for run in others) + need.vram_mib
                room_left = self.totals[index] - self.reserved - self.foreign[index]
                assert promised <= room_left, "the runs cannot all take what they were promised"
        self.started += 1
        seen = None if self.told == "untold" else 0
        self.runs.append(LiveRun(f"r{self.started}", need.vram_mib, on, 0, self.now_s, need.exclusive, seen))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), part=st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    def allocate(self, data: st.DataObject, part: float) -> None:
        run = data.draw(st.sampled_from(self.runs))
        wanted = int(run.promised * part)
        if all(self.free(index) + run.used >= wanted for index in run.on):
            run.used, run.peak = wanted, max(run.peak, wanted)
            if self.told == "told":
                run.seen = wanted

    @precondition(lambda self: self.runs and self.told == "wrong")
    @rule(data=st.data(), seen=st.none() | st.integers(0, 100 * 1024))
    def misread(self, data: st.DataObject, seen: int | None) -> None:
        data.draw(st.sampled_from(self.runs)).seen = seen

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.runs.remove(data.draw(st.sampled_from(self.runs)))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def suspend(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.runs))
        if len(run.on) == 1 and could_return(run.used, self.snapshot().gpus[run.on[0]]):
            self.runs.remove(run)
            self.suspended.append(run)
            run.out, run.used, run.seen = run.used, 0, None if run.seen is None else 0

    @precondition(lambda self: self.suspended)
    @rule(data=st.data())
    def thaw(self, data: st.DataObject) -> None:
        self.come_back(data.draw(st.sampled_from(self.suspended)))

    def come_back(self, run: LiveRun) -> None:
        (index,) = run.on
        others = [one for one in self.runs if index in one.on]
        need = need_to_thaw(run.promised, run.peak, run.out, run.exclusive)
        snapshot = self.snapshot()
        reserved = self.reservations()
        denials = may_return(need, LIMITS, snapshot, reserved, f"GPU-{index}", {}, self.peaks)
        if denials:
            nobody = not others and self.foreign[index] == 0 and not self.peaks.get(f"GPU-{index}")
            assert not nobody, f"what could return is refused an empty GPU: {denials}"
            return
        assert self.free(index) >= least_free_mib(run.out), "the restore would meet a full GPU"
        assert not any(one.exclusive for one in others)
        assert not (run.exclusive and others)
        self.suspended.remove(run)
        self.runs.append(run)
        run.promised = min(need.vram_mib, self.totals[index] - self.reserved)
        run.used, run.out, run.started_s = run.out, 0, self.now_s
        if self.told == "told":
            run.seen = run.used

    @precondition(lambda self: self.suspended)
    @rule()
    def all_else_ends(self) -> None:
        """Then everybody comes back in turn: nobody starves."""
        self.runs.clear()
        self.foreign = [0] * len(self.totals)
        self.peaks = {}
        while self.suspended:
            self.come_back(self.suspended[0])
            self.runs.clear()

    @rule(data=st.data(), part=st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    def others(self, data: st.DataObject, part: float) -> None:
        index = data.draw(st.integers(0, len(self.totals) - 1))
        self.foreign[index] = int((self.free(index) + self.foreign[index]) * part)

    @rule(passed_s=st.sampled_from([0.5, 5.0, 60.0, 400.0]))
    def read(self, passed_s: float) -> None:
        self.now_s += passed_s
        self.peaks = hold_peaks(self.peaks, self.snapshot(), self.reservations(), self.now_s)

    @invariant()
    def promises_fit(self) -> None:
        for index, total in enumerate(getattr(self, "totals", ())):
            promised = sum(run.promised for run in self.runs if index in run.on)
            assert promised <= total - self.reserved


class TestNight(Night.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.long
@pytest.mark.timeout(900)
class TestManyNights(Night.TestCase):
    settings = settings(max_examples=1000, stateful_step_count=30, deadline=None)


mib = st.integers(0, 48 * 1024)
reservations = st.lists(
    st.builds(
        Reservation,
        run_id=st.just("r"),
        gpu_uuid=st.sampled_from(["GPU-0", "GPU-1"]),
        promised_mib=st.integers(1, 24 * 1024),
        seen_mib=st.none() | mib,
        started_s=st.just(0.0),
        settled=st.booleans(),
        exclusive=st.just(False),
    ),
    max_size=4,
)
needs = st.builds(Need, vram_mib=st.integers(1, 48 * 1024), gpus=st.integers(0, 2))


@given(
    need=needs,
    held=reservations,
    free=st.tuples(mib, mib),
    more=st.tuples(mib, mib),
    peak=mib,
)
@settings(deadline=None)
def test_more_free_memory_never_turns_a_yes_into_a_no(
    need: Need, held: list[Reservation], free: tuple[int, int], more: tuple[int, int], peak: int
) -> None:
    peaks = {"GPU-0": ForeignPeak(peak, 0.0, frozenset(), 0, 0.0)}

    def admitted(frees: tuple[int, int]) -> bool:
        cards = tuple(card(i, 48 * 1024, min(48 * 1024, one)) for i, one in enumerate(frees))
        return decide(need, LIMITS, Snapshot(HOST, cards, "nvml", None, 0.0), held, 0, peaks=peaks).admitted

    if admitted(free):
        assert admitted((free[0] + more[0], free[1] + more[1]))


@given(held=reservations, free=mib, reserved=st.integers(0, 1024), peak=mib)
@settings(deadline=None)
def test_room_keeps_to_promises_and_to_the_reading(
    held: list[Reservation], free: int, reserved: int, peak: int
) -> None:
    gpu = card(0, 48 * 1024, free, reserved)
    peaks = {"GPU-0": ForeignPeak(peak, 0.0, frozenset(), 0, 0.0)}
    memory = room(gpu, Snapshot(HOST, (gpu,), "nvml", None, 0.0), held, peaks)
    assert memory is not None
    here = [one for one in held if one.gpu_uuid == "GPU-0"]
    assert memory.available_mib <= memory.usable_mib - sum(one.promised_mib for one in here)
    assert memory.available_mib <= memory.usable_mib - peak - sum(one.promised_mib for one in here)
    assert memory.available_mib <= memory.free_mib - memory.untaken_mib <= memory.free_mib
    seen = sum(one.seen_mib or 0 for one in here)
    assert memory.untaken_mib >= sum(one.promised_mib for one in here if not one.settled) - seen


@given(held=reservations, theirs=reservations, free=mib, peak=mib)
@settings(deadline=None)
def test_whatever_another_home_says_we_never_get_more(
    held: list[Reservation], theirs: list[Reservation], free: int, peak: int
) -> None:
    gpu = card(0, 48 * 1024, free)
    snapshot = Snapshot(HOST, (gpu,), "nvml", None, 0.0)
    peaks = {"GPU-0": ForeignPeak(peak, 0.0, frozenset(), 0, 0.0)}
    alone = room(gpu, snapshot, held, peaks)
    beside = room(gpu, snapshot, [*held, *(replace(one, elsewhere=True) for one in theirs)], peaks)
    assert alone is not None
    assert beside is not None
    assert beside.available_mib <= alone.available_mib


@given(need=needs, held=reservations, free=mib, temp_c=st.none() | st.integers(20, 110))
@settings(deadline=None)
def test_one_run_less_or_a_smaller_need_never_turns_a_yes_into_a_no(
    need: Need, held: list[Reservation], free: int, temp_c: int | None
) -> None:
    cards = tuple(card(i, 48 * 1024, free, temp_c=temp_c) for i in (0, 1))
    snapshot = Snapshot(HOST, cards, "nvml", None, 0.0)
    if not decide(need, LIMITS, snapshot, held, 0).admitted:
        return
    assert decide(replace(need, vram_mib=need.vram_mib // 2), LIMITS, snapshot, held, 0).admitted
    # A run that has allocated nothing so far: its end changes no reading.
    idle = [one for one in held if one.seen_mib != 0]
    assert decide(need, LIMITS, snapshot, idle, 0).admitted


@given(need=needs, held=reservations, free=mib, temp_c=st.none() | st.integers(20, 110), lost=st.booleans())
@settings(deadline=None)
def test_a_decision_is_an_answer_or_reasons(
    need: Need, held: list[Reservation], free: int, temp_c: int | None, lost: bool
) -> None:
    second = replace(card(1, 12 * 1024, min(free, 12 * 1024)), error="GPU is lost" if lost else None)
    snapshot = Snapshot(
        HOST, (card(0, 24 * 1024, min(free, 24 * 1024), temp_c=temp_c), second), "nvml", None, 0.0
    )
    decision = decide(need, LIMITS, snapshot, held, 0)
    assert decision.admitted == (decision.sentence() == "")
    assert len(decision.gpu_uuids) == (need.gpus if decision.admitted else 0)
    assert all(denial.sentence() for denial in decision.denials)
    assert not (lost and "GPU-1" in decision.gpu_uuids)
    assert not (temp_c is None and "GPU-0" in decision.gpu_uuids)
    if decision.admitted:
        for uuid in decision.gpu_uuids:
            gpu = snapshot.gpu(uuid)
            assert gpu is not None
            memory = room(gpu, snapshot, held)
            assert memory is not None
            assert memory.available_mib >= need.vram_mib
    elif decision.infeasible is None:
        assert {denial.rule for denial in decision.denials} <= {
            Rule.VRAM,
            Rule.TEMPERATURE,
            Rule.GPU_READABLE,
            Rule.GPU_COUNT,
        }
