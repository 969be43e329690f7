"""A resumed segment whose steps begin again ends the chain; one that only looks a little like it does not."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backprop.scheduler.lifecycle import Event, Intent
from backprop.scheduler.outcome.next_move import next_move
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.spec import Plan
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments.resume_check import EarlierSegments, read_back, why_over
from tests.support.harness import Bench, wait_until
from tests.support.store_rows import SPEC


def steps(*reported: int) -> StepTrace:
    told = StepTrace()
    for step in reported:
        told.take(step)
    return told


def before(origin: int | None, resumed: int | None, **more: Any) -> EarlierSegments:
    return EarlierSegments(origin=origin, resumed_step=resumed, **({"passed": True} | more))


@pytest.mark.parametrize(
    ("seen", "reported", "over"),
    [
        (before(1, 300), (1,), True),
        (before(0, 300), (0, 1), True),
        (before(10, 5000), (10,), True),
        (before(10, 5000), (20,), True),  # said each ten seconds, not each ten steps
        (before(1, 300), (301,), False),
        (before(1, 300), (300,), False),
        (before(1, 300), (290,), False),  # an epoch done again
        (before(1, 300), (), False),
        (before(1, None), (1,), False),  # where it should go on from, nobody knows
        (before(None, 300), (1,), False),  # nor where it began
        (before(1, 2), (1,), False),  # one step: it may count from zero
        (before(1, 3), (1,), True),  # epochs
        (before(0, 1), (0,), False),
        (before(1, 300, fell=True), (1,), False),  # each epoch counts from one
        (before(1, 300), (1, 2, 1), False),  # as it shows itself
        (before(1, 300, passed=False), (1, 2, 299), False),  # so far it may be the next epoch
        (before(1, 300, passed=False), (1, 300, 301), True),  # no, the epoch ended there
        (before(1, 300, passed=False), (1, 300, 1), False),
        (before(9000, 9300), (9000,), True),  # it had been given a checkpoint at first
        (before(9000, 9300), (9301,), False),
        (before(9000, 9300), (0,), True),
    ],
)
def test_the_alarm_is_raised_where_nothing_else_explains_it(
    seen: EarlierSegments, reported: tuple[int, ...], over: bool
) -> None:
    why = why_over(seen, steps(*reported), ())
    assert (why is not None) == over
    assert why is None or f"began again at {reported[0]}" in why


@pytest.mark.parametrize(
    ("known", "resumed", "saved", "over"),
    [
        ((100, 200, 300), 300, (100,), True),
        ((100, 200, 300), 300, (50,), True),
        ((100, 200, 300), 300, (400,), False),
        ((100, 200, 300), 300, (300,), False),  # saved once more as it began
        ((100, 200, 300), 300, (), False),
        ((100, 200, 300), 100, (100,), False),
        ((300,), 300, (100,), False),  # one checkpoint shows no order
        ((100, 200, 100, 200), 200, (100,), False),  # they begin again with each epoch
        ((100, 200, 300), None, (100,), False),
    ],
)
def test_without_reported_steps_the_checkpoints_tell(
    known: tuple[int, ...], resumed: int | None, saved: tuple[int, ...], over: bool
) -> None:
    seen = EarlierSegments(origin=None, resumed_step=resumed, saved_steps=known)
    assert (why_over(seen, StepTrace(), saved) is not None) == over


@given(
    st.integers(0, 50),
    st.integers(1, 400),
    st.integers(1, 30),
    st.integers(0, 400),
    st.booleans(),
    st.booleans(),
)
def test_a_script_that_goes_on_is_never_stopped(
    origin: int, ran: int, stride: int, back: int, passed: bool, starts_epoch_again: bool
) -> None:
    """Whatever it reports after it resumed: on from its checkpoint, or from the beginning of that epoch."""
    resumed = origin + ran * stride
    begin = max(resumed - back % max(ran // 2 * stride, 1), origin) if starts_epoch_again else resumed
    told = steps(*range(begin + stride, begin + 40 * stride, stride))
    known = tuple(range(origin + stride, resumed + 1, stride))
    seen = EarlierSegments(origin=origin, resumed_step=resumed, passed=passed, saved_steps=known)
    assert why_over(seen, told, (resumed + stride,)) is None or begin - origin < ran * stride * 0.05


def write(folder: Path, name: str, *lines: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_a_past_segments_files_tell(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    saved = {"event": "checkpoint_saved", "path": "out/last.pt"}
    write(folder, "log", {"step": 5}, {"step": 10}, saved, {"step": 15}, {"lr": 0.1})
    told = read_back(folder, tmp_path)
    assert (told.steps.first, told.steps.fell, told.passed) == (5, False, True)
    assert told.step_at == {str(tmp_path / "out/last.pt"): 10}
    write(folder, "events.jsonl", {"step": 5}, {"step": 1})
    assert read_back(folder, tmp_path).steps.fell, "in either of its files"
    write(folder, "log", {"step": 5}, saved)
    (folder / "events.jsonl").unlink()
    assert not read_back(folder, tmp_path).passed
    (folder / "log").unlink()
    with pytest.raises(OSError, match="No such file"):
        read_back(folder, tmp_path)


def test_of_a_long_log_the_beginning_and_the_end_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    with (folder / "log").open("w") as log:
        log.write('{"step": 1}\n')
        log.writelines("x" * 1000 + "\n" for _ in range(12_000))
        log.write('{"step": 900}\n{"event": "checkpoint_saved", "path": "last"}\n')
    told = read_back(folder, tmp_path)
    assert (told.steps.first, told.steps.last) == (1, 900)
    assert told.step_at == {str(tmp_path / "last"): 900}


GOOD = Chain(segments=2, total_s=1, stalled=0, retries_used=0, lost=0, progressed=True, resumable=True)


def test_a_run_that_started_over_fails_whatever_is_left_to_it() -> None:
    spec = msgspec.structs.replace(SPEC, retries=5)
    for code in (0, 1, 75, None):
        verdict = next_move(
            spec, SegmentResult(asked=Intent.STARTED_OVER, exit_code=code, why_asked="why"), GOOD
        )
        assert (verdict.event, verdict.outcome) == (Event.FAILED, "started over")
        assert verdict.reason == "started over: why"


def test_what_cannot_resume_is_not_chained() -> None:
    spec = msgspec.structs.replace(SPEC, plan=Plan(resumes="none", why="its arguments know no checkpoint"))
    verdict = next_move(spec, SegmentResult(asked=Intent.TIMEBOX, exit_code=0), GOOD)
    assert verdict.event is Event.TIMEBOXED
    assert "it cannot resume (its arguments know no checkpoint)" in verdict.reason
    assert verdict.advice is not None
    assert verdict.advice.timebox_min == 20
    assert next_move(spec, SegmentResult(exit_code=75), GOOD).event is Event.REQUEUED, (
        "it says itself that it can"
    )
    assert next_move(spec, SegmentResult(asked=Intent.YIELD), GOOD).event is Event.REQUEUED, "nobody's fault"


TRAINER = """
import json, os, sys, time
from pathlib import Path
mode, per_epoch = sys.argv[1], 20
came_from = os.environ.get("BACKPROP_RESUME_FROM")
step = int(Path(came_from).read_text()) if came_from and mode != "forgets" else 0
with open("starts", "a") as file:
    file.write(f"{step}\\n")
