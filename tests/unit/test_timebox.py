"""Where a segment loses least: right after a save, or at its timebox if the script saves when asked."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.records import CheckpointRecord, SegmentRecord
from backprop.scheduler.spec import Plan
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments import timebox
from backprop.worker.segments.cadence import Cadence, ClockReading
from backprop.worker.segments.ends.result import result_of
from backprop.worker.segments.timebox import Box, SaveHistory
from tests.support.store_rows import SPEC, add_run, checkpoint

EVERY_4_MIN = SaveHistory(gaps_s=(240.0, 238.0, 241.0))


@pytest.mark.parametrize(
    ("habit", "saves_s", "elapsed_s", "cut"),
    [
        (EVERY_4_MIN, (240, 480), 483, True),  # the next would come at 720
        (EVERY_4_MIN, (240, 480), 599, True),  # heard of late: still better than to go on
        (EVERY_4_MIN, (240,), 250, False),  # one more fits
        (EVERY_4_MIN, (240,), 500, False),  # late, but it may land any moment
        (EVERY_4_MIN, (240, 480), 480.5, False),  # a second file of the same save may follow
        (EVERY_4_MIN, (), 500, False),  # nothing is saved: the end may still bring something
        (EVERY_4_MIN, (240, 480), 600, False),  # the supervisor's own moment has come
        (SaveHistory(), (480,), 490, False),  # no cadence is known yet
        (SaveHistory(), (240, 480), 490, True),  # this segment shows it itself
        (
            SaveHistory(silent_s=200),
            (375,),
            400,
            False,
        ),  # of an earlier one: nothing came for 200 s after its last
        (SaveHistory(silent_s=240), (375,), 400, True),
        (SaveHistory(gaps_s=(400,)), (1,), 5, False),  # what is saved at a start is no work
        (SaveHistory(gaps_s=(400,)), (299,), 310, False),
        (SaveHistory(gaps_s=(400,)), (301,), 310, True),
        (replace(EVERY_4_MIN, saves_when_asked=True), (240, 480), 483, False),
        (SaveHistory(gaps_s=(30.0,)), (200, 400), 410, True),  # slower now than it was
        (SaveHistory(gaps_s=(118.0,)), (240, 480), 483, True),
        (EVERY_4_MIN, (240, 241, 480), 483, True),  # two files of one save are one
        (SaveHistory(gaps_s=(118.0,)), (476,), 480, False),  # 594: it just fits
        (SaveHistory(gaps_s=(118.0,)), (479,), 483, True),  # 597, give or take
    ],
)
def test_the_cut_comes_after_the_last_save_that_fits(
    habit: SaveHistory, saves_s: tuple[float, ...], elapsed_s: float, cut: bool
) -> None:
    why = timebox.why_cut(habit, Box(0, 600), saves_s, elapsed_s)
    assert (why is not None) == cut
    assert (
        why is None
        or why == "stopped early, right after a checkpoint: the next one wouldn't have fit into the timebox"
    )


times = st.floats(0, 2000, allow_nan=False)


@given(
    st.lists(times, max_size=6),
    times,
    st.floats(1, 1000),
    st.lists(st.floats(0, 900), max_size=4),
    st.booleans(),
)
def test_no_cut_ever_costs_more_than_it_saves(
    saves_s: list[float], elapsed_s: float, timebox_s: float, gaps_s: list[float], asked: bool
) -> None:
    saves = tuple(sorted(saves_s))
    habit = SaveHistory(gaps_s=tuple(gaps_s), saves_when_asked=asked)
    if timebox.why_cut(habit, Box(0, timebox_s), saves, elapsed_s) is None:
        return
    gap_s = timebox.expected_gap_s(habit, saves)
    assert not asked
    assert gap_s is not None
    assert timebox_s / 2 <= saves[-1] <= elapsed_s < timebox_s, (
        "after a save, within the box, past half of it"
    )
    assert saves[-1] + gap_s * 1.06 > timebox_s, "and no other save was to come"
    assert timebox.is_near(habit, Box(0, timebox_s), saves, elapsed_s), "it was listened to closely by then"


@given(st.floats(0.02, 2), st.floats(0, 0.1), st.floats(10, 1000))
def test_a_steady_script_loses_next_to_nothing(gap: float, startup: float, timebox_s: float) -> None:
    """A start-up and then a save each `gap`, both as shares of the box."""
    gap_s, startup_s = gap * timebox_s, startup * timebox_s
    habit, saves_s, ended_s = SaveHistory(gaps_s=(gap_s,)), list[float](), timebox_s
    while (next_s := startup_s + gap_s * (len(saves_s) + 1)) < timebox_s:
        saves_s.append(next_s)
        seen_s = next_s + min(timebox.SETTLE_S, timebox.JITTER * gap_s) + 1e-6
        if timebox.why_cut(habit, Box(0, timebox_s), saves_s, seen_s) is not None:
            ended_s = seen_s
            break
    if saves_s and saves_s[-1] >= timebox_s / 2:
        assert ended_s - saves_s[-1] <= timebox.JITTER * gap_s + 1e-5
        assert saves_s[-1] + gap_s >= timebox_s * 0.9, "it was not cut while another one fitted well"


@pytest.mark.parametrize(
    ("times_s", "gaps_s"),
    [
        ((), ()),
        ((5,), ()),
        ((10, 20, 30), (10, 10)),
        ((10, 10.2, 20, 20.3, 30), (10.1, 9.7)),
        ((30, 10, 20), (10, 10)),
        ((7, 7, 7), ()),
    ],
)
def test_files_that_land_together_are_one_save(times_s: tuple[float, ...], gaps_s: tuple[float, ...]) -> None:
    assert timebox.gaps_of(times_s) == pytest.approx(gaps_s)


def segment(number: int = 1, **changes: Any) -> SegmentRecord:
    nothing: dict[str, Any] = dict.fromkeys(SegmentRecord.__annotations__)
    return SegmentRecord(
        **nothing
        | {
            "run_id": "r",
            "number": number,
            "worker": "w",
            "started_at_s": 1000.0 * number,
            "running_s": 600.0,
            "boxes": 1,
        }
        | changes
    )


def saved(number: int, *at_s: float) -> list[CheckpointRecord]:
    """Checkpoints of a segment, by seconds after its start."""
    return [
        msgspec.structs.replace(
            checkpoint("r", "ckpt", number), mtime_ns=int((1000 * number + one) * 1e9), saved_at_s=1e9
        )
        for one in at_s
    ]


@pytest.mark.parametrize(
    ("costs_s", "announces", "plan", "expected"),
    [
        ((), True, None, True),  # it speaks to us: taken at its word until it shows otherwise
        ((), False, None, False),
        ((), False, Plan(saves_on_signal=True), True),
        ((), False, Plan(), False),
        ((120.0,), True, Plan(saves_on_signal=True), False),  # shown beats said
        ((0.0,), False, None, True),
        ((0.0, 0.4), True, None, True),  # it had just saved when it was asked
        ((0.4, 0.0), True, None, True),
        ((120.0, 90.0, 0.0), True, None, False),
        ((600.0,), True, None, True),  # nothing saved at all: asked as it started, say
        ((None,), False, None, False),
    ],
)
def test_who_saves_when_asked(
    costs_s: tuple[float | None, ...], announces: bool, plan: Plan | None, expected: bool
) -> None:
    earlier = [segment(number, cut_cost_s=cost) for number, cost in enumerate(costs_s, 1)]
    spec = msgspec.structs.replace(SPEC, plan=plan)
    assert timebox.save_history(spec, earlier, [], announces).saves_when_asked == expected


def test_the_cadence_is_that_of_the_newest_segment_that_shows_one() -> None:
    earlier = [segment(1, cut_cost_s=90.0), segment(2, cut_cost_s=60.0), segment(3, cut_cost_s=300.0)]
    known = [*saved(1, 50, 100), *saved(2, 200, 400), *saved(3, 300)]
    habit = timebox.save_history(SPEC, earlier, known, announces=False)
    assert habit == SaveHistory(gaps_s=(200,), silent_s=300, first_s=300)


def test_a_save_made_because_it_was_asked_tells_nothing_of_the_cadence() -> None:
    known = saved(1, 100, 200, 213)
    habit = timebox.save_history(SPEC, [segment(1, cut_cost_s=0.0)], known, announces=False)
    assert habit.gaps_s == (100,)
    refused = [msgspec.structs.replace(one, refused="torn") for one in saved(1, 250)]
    assert timebox.save_history(SPEC, [segment(1)], [*saved(1, 100), *refused], announces=False).gaps_s == ()


def test_a_segment_that_was_given_another_box_is_judged_by_that() -> None:
    second = Box(600, 1200)
    assert timebox.why_cut(EVERY_4_MIN, second, (240, 480, 720), 725) is None
    assert timebox.why_cut(EVERY_4_MIN, second, (480, 720, 960), 965) is not None
    assert not timebox.is_near(EVERY_4_MIN, second, (480,), 700)


@pytest.mark.parametrize(
    ("saves_s", "elapsed_s", "said"),
    [
        ((), 11, None),
        ((), 9, None),
        ((4,), 9, None),
        ((4,), 10, "timebox reached"),
        ((10.5,), 11, "landed late, as --overrun allows"),
    ],
)
def test_only_a_first_checkpoint_may_land_late(
    saves_s: tuple[float, ...], elapsed_s: float, said: str | None
) -> None:
    why = timebox.why_over(10, saves_s, elapsed_s)
    assert (why is None) == (said is None)
    assert said is None or said in str(why)


def test_the_supervisors_box_is_as_long_as_it_may_overrun(database: Any) -> None:
    decided = msgspec.structs.replace(SPEC, timebox_s=100.0, overrun_pct=50.0)
    run = add_run(database, "r", spec=decided)
    assert timebox.latest_end_s(run, SaveHistory()) == 100, "its end is decided upon anyway"
    run = msgspec.structs.replace(run, spec=msgspec.structs.replace(decided, at_timebox="end"))
    assert timebox.latest_end_s(run, SaveHistory()) == 150
    assert timebox.latest_end_s(run, SaveHistory(saves_when_asked=True)) == 100
    bounded = msgspec.structs.replace(run, spec=msgspec.structs.replace(run.spec, max_total_s=120.0))
    assert timebox.latest_end_s(bounded, SaveHistory()) == 120
    spent = msgspec.structs.replace(bounded, chain_total_s=119.9)
    assert timebox.box_s(spent, SaveHistory()) == 1, "never nothing"


def test_a_fruitless_box_is_doubled_and_not_without_end(database: Any) -> None:
    run = add_run(database, "r", spec=msgspec.structs.replace(SPEC, timebox_s=100.0, at_timebox="end"))

    def box_s(stalled: int, **history: Any) -> float:
        return timebox.box_s(msgspec.structs.replace(run, stalled=stalled), SaveHistory(**history))

    assert [box_s(stalled) for stalled in (0, 1, 2, 3)] == [100, 200, 400, 400]
    assert [box_s(0, first_s=first_s) for first_s in (60, 120, 900)] == [100, 150, 400], "once it is known"
    fruitless = msgspec.structs.replace(run, stalled=1)
    assert timebox.latest_end_s(fruitless, SaveHistory(saves_when_asked=True)) == 200
    limited = msgspec.structs.replace(fruitless.spec, max_total_s=150.0, overrun_pct=10.0)
    assert timebox.latest_end_s(msgspec.structs.replace(fruitless, spec=limited), SaveHistory()) == 150


def test_when_a_first_save_came_is_remembered() -> None:
    earlier = [segment(1, cut_cost_s=100.0), segment(2), segment(3)]
    habit = timebox.save_history(SPEC, earlier, [*saved(1, 150, 300), *saved(2, 700, 900)], announces=False)
    assert habit.first_s == 700
    assert timebox.save_history(SPEC, earlier, [], announces=False).first_s is None


@pytest.mark.parametrize(
    ("at_s", "stopped_s", "escalated", "cost_s"),
    [
        ((100, 400), 600, "none", 200),
        ((100, 400, 601), 600, "none", 0),  # saved because it was asked
        ((), 600, "none", 605),  # all of it
        ((100, 400), 600, "kill", 205),  # it went on until it was killed
    ],
)
def test_what_a_cut_has_cost(
    tmp_path: Path, database: Any, at_s: tuple[float, ...], stopped_s: float, escalated: str, cost_s: float
) -> None:
    run, began = add_run(database, "r"), segment(1, first_output_s=0.1)
    (tmp_path / "stop.json").write_text(json.dumps({"asked": "timebox", "at_s": 1000 + stopped_s}))
    end = ExitRecord(asked="timebox", exit_code=0, running_s=605.0, ended_at_s=1605.0, escalated=escalated)
    assert result_of(run, began, end, tmp_path, saved(1, *at_s)).cut_cost_s == pytest.approx(cost_s)
    paused = result_of(run, began, end, tmp_path, saved(1, *at_s), lambda _from, _to: 30.0).cut_cost_s
    assert paused == pytest.approx(cost_s - 30 if at_s and cost_s else cost_s)
    unasked = msgspec.structs.replace(end, asked=None)
    assert result_of(run, began, unasked, tmp_path, saved(1, *at_s)).cut_cost_s is None


@pytest.mark.parametrize(("total", "over"), [(None, True), (24, True), (99, False)])
def test_epochs_that_begin_again_tell_with_the_same_total_or_none(
    database: Any, total: int | None, over: bool
) -> None:
    """`Epoch: [0]` behind `Epoch: [7]`, in a segment that was given what was saved at 7."""
    told = {"step_unit": "epoch", "first_step": 0, "step_fell": False}
    earlier = [segment(1, **told, step_total=total if over else 24)]
    used = [msgspec.structs.replace(each, seen_step=7) for each in saved(1, 240)]
    resumed = segment(2, checkpoint_used=used[0].path)
    pace = Cadence(add_run(database, "r"), resumed, earlier, used, 0.0, ClockReading(2000.0, 50.0))
    ended = pace.early_end(
        False, StepTrace(0, 1, 1, unit="epoch", total=total), lambda _: Path("/none"), Box(0, 600)
    )
    assert (ended is not None and ended[0] is Intent.STARTED_OVER) == over


@pytest.mark.parametrize(
    ("steps", "cut"),
    [
        (StepTrace(0, 99, 99, unit="step", total=100), True),
        (StepTrace(0, 100, 100, unit="step", total=100), False),
        (StepTrace(0, 10, 10, unit="epoch", total=10), True),  # the last epoch has begun
        (StepTrace(0, 100, 100), True),  # how many there are is not known
    ],
)
def test_what_has_made_its_last_step_is_not_cut(database: Any, steps: StepTrace, cut: bool) -> None:
    """Saves each 240 s that it does not make when it is asked: the one at 480 s is the last in a box of 600 s."""
    run = add_run(database, "r", spec=msgspec.structs.replace(SPEC, timebox_s=600.0))
    pace = Cadence(run, segment(2), [segment(1, cut_cost_s=120.0)], [], 490.0, ClockReading(2490.0, 540.0))
    pace.note_saves(saved(2, 240, 480), 2490.0)
    assert (pace.early_end(False, steps, lambda _: Path("/none"), Box(0, 600)) is not None) == cut


def test_paused_time_counts_neither_towards_the_box_nor_as_lost(database: Any) -> None:
    """A box of 600 s, a save each 240 s, and a pause of 100 s in between."""
    run = add_run(database, "r", spec=msgspec.structs.replace(SPEC, timebox_s=600.0))
    earlier = [segment(1, cut_cost_s=120.0)]
    pace = Cadence(run, segment(2), earlier, saved(1, 240, 480), 0.0, ClockReading(2000.0, 50.0))

    def wish() -> tuple[Intent, str] | None:
        return pace.early_end(False, StepTrace(), lambda _: Path("/none"), Box(0, 600))

    pace.observe(State.RUNNING, ClockReading(2240.0, 290.0))
    pace.note_saves(saved(2, 240), 2240.0)
    pace.observe(State.PAUSED, ClockReading(2340.0, 390.0))
    assert pace.paused_between_s(2000, 3000) == 100
    assert pace.paused_between_s(2300, 3000) == 40
    pace.observe(State.RUNNING, ClockReading(2575.0, 625.0))
    assert wish() is None, "475 s of running time: the next save is due at 480"
    pace.observe(State.RUNNING, ClockReading(2583.0, 633.0))
    pace.note_saves(saved(2, 580), 2583.0)
    found = wish()
    assert found is not None
    assert found[0] is Intent.TIMEBOX