while True:
    time.sleep(0.03)
    step += 1
    told = step % per_epoch if mode == "local" else step
    print(json.dumps({"step": told}), flush=True)
    if step % (per_epoch if mode == "local" else 10) == 0:
        path = Path(f"ckpt-{step}")
        path.write_text(str(step))
        print(json.dumps({"event": "checkpoint_saved", "path": str(path), "step": step}), flush=True)
"""


def starts(bench: Bench) -> list[int]:
    path = bench.project / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_a_chain_that_forgets_ends_within_its_second_segment(bench: Bench) -> None:
    bench.script("train.py", TRAINER)
    run = bench.queue("train.py", "-m", "0.05", "--retries", "3", "--", "forgets")
    bench.worker()
    seen = bench.wait_for(run, "failed")
    assert [one["outcome"] for one in seen["segments"]] == ["timeboxed", "started over"]
    assert [one["first_step"] for one in seen["segments"]] == [1, 1]
    assert seen["segments"][1]["running_s"] < 2.9
    assert (
        "started over: its steps began again at 1, though it was given a checkpoint of step" in seen["reason"]
    )
    for word in ("BACKPROP_RESUME_FROM", "--resume-arg", "docs/protocol.md", f"backprop resume {run}"):
        assert word in seen["reason"]
    bench.backprop("resume", run)
    wait_until(lambda: len(starts(bench)) >= 4, timeout_s=60, saw=lambda: bench.show(run))
    assert bench.state(run) != "failed", "the user knows better: not asked a second time"
    bench.backprop("stop", run)


@pytest.mark.parametrize("mode", ["global", "local"])
def test_a_chain_that_goes_on_is_left_alone(bench: Bench, mode: str) -> None:
    bench.script("train.py", TRAINER)
    run = bench.queue("train.py", "-m", "0.03", "--", mode)
    bench.worker()
    wait_until(lambda: len(starts(bench)) >= 4, timeout_s=60, saw=lambda: bench.show(run))
    bench.backprop("stop", run)
    seen = bench.wait_for(run, "stopped")
    assert {one["outcome"] for one in seen["segments"]} == {"timeboxed", "stopped"}
    assert starts(bench) == sorted(starts(bench))


PLAIN_TRAINER = """
import json, os, sys, time
from pathlib import Path
came_from = os.environ.get("BACKPROP_RESUME_FROM")
epoch = int(Path(came_from).read_text()) if came_from and sys.argv[1] != "forgets" else 0
with open("starts", "a") as file:
    file.write(f"{epoch}\\n")
while True:
    time.sleep(0.03)
    epoch += 1
    print(f"Epoch {epoch}/5000 - loss: {1 / epoch:.4f}", flush=True)
    if epoch % 10 == 0:
        path = Path(f"ckpt-{epoch}")
        path.write_text(str(epoch))
        print(json.dumps({"event": "checkpoint_saved", "path": str(path)}), flush=True)
"""


@pytest.mark.parametrize("mode", ["forgets", "goes on"])
def test_a_chain_is_seen_to_start_over_in_its_plain_output(bench: Bench, mode: str) -> None:
    bench.script("train.py", PLAIN_TRAINER)
    run = bench.queue("train.py", "-m", "0.05", "--", mode)
    bench.worker()
    if mode == "forgets":
        seen = bench.wait_for(run, "failed")
        assert [one["outcome"] for one in seen["segments"]] == ["timeboxed", "started over"]
        assert (
            "started over: its epochs began again at 1, though it was given a checkpoint of epoch"
            in seen["reason"]
        )
    else:
        wait_until(lambda: len(starts(bench)) >= 3, timeout_s=60, saw=lambda: bench.show(run))
        bench.backprop("stop", run)
        seen = bench.wait_for(run, "stopped")
    assert (seen["step_unit"], seen["step_total"], seen["source"]) == (
        "epoch",
        5000,
        {"step": "log", "loss": "log"},
    )
